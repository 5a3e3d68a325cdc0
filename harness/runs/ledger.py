"""The ledger of a results folder: which runs are wanted and what state each is in, from JSON records alone, each read once."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import filelock

from ...common.errors import UserError
from .reading import Damaged, archive_damage, checked_plan, parsed, printable, put_aside
from .records import DAMAGED, Fault, Run, Store, plain, state_at, sweep, warnings, write_json

if TYPE_CHECKING:  # it imports torch
    from .cell import Cell

Todo = tuple["Cell", int, int]  # cell, seed, steps done

PACKAGE = Path(__file__).resolve().parents[2]
ROOMS = tuple(PACKAGE / room for room in ("harness", "algorithms", "tasks", "common"))  # a clone holds more: examples, tests


class Planned(Protocol):
    """Runs that are wanted: a `Plan`."""

    @property
    def results(self) -> Path: ...

    def seeds(self) -> Iterator[tuple[Cell, int]]: ...


class Known(NamedTuple):
    """What the ledger keeps of a record: of ten thousand all evaluations would fill the memory."""

    state: str
    steps: int
    reason: str
    warnings: tuple[str, ...]


class Ledger:
    """Records as they stood when each was first asked for, until `forget`."""

    def __init__(self, results: Path):
        self.results, self.store = results, Store(results)
        self._known: dict[Path, Known | None] = {}
        self.repaired: list[str] = []  # what was damaged and was put aside before the runs, a line each
        self.left: dict[Path, str] = {}  # why runs were left as they stand, by their seeds' folders

    def forget(self, folders: Iterable[Path] | None = None) -> None:
        """Has the records of these seeds' folders, or every one, read anew: what has come since."""
        if folders is None:
            self._known.clear()
        for folder in folders or ():
            self._known.pop(folder, None)

    def known(self, folder: Path) -> Known | None:
        """What is known of the run in a seed's folder; None where it has no record."""
        if folder not in self._known:
            try:
                record = self.store.read_record(folder)
                said = record and Known(record["state"], record["steps"], reason(record), tuple(warnings(record)))
                self._known[folder] = said or None
            except Damaged as why:
                self._known[folder] = Known(DAMAGED, 0, str(why), ())
        return self._known[folder]

    def state(self, cell: Cell, seed: int) -> str:
        """One of `records.STATES`, or "damaged", at the number of steps that the cell wants."""
        known = self.known(cell.seed_folder(seed))
        return "missing" if known is None else state_at(known.state, known.steps, cell.steps)

    def steps(self, cell: Cell, seed: int) -> int:
        """How many gradient steps of a run are done."""
        known = self.known(cell.seed_folder(seed))
        return known.steps if known else 0

    def reason(self, cell: Cell, seed: int) -> str:
        """Why a run is not done, in a line."""
        known = self.known(cell.seed_folder(seed))
        return self.left.get(cell.seed_folder(seed)) or (known.reason if known else reason({}))

    def warnings(self, cell: Cell, seed: int) -> tuple[str, ...]:
        """What a reader of a run's numbers should know, a sentence each."""
        known = self.known(cell.seed_folder(seed))
        return known.warnings if known else ()

    def pending(self, plan: Planned) -> list[Todo]:
        """The (cell, seed, steps done) still to be run; a divergence is a result, a failure is tried again."""
        return [
            (cell, seed, self.steps(cell, seed))
            for cell, seed in plan.seeds()
            if self.state(cell, seed) not in ("done", "diverged")
        ]

    def remember(self, plan: Planned) -> None:
        """Adds the runs of the plan to `plan.json`, so that `status` can tell what is missing."""
        path = self.results / "plan.json"
        with filelock.FileLock(path.with_suffix(".lock")):  # several commands may fill one folder
            sweep(self.results, path.name)
            try:
                wanted = self.wanted()
            except Damaged as why:
                wanted = {}
                self.repaired.append(f"damaged: {why}; it is kept as {put_aside(path).name}, and made anew")
            new = {}
            for cell, seed in plan.seeds():
                key = "/".join([*cell.key, f"seed-{seed}"])
                old = wanted.get(key, {"steps": 0})
                if old["steps"] < cell.steps or "overrides" not in old:  # which plans had not before
                    new[key] = {
                        "task": cell.task.name,
                        "algorithm": cell.algorithm.name,
                        "seed": seed,
                        "steps": max(cell.steps, old["steps"]),
                        **choices_of(plain(cell.overrides), cell.data),
                    }
            if new or not path.exists():
                write_json(path, wanted | new)

    def wanted(self) -> dict[str, Any]:
        """Every run that was ever planned here, by its folder: task, algorithm, seed and steps. Raises Damaged."""
        path = self.results / "plan.json"
        return checked_plan(parsed(path)[0]) if path.exists() or path.is_symlink() else {}

    def runs(self) -> list[Run]:
        """Every recorded run."""
        return [each for each in self.store.everything() if isinstance(each, Run)]

    def status(self) -> list[dict[str, Any]]:
        """The rows of `survey`."""
        return self.survey()[0]

    def survey(self) -> tuple[list[dict[str, Any]], list[str]]:
        """One row per planned or recorded run, and what in the folder is not to be believed, a line each.

        A row: task, algorithm, identity, what `choices_of` tells, seed, state, steps, of (steps asked for); of one that has
        begun also seconds, warnings and message; "imported" where another code made it. Not believed are damaged files, and
        folders that say to be what they are not.
        """
        faults: list[str] = []
        try:
            wanted = self.wanted()
        except Damaged as why:
            wanted = {}
            faults.append(f"{why}: which runs are missing is not known until the next run writes it again")
        usual = {"steps": 0, "state": "missing"}
        rows = {key: {"identity": key.split("/")[2], **entry, "of": entry["steps"], **usual} for key, entry in wanted.items()}
        for path in sorted(self.results.glob("stages/*/*/seed-*.pt")):
            if (damage := archive_damage(path)) is not None:
                faults.append(printable(f"{path.relative_to(self.results)}: {damage}"))
        for run in self.store.found():
            if isinstance(run, Fault):
                faults.append(str(run))
                _damage(rows, run)
                continue
            key = f"{run.task}/{run.algorithm}/{run.identity}/seed-{run.seed}"
            row = rows.setdefault(key, {**_key(run), "of": run.steps})
            # without a plan nobody says how far it was to go
            state = state_at(run.state, run.steps, row["of"]) if key in wanted else run.state
            row |= {"steps": run.steps, "state": state}
            row |= choices_of(run.cell.get("overrides", {}), run.cell["data"])
            row |= {"imported": True} if run.cell.get("imported") else {}
            row["seconds"] = run.record.get("seconds")
            row["warnings"] = warnings(run.record)
            if row["state"] not in ("done", "running"):
                row["message"] = reason(run.record)
        known = {row["identity"]: {name: row[name] for name in CHOICES} for row in rows.values() if "overrides" in row}
        nothing = dict.fromkeys(CHOICES)
        return [known.get(row["identity"], nothing) | row for row in rows.values()], faults


