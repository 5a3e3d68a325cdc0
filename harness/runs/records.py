"""Run records on disk: what was run, how far it is and what came of it, as JSON. Reading them needs no torch.

    <results>/<task>/<algorithm>/<identity>/cell.json                 what is run: task, data, configuration
    <results>/<task>/<algorithm>/<identity>/seed-<n>/record.json      how far it is, its evaluations, where it ran
                                                     checkpoint.pt    all that is needed to go on
                                                     checkpoint.before.pt  the one before it
                                                     stopped.pt       where it was told to stop since, if it was
                                                     evaluations.csv  the evaluations once more, for reading
    <results>/stages/<stage>/<identity>/seed-<n>.pt                   a fitted stage, shared by the algorithms that name it
                                        seed-<n>.part.pt              one that is still being fitted

The identity is a hash of everything that decides the numbers but the seed. Every file is replaced whole, never changed in
place, so that a killed process leaves the old one or the new one.
"""

from __future__ import annotations

import csv
import gc
import glob
import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from ...common.errors import UserError
from ...common.files import replace_file
from ...common.trees import dotted
from .reading import Damaged, checked_cell, checked_record, cleaned, parsed, printable, put_aside, seed_of

STATES = ("missing", "running", "failed", "diverged", "done")
NOT_TASKS = ("stages", "set-aside", "slurm")  # folders beside those of tasks
DAMAGED = "damaged"  # the state of a run of which a file is not to be believed


def state_at(state: str, steps: int, wanted: int) -> str:
    """The state of a run when `wanted` steps are asked for: done once it was evaluated there or later; diverged for good."""
    if state == "diverged":
        return state
    if steps >= wanted:
        return "done"
    return "running" if state == "done" else state


def state_in_words(state: str) -> str:
    """A state as it is shown: a record that says "running" cannot know whether anybody is still at work on it."""
    return "unfinished" if state == "running" else state


def identity_hash(identity: dict[str, Any]) -> str:
    """Twelve hex digits of a JSON-able identity; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def sweep(folder: Path, name: str = "") -> None:
    """Deletes what killed processes left half-written, of files whose names begin so. The caller holds their lock."""
    for path in folder.glob(f".{glob.escape(name)}*.part"):
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, advice: str) -> Any:
    """The value in a file of ours; UserError, with what to do, if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}); {advice}") from None


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, with the columns of all of them in the order in which they first appear."""
    stream = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@dataclass
class Run:
    """One seed of one cell, as its record says.

    evaluations: one per evaluation, in order, each with `step`, `returns` (every episode's), `return_mean`, `metrics` (the
    learner's, by name), `vitals` (the experience's and the evaluation's) and `value` (the critics' mean, and the highest that
    rewards have allowed). Records that were begun before there was `metrics` have all of these beside `step`.
    cell: what `cell.json` holds: `task`, `algorithm`, `config`, `data` (label, source, rows, digest, window, ...), `versions`.
    record: what `record.json` holds: beside what is told above where it ran, `seconds` of training so far, and `seconds_at`, by
    the step of each evaluation.
    """

    task: str
    algorithm: str
    identity: str
    seed: int
    state: str
    steps: int
    evaluations: list[dict[str, Any]]
    cell: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What lies in a results folder and is not to be believed; without a seed a whole cell, or a folder of another name."""

    task: str
    algorithm: str
    identity: str
    seed: int | None
    reason: str
    of_cell: bool = False

    def __str__(self) -> str:
        seed = "" if self.seed is None else f"/seed-{self.seed}"
        return printable(f"{self.task}/{self.algorithm}/{self.identity}{seed}: {self.reason}")


