"""Run records for other tools: tidy files, TensorBoard's events, Weights & Biases' offline runs, openrlbenchmark's cache.

Each format is a function of the runs and an empty folder. Libraries that are not needed otherwise are imported when asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import UserError, unknown
from ...common.files import replace_file
from ..runs.records import Run, write_json, write_text
from .choices import EXPORTS
from .frames import KEY, Frames, frames
from .groups import RowKey, dataset_names, groups_in, without_task

PROJECT = "mopo-bench"  # in Weights & Biases and openrlbenchmark
RETURN = "charts/episodic_return"  # what openrlbenchmark looks for
# how openrlbenchmark's offline mode lays out what it knows of runs
SCHEMA = """
create table offlinerun (
    id varchar(255) not null, name varchar(255) not null, state varchar(255) not null, url varchar(255) not null,
    path text not null, username varchar(255) not null, project varchar(255) not null, entity varchar(255) not null,
    config text not null
);
create table tag (id integer not null primary key, name varchar(255) not null);
create table tag_offlinerun_through (
    id integer not null primary key, tag_id integer not null references tag (id),
    offlinerun_id integer not null references offlinerun (id)
);
"""


class Curve(NamedTuple):
    """One run for tools that know runs: what it is called, what it was, and its numbers by step."""

    run: Run
    environment: str  # the task with its parameters and dataset
    label: str
    config: Mapping[str, Any]
    steps: Sequence[tuple[int, Mapping[str, float]]]  # "return_mean", "score", "metrics/critic_loss", ...

    @property
    def place(self) -> str:
        """Its folder, as in the results."""
        return "/".join((self.run.task, self.run.algorithm, self.run.identity, f"seed-{self.run.seed}"))

    def seconds_at(self, step: int) -> float | None:
        """The time of training until an evaluation; what an older record lacks is shared out evenly. None of imports."""
        if self.run.cell.get("imported"):
            return None
        known = {int(each): seconds for each, seconds in self.run.record.get("seconds_at", {}).items()}
        first = min(known, default=self.run.steps)
        evenly = known.get(first, self.run.record.get("seconds") or 0.0) * step / max(first, 1)
        return known.get(step, evenly)


def export_runs(to: str, runs: Iterable[Run], folder: str, out: Path) -> list[Path]:
    """Writes the runs of `folder` to the folder `out` in a format of `EXPORTS`; gives the files or folders that were made.

    Raises UserError for another format, one whose library is missing, without runs, and for an `out` that is not empty.
    """
    if to not in EXPORTS:
        raise unknown("format", to, EXPORTS, "mopo-bench export --help")
    library = EXPORTS[to].library
    if library and not find_spec(library):
        raise UserError(f'--to {to} needs {library}: pip install "mopo-bench[export]"')
    runs = list(runs)
    groups_in(runs, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: it is not empty; name a new folder")
    return WRITERS[to](runs, folder, out)


def _csv(runs: Sequence[Run], folder: str, out: Path) -> list[Path]:
    made = []
    for name, frame in _flat(frames(runs))._asdict().items():
        write_text(out / f"{name}.csv", frame.to_csv(index=False))
        made.append(out / f"{name}.csv")
    return made


def _parquet(runs: Sequence[Run], folder: str, out: Path) -> list[Path]:
    made = []
    for name, frame in _flat(frames(runs))._asdict().items():
        path = out / f"{name}.parquet"
        replace_file(path, lambda temporary, frame=frame: frame.to_parquet(temporary, engine="pyarrow"))  # type: ignore[misc]
        made.append(path)
    return made


def _flat(found: Frames) -> Frames:
    """The frames with lists, such as the errors of an ensemble's networks, as JSON."""

    def of(value: Any) -> Any:
        return json.dumps(value) if isinstance(value, list | dict) else value

    def flat(frame: Any) -> Any:
        lists = [name for name in frame if frame[name].dtype == object]
        return frame.assign(**{name: frame[name].map(of) for name in lists})

    return Frames(*map(flat, found))


