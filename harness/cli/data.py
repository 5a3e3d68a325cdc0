"""The `data` commands: datasets, where each comes from, what is in it, and how one is made."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...common.errors import UserError
from ...tasks.data.request import VERSIONS
from .options import (
    Clip,
    Compiled,
    Data,
    DataSeed,
    Json,
    Rows,
    Window,
    checked_count,
    console,
    markdown,
    names,
    print_rows,
    text,
    whole,
)

data_app = typer.Typer(help="Datasets: where each comes from, what is in it, how one is made.", no_args_is_help=True)

Tasks = Annotated[list[str] | None, typer.Argument(help="Tasks of D4RL; all 12 by default.")]


class TableFormat(StrEnum):
    text = "text"
    csv = "csv"
    markdown = "markdown"


class Layout(StrEnum):
    minari = "minari"
    d4rl = "d4rl"


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """Lists every task with the source of its dataset, and whether that is on this machine and of the right size.

    Example: mopo-bench data list
    """
    from ..collection.listing import data_listing

    _show(data_listing(), as_json)


@data_app.command("fetch")
def data_fetch(
    tasks: Tasks = None,
    version: Annotated[str, typer.Option(help=f"{VERSIONS}; v0 is the paper's.")] = "v0",
    mirror: Annotated[str | None, typer.Option(help="URL or local folder to be asked before all others.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection; say what is missing.")] = False,
    accept_sha256: Annotated[str | None, typer.Option(help="Accept exactly this other file, for one task.")] = None,
) -> None:
    """Downloads D4RL's files into the cache, resumes broken transfers, checks every file by size and SHA-256.

    Mirrors are asked in order: --mirror, then those in $MOPO_BENCH_D4RL_MIRRORS, or else D4RL's own server and a public copy. A
    file that none of them gives does not stop the others; the exit status is then 2.

    Example: mopo-bench data fetch hopper-medium --mirror /data/d4rl
    """
    from ...tasks.data.d4rl import NotFetched, fetch

    files = _d4rl_files(tasks, version)
    if accept_sha256 is not None and len(files) != 1:
        raise UserError(f"--accept-sha256 accepts one file: name one task and one --version, not {len(files)} files")
    missing = []
    for task, file in files:
        try:
            path = fetch(file, mirror=mirror, offline=offline, accept_sha256=accept_sha256, progress=True)
            console.print(f"{task} {file.version}: {path}", markup=False, soft_wrap=True)
        except NotFetched as error:
            if len(files) == 1:
                raise
            missing.append(file.name)
            console.print(f"{task} {file.version}: missing: {error}", markup=False, soft_wrap=True)
    if missing:
        raise UserError(f"{len(missing)} of {len(files)} files are missing, for the reasons above: {', '.join(missing)}")


@data_app.command("verify")
def data_verify(
    tasks: Tasks = None,
    version: Annotated[str, typer.Option(help=f"Which of D4RL's files: {VERSIONS}.")] = "all",
    physics: Annotated[bool, typer.Option("--physics", help="Repeat logged steps in today's MuJoCo.")] = False,
    dataset: Annotated[Path | None, typer.Option(help="With --physics: a file of your own, for one task.")] = None,
    rows: Annotated[int, typer.Option(help="With --physics: rows to repeat.")] = 5_000,
    as_json: Json = False,
) -> None:
    """Checks the D4RL files on this machine by size and SHA-256; with --physics, compares the simulator with the data.

    Example: mopo-bench data verify hopper-medium --physics
    """
    if physics:
        _show(_physics(_named(tasks), dataset, checked_count("--rows", rows)), as_json)
        return
    if dataset is not None:
        raise UserError("--dataset goes with --physics; `data inspect FILE` reads and checks a file of your own")
    from ...tasks.data.d4rl import cache_folder, verify

    found = []
    for task, file in _d4rl_files(tasks, version):
        state = verify(file)
        place = str(state.path or "")
        found.append({"task": task, "file": file.name, "state": state.status, "bytes": state.bytes, "path": place})
    _show(found, as_json)
    bad = [row["file"] for row in found if row["state"] not in ("verified", "accepted", "absent")]
    if bad:
        raise UserError(
            f"{', '.join(bad)}: not what D4RL published; `mopo-bench data fetch` puts good files into "
            f"{cache_folder() / 'd4rl'}, where they are looked for first"
        )
    there = {row["task"] for row in found if row["state"] != "absent"}
    lost = [name for name in dict.fromkeys(row["task"] for row in found) if name not in there]
    if lost and (tasks or not there):  # who names no task asks of those that are here
        named = f" for {', '.join(lost)}" if tasks else ""
        raise UserError(f"no file of D4RL's{named} is here to verify: `mopo-bench data fetch` brings them")


def _physics(chosen: list[Any], file: Path | None, rows: int) -> list[dict[str, Any]]:
    from ...tasks.data.simulator_agreement import replay_physics
    from ...tasks.data.sources import DatasetRequest, load_dataset

    if not chosen or (file is not None and len(chosen) != 1):
        raise UserError("--physics: name the task, such as `data verify hopper-medium --physics`")
    found = []
    for task in chosen:
        dataset = load_dataset(task, DatasetRequest(source="auto" if file else _with_states(task), file=file))
        found.append({"dataset": dataset.provenance["label"], **replay_physics(dataset, task, rows)})
    return found


def _with_states(task: Any) -> str:
    """The source of a dataset that stores states: D4RL's v2 file where it is here (v0 stores none), else a regenerated one."""
    from ...tasks.data.d4rl import d4rl_path

    return "d4rl-v2" if any(file.version == "v2" and d4rl_path(file) for file in task.recipe.files) else "regenerated"