class Store:
    """A folder of run records."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def prepare(self) -> None:
        """Makes the folder and tries to write to it, before anything is run."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write results to {self.root}: {error.strerror}; choose another folder with --results"
            ) from None

    def cell_folder(self, task: str, algorithm: str, identity: str) -> Path:
        return self.root / task / algorithm / identity

    def read_cell(self, folder: Path) -> dict[str, Any]:
        """What the `cell.json` of a folder says. Raises Damaged where it is not to be believed."""
        if not (folder / "cell.json").exists():
            raise Damaged("there is no cell.json")
        cell, plainly = parsed(folder / "cell.json")
        checked_cell(cell, folder.parts[-3], folder.parts[-2], folder.name, identity_hash)
        return cell if plainly else cleaned(cell)

    def write_cell(self, folder: Path, cell: dict[str, Any]) -> None:
        """Writes `cell.json` once; afterwards the configuration found there must agree with this one.

        The identity holds only settings that differ from their defaults, so that a setting added later leaves old runs
        alone. A default that changed without a new version is noticed here.
        """
        path = folder / "cell.json"
        if path.exists():
            known = self.read_cell(folder)["config"]
            if changed := changed_defaults(known, plain(cell["config"])):
                raise UserError(
                    f"{path}: the default of {', '.join(sorted(changed))} has changed since these runs, under the same "
                    "version: raise the algorithm's version, or set the old value with --set"
                )
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{folder}: a file lies in the way; move it, or name another folder with --results") from None
        with held(folder, SECONDS_TO_WRITE) as mine:  # or a command beside this one sweeps up what is half-written
            if mine and not path.exists():
                write_json(path, cell)

    def read_record(self, folder: Path) -> dict[str, Any] | None:
        """The record of one seed's folder; None where it has none. Raises Damaged where it is not to be believed."""
        path, seed = folder / "record.json", seed_of(folder.name)
        if seed is None or not (path.exists() or path.is_symlink()):
            return None
        record, plainly = parsed(path)
        checked_record(record, seed)
        return record if plainly else cleaned(record)

    def repair(self, folder: Path, seeds: Sequence[int]) -> list[str]:
        """Puts aside what is damaged of a cell's files and of these seeds' records; gives a line for each.

        What another process holds is left to it. A damaged file is read again under the lock: it may have been made anew
        meanwhile.
        """
        said = []
        sweep_leftovers(folder)
        for path, read in [(folder / "cell.json", partial(self.read_cell, folder))] + [
            (each / "record.json", partial(self.read_record, each)) for each in (folder / f"seed-{seed}" for seed in seeds)
        ]:
            if _damage(path, read) is None:
                continue
            with held(path.parent) as mine:
                if mine and (why := _damage(path, read)) is not None:
                    where = path.parent.relative_to(self.root)
                    said.append(f"damaged: {where}: {why}; it is kept as {put_aside(path).name}, and made anew")
        return said

    def write_record(self, folder: Path, record: dict[str, Any]) -> None:
        write_json(folder / "record.json", record)
        write_text(folder / "evaluations.csv", csv_text(list(map(flat, record["evaluations"]))))

    def runs(self, task: str = "*", algorithm: str = "*") -> Iterator[Run]:
        """Every recorded run (of one task, of one algorithm) that is to be believed, by task, algorithm, identity and seed."""
        return (each for each in self.found(task, algorithm) if isinstance(each, Run))

    def faults(self) -> list[Fault]:
        """What is in the folder and is not to be believed, and why."""
        return [each for each in self.found() if isinstance(each, Fault)]

    def everything(self, brief: bool = False, steps: Collection[int] = (), until: int | None = None) -> list[Run | Fault]:
        """All that `found` gives, at once. until: runs as `up_to` leaves them. brief: as `shortened` does at these steps.

        Python's collector, which would look through what is read again and again, waits until it is.
        """
        waits = gc.isenabled()
        gc.disable()
        try:
            found = [each if until is None or isinstance(each, Fault) else up_to(each, until) for each in self.found()]
            return [shortened(each, steps) if brief and isinstance(each, Run) else each for each in found]
        finally:
            if waits:
                gc.enable()

    def found(self, task: str = "*", algorithm: str = "*") -> Iterator[Run | Fault]:
        """Every recorded run, or what is wrong with it: files are believed where they agree with the path that they lie in."""
        for folder in sorted(self.root.glob(f"{task}/{algorithm}/*")):
            relative = folder.relative_to(self.root)
            seeds = [path for path in folder.glob("seed-*") if path.is_dir()] if folder.is_dir() else []
            if relative.parts[0] in NOT_TASKS or not (seeds or (folder / "cell.json").exists()):
                continue
            names = (relative.parts[0], relative.parts[1], folder.name)
            try:
                cell = self.read_cell(folder)
            except Damaged as why:
                yield Fault(*names, None, str(why), of_cell=True)
                continue
            numbered = sorted((seed, path) for path in seeds if (seed := seed_of(path.name)) is not None)
            for path in sorted(path for path in seeds if seed_of(path.name) is None):
                if (path / "record.json").exists():
                    yield Fault(*names, None, f"{path.name} is not how a seed's folder is called")
            for seed, path in numbered:
                try:
                    record = self.read_record(path)
                except Damaged as why:
                    yield Fault(*names, seed, str(why))
                    continue
                if record is None:
                    if (path / "evaluations.csv").exists():  # which is written after it
                        yield Fault(*names, seed, "there are evaluations, and no record.json: copied without it, or deleted")
                else:
                    yield Run(
                        task=names[0],
                        algorithm=names[1],
                        identity=folder.name,
                        seed=seed,
                        state=record["state"],
                        steps=record["steps"],
                        evaluations=record["evaluations"],
                        cell=cell,
                        record=record,
                    )


