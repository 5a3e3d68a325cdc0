"""The baseline of a check: what each seed of each cell gave, in a CSV file that is committed, or in any results folder.

The file has a row a seed, and a column for each vital that names the side which is worse ("rollout_length:both"). The lines
before it, which begin with #, are its history: when, from what, by which command and why it was written.
"""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from ... import results as results_room
from ...common.errors import UserError
from ..runs.records import csv_text, write_text
from ..runs.request import seeds_in_option
from .options import FEWEST_SEEDS
from .prediction import SIDES
from .recorded import RETURN, SCORE, Name, Numbers, Recorded, read_cells, vitals_of

FIXED = (*Name._fields, "identity", "steps", "interval", "episodes", "seed", RETURN, SCORE)
LARGEST = 1e100  # no return or metric is larger, and of such numbers a spread can still be computed
HOW_TO = "`mopo-bench check --update --reason WHY` writes one"


@dataclass(frozen=True)
class BaselineCell:
    """What new seeds of one cell are compared with.

    seeds: by seed its return, score and vitals, at an evaluation after `steps` of so many episodes, metrics being means of the
    last `interval` steps. vitals: the side that is worse. fault: why nothing can be compared with it, if so.
    """

    name: Name
    identity: str
    steps: int
    interval: int
    episodes: int
    seeds: Mapping[int, Numbers]
    vitals: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    @cached_property
    def measure(self) -> str:
        """What is compared beside the vitals: the score, as it was computed then, or the return of a task without scores."""
        return SCORE if any(SCORE in numbers for numbers in self.seeds.values()) else RETURN


def default_path() -> Path:
    """Where the baseline that comes with the package lies, `results/baseline.csv` of a clone."""
    return Path(str(resources.files(results_room))) / "baseline.csv"


def load_baseline(path: Path) -> list[BaselineCell]:
    """The cells of a baseline file or of a results folder. Raises UserError where there are none, or the file is damaged."""
    cells = from_folder(path) if path.is_dir() else from_file(path)
    if not cells:
        raise UserError(f"there is nothing to compare with in {path}: {HOW_TO}, or name a results folder with --baseline")
    return cells


def from_folder(root: Path) -> list[BaselineCell]:
    """The cells of a results folder; one with a seed that gives no number has a fault."""
    recorded, unreadable = read_cells(root)
    if unreadable:
        (task, algorithm), (first, *_) = next(iter(unreadable.items()))
        raise UserError(f"{root / task / algorithm}: {first}; repair or delete it")
    return [baseline_cell(each) for each in recorded if each.records]


def baseline_cell(cell: Recorded) -> BaselineCell:
    """A cell's seeds at the step of their last evaluation; with a fault where they differ in it or one gives no number."""
    steps = max(cell.last_steps(), default=0)
    episodes, interval = cell.episodes(steps), cell.interval(steps)
    numbers, faults = cell.numbers(steps, episodes, interval)
    vitals = vitals_of(cell)
    faults += [f"seed {seed}: {what}" for seed, each in numbers.items() for what in without(vitals, each)]
    faults += cell.one_training(steps) + ["another code made it: no command here does so again"] * cell.imported
    seeds = {
        seed: {key: value for key, value in each.items() if key in (RETURN, SCORE, *vitals)} for seed, each in numbers.items()
    }
    return BaselineCell(cell.name, cell.identity, steps, interval, episodes, seeds, vitals, "; ".join(faults))


def without(vitals: Iterable[str], numbers: Numbers) -> list[str]:
    """What is wrong with the vitals of a seed: those that are not there, not finite, or beyond all measure."""
    return [
        f"no {vital}" if vital not in numbers else f"{vital} is {_unusable(numbers[vital])}"
        for vital in vitals
        if not abs(numbers.get(vital, math.nan)) <= LARGEST
    ]


def from_file(path: Path) -> list[BaselineCell]:
    """The cells of a baseline file. Raises UserError, naming the place, where it is not as `write` makes it."""
    if not path.exists():
        raise UserError(f"there is no baseline {path}: {HOW_TO}, or name another with --baseline")
    try:
        _, lines = _history_and_rows(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): restore it from version control") from None
    rows = csv.DictReader(io.StringIO("\n".join(lines)), strict=True)
    gathered: dict[tuple[Name, str, int, int, int], dict[int, Numbers]] = {}
    try:
        directions = dict(_gate(column) for column in rows.fieldnames or () if column not in FIXED)
        if lost := [column for column in FIXED if rows.fieldnames and column not in rows.fieldnames]:
            raise ValueError(f"it has no column {lost[0]}; columns are separated by commas")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"row {rows.line_num - 1} has not as many values as there are columns")
            steps, interval, episodes = (int(row[each]) for each in ("steps", "interval", "episodes"))
            key = (Name(*(row[each] for each in Name._fields)), row["identity"], steps, interval, episodes)
            seeds, seed = gathered.setdefault(key, {}), int(row["seed"])
            if seed in seeds:
                raise ValueError(f"{key[0]} has seed {seed} twice")
            seeds[seed] = {
                name: _finite(row[column], column) for column, name in _columns(rows.fieldnames or ()) if row[column]
            }
        return [_checked(BaselineCell(*key, seeds, _of_cell(directions, seeds))) for key, seeds in gathered.items()]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from version control") from None


