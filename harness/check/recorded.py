"""What a results folder holds of each cell, read so that nothing damaged, failed or unfinished passes for a number."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import seeds_in_words
from ...common.trees import dotted
from ..report.groups import score_of
from ..report.repeat import dataset_options, task_options
from ..report.statistics import mean
from ..runs.ledger import reason
from ..runs.reading import NUMBERS, is_number, seed_of
from ..runs.records import Fault, Store, begun, identity_hash, made_with, many_digits, state_at, state_in_words
from .prediction import BOTH, NEITHER, SIDES

# Of an evaluation: the score itself, and the bound that a critic's value, itself a metric, is held against.
NOT_VITAL = {"step", "return_mean", "return_std", "returns", "value"}
PLAIN = ("metrics", "vitals")  # parts of an evaluation whose numbers have the names that the algorithm gives them
RETURN, SCORE = "return", "score"

Numbers = dict[str, float]  # of one seed: its return, its score where the task has scores, and its vitals by name


class Name(NamedTuple):
    """What a cell is compared by: not its identity, since a check compares versions of the code.

    settings: those that a user or a suite chose. data: the dataset's label. problem: a hash of the task's rules and of the
    dataset's arrays.
    """

    task: str
    algorithm: str
    settings: str
    data: str
    problem: str

    def __str__(self) -> str:
        return f"{self.task} {self.algorithm}" + f" [{self.settings}]" * bool(self.settings)


@dataclass(frozen=True)
class Recorded:
    """One cell of a results folder.

    worse: what the algorithm says of its metrics, see `Learner.worse`. records: by seed, or why one cannot be read. imported:
    whether another code made it. options: those of `mopo-bench run` for its dataset and the parameters of its task.
    """

    name: Name
    identity: str
    worse: Mapping[str, str]
    records: Mapping[int, dict[str, Any] | str]
    package: str = ""
    imported: bool = False
    digest: str = field(default="", compare=False)
    options: str = field(default="", compare=False)
    commits: tuple[str, ...] = field(default=(), compare=False)

    @property
    def begun(self) -> str:
        """When the last of its seeds was begun; empty where no record says so."""
        return begun(record for record in self.records.values() if isinstance(record, dict))

    def last_steps(self) -> set[int]:
        """The steps of the last evaluations of its seeds."""
        rows = [record["evaluations"] for record in self.records.values() if isinstance(record, dict)]
        return {int(each[-1]["step"]) for each in rows if each}

    def episodes(self, steps: int) -> int:
        """How many episodes an evaluation at this step has, by the first seed that has one."""
        rows = (row for record in self.records.values() if isinstance(record, dict) for row in record["evaluations"])
        return next((len(row["returns"]) for row in rows if row["step"] == steps), 0)

    def interval(self, steps: int) -> int:
        """How many steps the metrics of the evaluation at this step are means of, by the first seed that has one."""
        found = (_interval(record, steps) for record in self.records.values() if isinstance(record, dict))
        return next((each for each in found if each), 0)

    def numbers(self, steps: int, episodes: int, interval: int | None) -> tuple[dict[int, Numbers], list[str]]:
        """By seed what its evaluation at this step gave, and what is wrong with the seeds that give none.

        Of another number of episodes or, where metrics count, over another interval of steps, an evaluation does not compare.
        """
        found, faults = dict[int, Numbers](), list[str]()
        for seed, record in self.records.items():
            numbers = record if isinstance(record, str) else _numbers(record, steps, episodes, interval)
            if not isinstance(numbers, str) and (score := score_of(self.name.task, numbers[RETURN])) is not None:
                numbers[SCORE] = score
            if isinstance(numbers, str):
                faults.append(f"seed {seed}: {numbers}")
            else:
                found[seed] = numbers
        return found, faults

    def one_training(self, steps: int, before: Collection[Numbers] = ()) -> list[str]:
        """Seeds whose metrics at this step are the same to the last digit: copies, or an algorithm that ignores its seed.

        Of records from before there were metrics it is the returns, which tell copies. Counted are metrics in which some of
        these seeds differ, or some of those before: a learning rate says nothing. One at least must have more digits than a
        count or a share has.
        """
        rows = {
            seed: row
            for seed, record in self.records.items()
            if isinstance(record, dict)
            for row in record["evaluations"]
            if row["step"] == steps
        }
        if not any(row.get("metrics") for row in rows.values()):
            return _copies(rows)
        metrics = {seed: dict(_flat(_metrics({"metrics": row.get("metrics") or {}}))) for seed, row in rows.items()}
        names = sorted({name for each in metrics.values() for name in each})
        learned = [
            name
            for name in names
            if any(len({each[name] for each in seeds if name in each}) > 1 for seeds in (before, metrics.values()))
        ]
        alike: dict[tuple[float | None, ...], list[int]] = {}
        for seed, each in metrics.items():
            alike.setdefault(tuple(map(each.get, learned)), []).append(seed)
        return [
            f"{seeds_in_words(seeds)} have the same metrics to the last digit, as one training would"
            for values, seeds in alike.items()
            if len(seeds) > 1 and many_digits(value for value in values if value is not None)
        ]


def read_cells(root: Path, steps: Collection[int] = ()) -> tuple[list[Recorded], dict[tuple[str, str], list[str]]]:
    """Every cell in a folder of run records; and by task and algorithm the faults of cells that cannot be read at all.

    steps: the evaluations that are compared, beside the last of each run; of the others only the step and the return are kept.
    """
    store, cells, faults = Store(root), list[Recorded](), dict[tuple[str, str], list[str]]()
    records: dict[tuple[str, str, str], dict[int, dict[str, Any] | str]] = {}
    for each in store.everything(brief=True, steps=steps):
        if isinstance(each, Fault) and each.of_cell:
            faults.setdefault((each.task, each.algorithm), []).append(f"{each.identity}/{each.reason}")
        elif each.seed is not None:
            of_cell = records.setdefault((each.task, each.algorithm, each.identity), {})
            of_cell[each.seed] = each.reason if isinstance(each, Fault) else each.record
    for name, known in records.items():
        folder = store.cell_folder(*name)
        begun = {seed: "begun, no record" for path in folder.glob("seed-*") if (seed := seed_of(path.name)) is not None}
        try:
            cells.append(_recorded(folder, store.read_cell(folder), dict(sorted({**begun, **known}.items()))))
        except ValueError as error:
            faults.setdefault(name[:2], []).append(f"{folder.name}/cell.json cannot be read ({error})")
    return cells, faults


def _recorded(folder: Path, cell: Mapping[str, Any], records: Mapping[int, dict[str, Any] | str]) -> Recorded:
    overrides, data = cell.get("overrides", {}), cell["data"]
    settings = "; ".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    problem = identity_hash({"rules": cell.get("rules", {}), "digest": data["digest"]})
    return Recorded(
        name=Name(cell["task"], cell["algorithm"], settings, str(data["label"]), problem),
        identity=folder.name,
        worse=_sides(cell.get("about", {}).get("worse", {})),
        records=records,
        package=str(cell.get("package", "")),
        imported=bool(cell.get("imported")),
        digest=str(data["digest"]),
        options=shlex.join([*dataset_options(cell), *task_options(cell["task"], cell)]),
        commits=tuple(made_with(each for each in records.values() if isinstance(each, dict)).get("commit", ())),
    )


def _sides(worse: Mapping[str, str]) -> dict[str, str]:
    if not set(worse.values()) <= set(SIDES):
        raise ValueError(f"the worse side of a metric is one of {', '.join(SIDES)}, not {sorted(set(worse.values()))}")
    return dict(worse)


def _interval(record: Mapping[str, Any], steps: int) -> int:
    """The steps from the evaluation before the one at this step; 0 where there is none at it."""
    evaluated = [int(row["step"]) for row in record["evaluations"]]
    return steps - max((step for step in evaluated if step < steps), default=0) if steps in evaluated else 0


def _numbers(record: Mapping[str, Any], steps: int, episodes: int, interval: int | None) -> Numbers | str:
    """The return and every metric of the evaluation at a step, what the fits recorded beside; or why there is none."""
    state = record["state"] if record["state"] == "failed" else state_at(record["state"], record["steps"], steps)
    if state != "done" and record["state"] == "done":
        return f"done at step {record['steps']:,}, not at {steps:,}"
    if state != "done":
        return f"{state_in_words(state)}, {reason(dict(record))}"
    row = next((row for row in record["evaluations"] if row["step"] == steps), None)
    if row is None:
        return f"no evaluation at step {steps:,}"
    if len(row["returns"]) != episodes:
        return f"evaluated on {len(row['returns'])} episodes, not {episodes}"
    if interval is not None and _interval(record, steps) != interval:
        return f"its metrics are means of {_interval(record, steps):,} steps, not {interval:,}: see --evaluate-every"
    fits = record.get("stage_records") or {}
    return {
        **dict(_flat(_metrics(row))),
        **dict(_flat(fits)),
        RETURN: float(row["return_mean"]),
    }


def _copies(rows: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Seeds of which an evaluation has the same returns to the last digit, and not one return alone."""
    alike: dict[tuple[float, ...], list[int]] = {}
    for seed, row in rows.items():
        alike.setdefault(tuple(row["returns"]), []).append(seed)
    return [
        f"{seeds_in_words(seeds)} have the same returns to the last digit, as copies have"
        for values, seeds in alike.items()
        if len(seeds) > 1 and len(set(values)) > 1 and many_digits(values)
    ]


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation says beside the returns."""
    metrics: dict[str, Any] = {}
    for name, value in row.items():
        if name in PLAIN:
            # one that is called as the check calls a return keeps the name of its part before its own
            metrics |= {f"{name}.{each}" if each in (RETURN, SCORE) else each: number for each, number in value.items()}
        elif name not in NOT_VITAL:
            metrics[name] = value
    return metrics


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number under its dotted name, of a list of numbers their mean; texts and nothing are none.

    NaN for what is no finite number, such as an integer too long for a float: fits and older metrics are read as they are.
    """
    for name, value in dotted(values).items():
        numbers = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
        if numbers and NUMBERS.issuperset(map(type, numbers)):
            centre = mean if len(numbers) > 1 else lambda one: float(one[0])  # the faster
            yield name, centre(numbers) if all(map(is_number, numbers)) else math.nan


def vitals_of(cell: Recorded) -> dict[str, str]:
    """The vitals of a cell with the side that is worse: every metric of its last evaluations, and what is said of its fits."""
    rows = [record["evaluations"] for record in cell.records.values() if isinstance(record, dict)]
    metrics = {name: BOTH for each in rows if each for name, _ in _flat(_metrics(each[-1]))}
    return {name: side for name, side in {**metrics, **cell.worse}.items() if side != NEITHER}