CHOICES = ("overrides", "data", "data_rows", "window")


def choices_of(overrides: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What tells variants of an algorithm on a task apart: the settings that were chosen, and label, rows and window of the
    dataset. A row of `survey` has None for each where an older plan does not say and nothing has begun."""
    return {"overrides": dict(overrides), "data": data["label"], "data_rows": data["rows"], "window": data["window"]}


def _key(found: Run | Fault) -> dict[str, Any]:
    """Which run it is, as a row of `survey` says it."""
    return {name: getattr(found, name) for name in ("task", "algorithm", "identity", "seed")}


def _damage(rows: dict[str, dict[str, Any]], fault: Fault) -> None:
    """Marks the run that a fault is of; of a cell, all of its runs that were planned."""
    cell = f"{fault.task}/{fault.algorithm}/{fault.identity}/"
    if fault.seed is not None:
        key = f"{cell}seed-{fault.seed}"
        rows.setdefault(key, {**_key(fault), "of": 0, "steps": 0})
        rows[key] |= {"state": DAMAGED, "message": fault.reason}
    elif fault.of_cell:
        for key in (key for key in rows if key.startswith(cell)):
            rows[key] |= {"state": DAMAGED, "message": fault.reason}


def reason(record: dict[str, Any]) -> str:
    """Why a run is not done: the last line of its failure, the step at which it diverged, or the step that it reached."""
    if lines := (record.get("traceback") or "").strip().splitlines():
        return printable(lines[-1] + _place(lines))
    if record.get("state") == "diverged":
        at = record.get("diverged_at") or 0
        return f"diverged at step {at:,}: {printable(record.get('diverged_by') or 'a metric was not finite')}"
    return f"stopped at step {record.get('steps', 0):,}"


def _place(lines: Sequence[str]) -> str:
    """Where a traceback says that code from outside this package failed: " (mine.py, line 58)"; empty where none did."""
    found = filter(None, (re.match(r'\s*File "(.+)", line (\d+), in ', line) for line in lines))
    libraries = (*ROOMS, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
    outside = [each for each in found if not any(Path(each[1]).resolve().is_relative_to(library) for library in libraries)]
    return f" ({Path(outside[-1][1]).name}, line {outside[-1][2]})" if outside else ""


def load_runs(results: Path | str) -> list[Run]:
    """Every recorded run of a results folder, by task, algorithm, identity and seed."""
    return Ledger(Path(results)).runs()


def existing_folder(results: Path | str) -> Path:
    """A folder of run records that is there; UserError where it is not."""
    if not Path(results).is_dir():
        what = (
            f"{results} is no results folder but a file" if Path(results).exists() else f"there is no results folder {results}"
        )
        raise UserError(f"{what}: name one with --results, or make one with `mopo-bench run`")
    return Path(results)