def curves_of(runs: Sequence[Run], folder: str) -> Iterator[Curve]:
    """Every run that was evaluated, as a curve."""
    groups = groups_in(runs, folder)
    names = dataset_names(groups)
    by_identity = {(group.key, group.identity): group for group in groups}
    numbers = frames(runs).evaluations.set_index(list(KEY)).sort_index()
    for run in runs:
        if not run.evaluations:
            continue
        group = by_identity[RowKey.of(run), run.identity]
        rows = numbers.loc[[tuple(getattr(run, name) for name in KEY)]].to_dict("records")
        steps = [(int(row.pop("step")), _scalars(row)) for row in rows]
        environment = f"{group.row}@{without_task(names[group.key])}"
        config = {
            **run.cell["config"],
            **{"env_id": environment, "exp_name": group.label, "seed": run.seed, "task": run.task},
            **{"algorithm": run.algorithm, "identity": run.identity, "data": run.cell["data"]["label"], "state": run.state},
        }
        yield Curve(run, environment, group.label, config, steps)


def _scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation that there are; "metrics.x" is "metrics/x", which tools show together."""
    return {
        name.replace(".", "/"): float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value
    }


def _tensorboard(runs: Sequence[Run], folder: str, out: Path) -> list[Path]:
    from torch.utils.tensorboard import SummaryWriter

    made = []
    for curve in curves_of(runs, folder):
        with SummaryWriter(str(out / curve.place)) as writer:
            writer.add_text("config", f"```json\n{json.dumps(curve.config, indent=1)}\n```")
            for step, scalars in curve.steps:
                for name, value in scalars.items():
                    writer.add_scalar(name, value, step)
        made.append(out / curve.place)
    return made


def _wandb(runs: Sequence[Run], folder: str, out: Path) -> list[Path]:
    import wandb

    settings: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True, "save_code": False}
    settings |= {
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
    }  # of this machine, not the runs'
    out.mkdir(parents=True, exist_ok=True)
    for curve in curves_of(runs, folder):
        begun = wandb.init(
            mode="offline",
            project=PROJECT,
            name=curve.place,
            group=f"{curve.environment} {curve.label}",
            config=dict(curve.config),
            dir=str(out),
            reinit="finish_previous",
            settings=wandb.Settings(**settings),
        )
        for step, scalars in curve.steps:
            begun.log({"global_step": step, RETURN: scalars["return_mean"], **scalars}, step=step)
        begun.finish()
    wandb.teardown()  # only then is every file whole
    return sorted((out / "wandb").glob("offline-run-*"))


def _openrlbenchmark(runs: Sequence[Run], folder: str, out: Path) -> list[Path]:
    """Its cache and its offline database: `out` is what it calls `dataset`."""
    import sqlite3

    from pandas import DataFrame

    place, rows = out / PROJECT / PROJECT, []
    for curve in curves_of(runs, folder):
        name = curve.place.replace("/", "-")
        config = {key: {"desc": None, "value": value} for key, value in curve.config.items()}
        state = "running" if curve.run.state == "running" else "finished"
        about = {"id": name, "name": curve.place, "state": state, "url": "", "project": PROJECT, "entity": PROJECT}
        path = [PROJECT, PROJECT, name]
        write_json(
            place / name / "run.json",
            {**about, "config": config, "tags": [], "path": path, "user": {"username": PROJECT, "name": PROJECT}},
        )
        lines = [
            {"global_step": step, "_step": step, "_runtime": curve.seconds_at(step), RETURN: scalars["return_mean"], **scalars}
            for step, scalars in curve.steps
        ]
        write_text(place / name / "run_df.csv", DataFrame(lines).to_csv())
        rows.append((name, curve.place, state, "", json.dumps(path), PROJECT, PROJECT, PROJECT, json.dumps(config)))

    def write(temporary: Path) -> None:
        database = sqlite3.connect(temporary)
        with database:
            database.executescript(SCHEMA)
            database.executemany("insert into offlinerun values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        database.close()

    replace_file(place / "offline.sqlite", write)
    return [place]


WRITERS: dict[str, Callable[[Sequence[Run], str, Path], list[Path]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "openrlbenchmark": _openrlbenchmark,
}