def changed_defaults(known: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """The settings that two full configurations of one identity both have and have differently."""
    return {key for key in known.keys() & new.keys() if known[key] != new[key]}


LEFT_OUT_AFTER = "left_out_after"  # in a record, the step after which evaluations are left out here


def up_to(run: Run, until: int) -> Run:
    """The run as it was at its last evaluation up to this step, done where it went on, and without any where there is none."""
    if run.steps <= until:
        return run
    rows = [row for row in run.evaluations if row["step"] <= until]
    last, at = rows[-1]["step"] if rows else 0, run.record.get("seconds_at", {})
    record = run.record | {"state": "done", "steps": last, "evaluations": rows, LEFT_OUT_AFTER: until}
    record |= {"seconds": at[str(last)]} if str(last) in at else {}
    return replace(run, state="done", steps=last, evaluations=rows, record=record)


BRIEF = ("step", "return_mean", "value")  # of an evaluation: what tables read of those before the last


def shortened(run: Run, steps: Collection[int] = ()) -> Run:
    """The run with its last evaluation and those at these steps whole, and `BRIEF` of the others: a third of the memory."""
    run.evaluations[:-1] = [
        row if row["step"] in steps else {name: row[name] for name in BRIEF if name in row} for row in run.evaluations[:-1]
    ]
    return run


def many_digits(values: Iterable[float]) -> bool:
    """Whether one of these numbers has more than six digits, as no count or share has, and no rounded setting."""
    return any(float(f"{value:.6g}") != value for value in values)


def evaluated_alike(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two seeds have one mean return at each step at which both were evaluated, and not one return in all of these.

    Seeds meet other starts, so that two trainings do so only where a return is a count or a policy does nothing.
    """
    if one and other and one[0]["step"] == other[0]["step"] and one[0]["return_mean"] != other[0]["return_mean"]:
        return False  # as most do
    theirs = {row["step"]: row["return_mean"] for row in other}
    common = [row for row in one if row["step"] in theirs]
    several = len({value for row in common for value in (row["return_mean"], *row.get("returns", ()))}) > 1
    return several and all(row["return_mean"] == theirs[row["step"]] for row in common)


def _damage(path: Path, read: Callable[[], object]) -> Damaged | None:
    """Why a file is not to be believed; None where it is, or is not there."""
    try:
        if path.exists() or path.is_symlink():
            read()
    except Damaged as why:
        return why
    return None


def sweep_leftovers(folder: Path) -> None:
    """As `sweep`, where there is anything to sweep and no other process holds the folder."""
    if folder.is_dir() and any(name.endswith(".part") for name in os.listdir(folder)):
        with held(folder) as mine:
            if mine:
                sweep(folder)


SECONDS_TO_WRITE = 10  # that another command may take over a small file
SECONDS_TO_LOOK = 0.1  # within which one that looks whether a folder is held has let go of it


@contextmanager
def held(folder: Path, seconds: float | None = None) -> Iterator[bool]:
    """Holds the lock of a folder while the block runs, if it is free within so many seconds: gives whether it is held."""
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=SECONDS_TO_LOOK if seconds is None else seconds, poll_interval=0.02)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation as a line of CSV: "metrics.critic_loss" for what lies deeper, a list of numbers in one field."""
    return {name: " ".join(map(six_digits, value)) if isinstance(value, list) else value for name, value in dotted(row).items()}


def six_digits(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6g}"


EPISODES = "episodes"  # in what a record says of its import, whether the file told them apart


def episodes_of(run: Run) -> int | None:
    """How many episodes the last evaluation of a run has; None where none is, or an imported curve does not say."""
    told = run.record.get("imported", {}).get(EPISODES, "told") == "told"
    return len(run.evaluations[-1]["returns"]) if run.evaluations and told else None


UNKNOWN_TIME = "at an unknown time"  # in the place of what `begun` does not know


def begun(records: Iterable[Mapping[str, Any]]) -> str:
    """When the last of some runs was begun, in UTC, as "2026-11-29 21:31:08"; empty where no record says so."""
    dates = [str(part.get("date", "")) for record in records for part in (record.get("segments") or [])[:1]]
    return max(dates, default="")[:19].replace("T", " ")


def made_with(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The versions of packages with which some runs were trained, by the package's name, and their "commit"s."""
    found: dict[str, set[str]] = {}
    for part in (part for record in records for part in record.get("segments") or []):
        for name, version in {**part.get("versions", {}), "commit": part.get("commit")}.items():
            found.setdefault(name, set()).update([str(version)] if version else [])
    return {name: sorted(versions) for name, versions in found.items() if versions}


def overvalued(evaluations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first evaluation, if any, at which the critics' mean value exceeds the highest that rewards have allowed."""
    for row in evaluations:
        value = row.get("value") or {}
        if value.get("highest") is not None and value["mean"] > value["highest"]:
            return row
    return None


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What a reader of a run's numbers should know, a sentence each."""
    found = [printable(text) for text in record.get("warnings", {}).values() if text]
    if row := overvalued(record["evaluations"]):
        value = row["value"]
        found.append(
            f"at step {row['step']:,} the critics' mean value is {value['mean']:.4g}, above {value['highest']:.4g}, the most "
            "that its rewards allow"
        )
    return found


def plain(value: Any) -> Any:
    """As it reads back from JSON."""
    return json.loads(json.dumps(value))