def _history_and_rows(path: Path) -> tuple[list[str], list[str]]:
    """The lines of a baseline file that begin with #, and the others."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()  # a spreadsheet's mark at the beginning is none of ours
    return [line for line in lines if line.startswith("#")], [line for line in lines if not line.startswith("#")]


def _gate(column: str) -> tuple[str, str]:
    direction = column.rpartition(":")[2]
    if direction not in SIDES:
        raise ValueError(f"column {column!r} is no vital, such as NAME:{SIDES[0]}")
    return column, direction


def _columns(columns: Sequence[str]) -> list[tuple[str, str]]:
    """The columns with numbers of a seed, and the name of each."""
    return [(RETURN, RETURN), (SCORE, SCORE), *((each, each.rpartition(":")[0]) for each in columns if each not in FIXED)]


def _finite(text: str, column: str) -> float:
    if not abs(number := float(text)) <= LARGEST:  # nor is NaN
        raise ValueError(f"{column} is {_unusable(number)}")
    return number


def _unusable(number: float) -> str:
    return f"{number:g}, larger than {LARGEST:g}" if math.isfinite(number) else f"{number}"


def _of_cell(directions: Mapping[str, str], seeds: Mapping[int, Numbers]) -> dict[str, str]:
    names = set().union(*seeds.values()) - {RETURN, SCORE}
    return {each.rpartition(":")[0]: side for each, side in directions.items() if each.rpartition(":")[0] in names}


def _checked(cell: BaselineCell) -> BaselineCell:
    for seed, numbers in cell.seeds.items():
        if wrong := without((RETURN, cell.measure, *cell.vitals), numbers):
            raise ValueError(f"{cell.name} seed {seed}: {', '.join(wrong)}")
    return cell


def update(path: Path, results: Path, reason: str, fewest: int = FEWEST_SEEDS) -> list[BaselineCell]:
    """Writes every cell of a results folder to a baseline file, in the place of what the file said of it, and why.

    Cells of the file that the folder does not have stay. Raises UserError where a seed gives no number or a cell has fewer than
    `fewest` seeds; nothing is then written.
    """
    why = " ".join(reason.split())
    if not why:
        raise UserError("--update needs --reason WHY: a line of the baseline's history")
    if path.is_dir():
        raise UserError(f"--baseline {path} is a folder: name the file to write")
    new = from_folder(results)
    for cell in new:
        if cell.fault:
            raise UserError(f"{results}: {cell.name} makes no baseline: {cell.fault}")
        if len(cell.seeds) < fewest:
            raise UserError(
                f"{results}: {cell.name} has {len(cell.seeds)} seeds, a baseline {fewest}: run more, or say --fewest N"
            )
    if not new:
        raise UserError(f"no runs in {results}: `mopo-bench run --results {results}` makes some")
    if twice := [each.name for each in new if sum(each.name == other.name for other in new) > 1]:
        raise UserError(f"{results}: {twice[0]} was run by several versions of its code: keep one in the folder")
    replaced = {cell.name for cell in new}
    kept = [cell for cell in from_file(path) if cell.name not in replaced] if path.exists() else []
    history, _ = _history_and_rows(path) if path.exists() else ([], [])
    cells = sorted([*kept, *new], key=lambda cell: cell.name)
    write(path, cells, [*history, *_history(results, new, why)])
    return cells


def write(path: Path, cells: Sequence[BaselineCell], history: Sequence[str]) -> None:
    """A baseline file, whole."""
    rows = []
    for cell in cells:
        fixed = {**cell.name._asdict(), **{each: getattr(cell, each) for each in ("identity", "steps", "interval", "episodes")}}
        for seed, numbers in sorted(cell.seeds.items()):
            vitals = {f"{name}:{side}": f"{numbers[name]:.9g}" for name, side in cell.vitals.items()}
            score = {SCORE: f"{numbers[SCORE]:.9g}" if SCORE in numbers else ""}
            rows.append({**fixed, "seed": seed, RETURN: f"{numbers[RETURN]:.9g}", **score, **vitals})
    write_text(path, "\n".join([*history, csv_text(rows)]))


def _history(results: Path, cells: Sequence[BaselineCell], why: str) -> list[str]:
    """What the file says of this update: the day, the reason, the code, and the commands that make such records again."""
    recorded, _ = read_cells(results)
    packages = ", ".join(sorted({each.package for each in recorded if each.package}))
    commits = sorted({commit for each in recorded for commit in each.commits})
    made = f"mopo-bench {packages}" + f", commit {', '.join(commits)}" * bool(commits)
    head = f"# {datetime.now(UTC):%Y-%m-%d} {why} ({len(cells)} cells, {sum(len(each.seeds) for each in cells)} runs of {made})"
    options = {each.identity: each.options for each in recorded}
    return [head, *(f"#   {command}" for command in commands(cells, options))]


def commands(cells: Iterable[BaselineCell], options: Mapping[str, str]) -> list[str]:
    """The commands that make such records: one for each task, data, budget, seeds and settings.

    options: by identity those of the dataset and of the task's parameters.
    """
    together: dict[tuple[Any, ...], list[str]] = {}
    for cell in cells:
        budget = (cell.steps, cell.interval, cell.episodes, tuple(sorted(cell.seeds)))
        key = (cell.name.task, *budget, cell.name.settings, options[cell.identity])
        together.setdefault(key, []).append(cell.name.algorithm)
    return [
        f"mopo-bench run --tasks {task} --algorithms {','.join(dict.fromkeys(algorithms))} --seeds {seeds_in_option(seeds)} "
        f"--steps {steps} --evaluate-every {interval} --episodes {episodes}"
        + f" {chosen}" * bool(chosen)
        + "".join(f" --set {shlex.quote(setting)}" for setting in settings.split("; ") if settings)
        for (task, steps, interval, episodes, seeds, settings, chosen), algorithms in together.items()
    ]