@data_app.command("inspect")
def data_inspect(
    task_or_file: Annotated[str, typer.Argument(help="A task, or an HDF5 file in D4RL's layout.")],
    task: Annotated[
        str | None, typer.Option(help="Of a file: whose dataset it is; finds episodes' ends, checks sizes.")
    ] = None,
    data: Data = "auto",
    rows: Rows = None,
    window: Window = "all",
    data_seed: DataSeed = 0,
    clip_actions: Clip = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the episodes: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Shows what is in a dataset: rows, episodes, returns, score, ranges, what was repaired or dropped, what is odd.

    Example: mopo-bench data inspect hopper-medium --plot hopper-medium.png
    """
    from ...tasks.data.sources import DatasetRequest
    from ..collection.inspection import find_dataset, inspect_dataset

    request = DatasetRequest(data, rows, window, seed=data_seed, clip_actions=clip_actions)
    dataset, chosen = find_dataset(task_or_file, request, task)
    facts = inspect_dataset(dataset, chosen)
    if plot is not None:
        from ..report.plots import dataset_picture

        dataset_picture(dataset, facts["label"] or task_or_file, plot)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        shown = "; ".join(value) if key in ("oddities", "acceptance") else text(value)
        console.print(f"{key.replace('_', ' '):>20}  {shown or '-'}")


@data_app.command("summary")
def data_summary(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks; the 14 of the paper by default.")] = None,
    data: Data = "auto",
    data_seed: Annotated[int, typer.Option(help="Seed of regenerated datasets.")] = 0,
    rows: Annotated[int | None, whole("Rows of regenerated datasets.")] = None,
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
) -> None:
    """Shows what is in each task's dataset, a row per task, with the paper's Batch Mean and Batch Max.

    Example: mopo-bench data summary --format csv > datasets.csv
    """
    from ...tasks.data.sources import DatasetRequest
    from ..collection.inspection import summary
    from ..report.paper import LAYOUTS, tasks_of

    chosen = _named(tasks or list(dict.fromkeys(name for table in LAYOUTS for name in tasks_of(table))))
    _print_table([summary(task, DatasetRequest(data, rows, seed=data_seed)) for task in chosen], format_)


@data_app.command("collect")
def data_collect(
    task: Annotated[str, typer.Argument(help="Any task.")],
    out: Annotated[Path, typer.Option(help="Folder for the dataset (TASK.hdf5), policies, curve and checkpoint.")],
    steps: Annotated[int | None, whole("Environment steps of training at most; 1M, as in the paper.")] = None,
    target: Annotated[float | None, typer.Option(help="Return of the medium policy; a third of the expert's.")] = None,
    rows: Annotated[int, whole("Rows rolled out from a policy.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of training and rollout.")] = 0,
    evaluate_every: Annotated[int, whole("Environment steps between evaluations.")] = 1_000,
    compile_: Compiled = "auto",
) -> None:
    """Makes a task's dataset by D4RL's protocol: trains SAC online, then logs it; resumes where it was stopped.

    Tasks of one environment may share a folder: medium, mixed and medium-expert come from one run.

    Example: mopo-bench data collect halfcheetah-jump --steps 300000 --out collected/jump
    """
    from ...tasks.registry import get_task
    from ..collection.acceptance import check_dataset
    from ..collection.collect import collect

    chosen = get_task(task)
    for option, number in (("--steps", steps), ("--rows", rows), ("--evaluate-every", evaluate_every)):
        checked_count(option, 1 if number is None else number)
    dataset = collect(
        chosen,
        out,
        steps=steps,
        rows=rows,
        target=target,
        seed=seed,
        evaluate_every=evaluate_every,
        compiled=compile_,
        report=_print_curve,
    )
    facts = dataset.describe()
    what = f"return {facts['return_mean']:.0f}, best {facts['return_max']:.0f}"
    console.print(f"{len(dataset):,} rows in {out / task}.hdf5: {what}")
    for check in check_dataset(dataset, chosen):
        console.print(f"  {check}")


@data_app.command("relabel")
def data_relabel(
    file: Annotated[Path, typer.Argument(help="An HDF5 file in D4RL's layout.")],
    reward: Annotated[str, typer.Option(help="A registered reward (halfcheetah-jump, ant-angle), or module:function.")],
    out: Annotated[Path, typer.Option(help="The file to write, .hdf5.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the reward, such as angle=45.")] = None,
) -> None:
    """Writes a copy of a dataset with another reward.

    Example: mopo-bench data relabel collected/ant-angle/ant-angle.hdf5 --reward ant-angle --set angle=45 --out ant-45.hdf5
    """
    from ...tasks.data.relabelling import relabel_file

    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working directory is found, as with `python -m`
    before, after = relabel_file(file, reward, set_ or [], out)
    console.print(f"{out}: {after:,.3f} a step on average, {before:,.3f} under the reward of {file}")


@data_app.command("export")
def data_export(
    task_or_file: Annotated[str, typer.Argument(help="A task, or an HDF5 file in D4RL's or Minari's layout.")],
    out: Annotated[Path, typer.Option(help="The folder to write: the dataset and its card, README.md.")],
    to: Annotated[Layout, typer.Option(help="Whose layout.")] = Layout.minari,
    task: Annotated[str | None, typer.Option(help="Of a file: whose dataset it is.")] = None,
    data: Data = "auto",
    rows: Rows = None,
    window: Window = "all",
    data_seed: DataSeed = 0,
    clip_actions: Clip = False,
) -> None:
    """Writes a dataset as one shares it, with a card that says what is in it and where it comes from.

    Minari's layout is written with Minari (`pip install 'mopo-bench[minari]'`), and read without it.

    Example: mopo-bench data export hopper-medium --to minari --out shared/hopper-medium-v0
    """
    from ...tasks.data.sources import DatasetRequest
    from ..collection.export import export
    from ..collection.inspection import find_dataset

    request = DatasetRequest(data, rows, window, seed=data_seed, clip_actions=clip_actions)
    dataset, chosen = find_dataset(task_or_file, request, task)
    options = {"task": task, "data": data, "rows": rows, "window": window, "data-seed": data_seed}
    usual = {"task": None, "data": "auto", "rows": None, "window": "all", "data-seed": 0}
    words = [word for name, value in options.items() if value != usual[name] for word in (f"--{name}", str(value))]
    words += ["--clip-actions"] * clip_actions + ["--out", out.name]
    command = shlex.join(["mopo-bench", "data", "export", Path(task_or_file).name, "--to", to, *words])
    file = export(dataset, chosen, to, out, command)
    whole = f" ({rows:,} were asked for: recorded episodes stay whole)" if rows and len(dataset) > rows else ""
    console.print(f"{file}: {len(dataset):,} rows{whole}, and {out / 'README.md'}", markup=False, soft_wrap=True)


@data_app.command("actors")
def data_actors(
    episodes: Annotated[int, typer.Option(help="Deterministic episodes per policy.")] = 100,
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
) -> None:
    """Evaluates every bundled policy in the environment it was trained in.

    Example: mopo-bench data actors --episodes 100 --format csv > actors.csv
    """
    from ..collection.actors import evaluate_actors

    _print_table(list(evaluate_actors(checked_count("--episodes", episodes))), format_)


@data_app.command("curves")
def data_curves(
    files: Annotated[list[Path], typer.Argument(help="curve.csv files of `data collect`.")],
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")],
) -> None:
    """Draws the training curves of collections side by side.

    Example: mopo-bench data curves results/collection/*.csv --out curves.png
    """
    from ..report.plots import collection_curves

    collection_curves(files, out)


def _named(tasks: list[str] | None) -> list[Any]:
    """The tasks that are named, each word being one name or several separated by commas."""
    from ...tasks.registry import get_task

    return [get_task(name) for name in names(",".join(tasks or []))]


def _d4rl_files(tasks: list[str] | None, version: str) -> list[tuple[str, Any]]:
    from ...tasks.data.d4rl import files_of
    from ...tasks.registry import all_tasks

    chosen = _named(tasks) or [task for task in all_tasks().values() if task.recipe.files]
    return [(task.name, file) for task in chosen for file in files_of(task, version)]


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print_rows(rows)


def _print_table(rows: list[dict[str, Any]], format_: TableFormat) -> None:
    if format_ is TableFormat.text:
        print_rows(rows)
    elif format_ is TableFormat.csv:
        from ..runs.records import csv_text

        print(csv_text(rows), end="")
    else:
        print(markdown(rows))


def _print_curve(row: dict[str, Any]) -> None:
    console.print(
        f"{row['steps']:>8,} steps  return {row['return_mean']:8.1f} ± {row['return_std']:.1f}  {row['seconds']:.0f} s"
    )
