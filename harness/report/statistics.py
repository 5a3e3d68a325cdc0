"""Statistics over seeds: which number stands for a run, which runs may be averaged, and means, spreads and intervals.

A group holds the seeds of one identity, never more: `grouped` makes them, `labelled` gives each a name to stand under.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from ...common.errors import UserError
from ...tasks.registry import all_tasks
from ..runs.records import Run

Interval = tuple[float, float]
SOURCES = ("v0", "v0-changed", "v2", "regenerated", "lite", "file")  # of a batch; the paper's data first


class Metric(NamedTuple):
    meaning: str
    pick: Callable[[np.ndarray], float]  # from the mean returns of a run's evaluations, in order


METRICS = {
    "last": Metric("the last evaluation, as in the paper", lambda returns: returns[-1]),
    "mean10": Metric("the mean of the last 10 evaluations, the authors' plot script", lambda returns: returns[-10:].mean()),
    "best": Metric("the best evaluation, chosen with hindsight", lambda returns: returns.max()),
}


def get_metric(name: str) -> Metric:
    if name not in METRICS:
        raise UserError(f"unknown metric {name!r}: --metric is one of {', '.join(METRICS)}")
    return METRICS[name]


def aggregate(evaluations: Sequence[Mapping[str, Any]], metric: str = "last") -> float:
    """The return that stands for one run: its evaluations in order, each with `return_mean`, by metric.

    `last`: the last one, as in the paper. `mean10`: the mean of the last 10 (of all where there are fewer), as in the
    authors' plot script. `best`: the highest. Raises UserError for another metric, ValueError without evaluations.
    """
    pick = get_metric(metric).pick
    if not evaluations:
        raise ValueError("a run without evaluations has no return")
    return float(pick(np.array([row["return_mean"] for row in evaluations], float)))


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (divisor n - 1) in the unit of the values; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval (low, high) of the mean in the unit of the values; None for fewer than two."""
    if len(values) < 2:
        return None
    return _around(mean(values), _squared_error(values), len(values) - 1, level)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval | None:
    """Welch's t interval (low, high) of mean(a) - mean(b); None where either has fewer than two values."""
    if min(len(a), len(b)) < 2:
        return None
    first, second = _squared_error(a), _squared_error(b)
    scatter = first**2 / (len(a) - 1) + second**2 / (len(b) - 1)
    freedom = (first + second) ** 2 / scatter if scatter else 1.0  # no spread at all: any will do
    return _around(mean(a) - mean(b), first + second, freedom, level)


def _squared_error(values: Sequence[float]) -> float:
    """Of the mean."""
    return float(np.var(values, ddof=1)) / len(values)


def _around(centre: float, squared_error: float, freedom: float, level: float) -> Interval:
    reach = float(student.ppf((1 + level) / 2, freedom)) * math.sqrt(squared_error)
    return centre - reach, centre + reach


def counts(run: Run) -> bool:
    """Whether a run gives a number: done, or still running with something evaluated."""
    return run.state in ("done", "running") and bool(run.evaluations)


def last_step(run: Run) -> int:
    return run.evaluations[-1]["step"] if run.evaluations else 0


def batch(run: Run) -> tuple[str, ...]:
    """The task and everything that tells its batches apart."""
    return (run.task, *(str(run.cell["data"].get(key)) for key in ("source", "label", "rows", "window", "digest")))


@dataclass(frozen=True)
class Group:
    """The seeds of one identity: same task, data, algorithm and configuration. `label` names its column."""

    runs: tuple[Run, ...]
    label: str = ""

    @property
    def task(self) -> str:
        return self.runs[0].task

    @property
    def algorithm(self) -> str:
        return self.runs[0].algorithm

    @property
    def identity(self) -> str:
        return self.runs[0].identity

    @property
    def cell(self) -> Mapping[str, Any]:
        return self.runs[0].cell

    @property
    def batch(self) -> tuple[str, ...]:
        return batch(self.runs[0])

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in sorted(self.cell.get("overrides", {}).items())]

    @property
    def counted(self) -> list[Run]:
        return [run for run in self.runs if counts(run)]

    def in_state(self, state: str) -> list[Run]:
        return [run for run in self.runs if run.state == state]


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs by task, data, algorithm and identity, in the order of tasks and then `SOURCES`."""
    kept: dict[tuple[Any, ...], list[Run]] = {}
    tasks = list(all_tasks())
    for run in runs:
        place = (index_in(tasks, run.task), index_in(SOURCES, run.cell["data"]["source"]))
        kept.setdefault((*place, batch(run), run.algorithm, run.identity), []).append(run)
    return [Group(tuple(kept[key])) for key in sorted(kept)]


def labelled(groups: Sequence[Group]) -> list[Group]:
    """Groups with a name: the algorithm and, in brackets, the overrides that set it apart on the same data.

    Alone it has the plain name whatever its overrides. Where two would have one name, the highest version keeps it, then
    the most seeds.
    """
    shared: dict[tuple[Any, ...], set[str]] = {}
    for group in groups:
        key = (group.batch, group.algorithm)
        shared[key] = shared.get(key, set(group.overrides)) & set(group.overrides)

    def newest(group: Group) -> tuple[Any, ...]:
        return sorted(group.cell["versions"].items()), len(group.in_state("done"))

    labels: dict[tuple[Any, ...], Group] = {}
    for group in sorted(groups, key=newest, reverse=True):
        parts = [each for each in group.overrides if each not in shared[group.batch, group.algorithm]]
        if holder := labels.get((group.batch, _label(group.algorithm, parts))):
            versions, newer = group.cell["versions"], holder.cell["versions"]
            parts += [f"{part} version {number}" for part, number in versions.items() if newer.get(part) != number]
            if (group.batch, _label(group.algorithm, parts)) in labels:
                parts.append(group.identity)
        label = _label(group.algorithm, parts)
        labels[group.batch, label] = replace(group, label=label)
    return [next(each for each in labels.values() if each.runs is group.runs) for group in groups]


def _label(algorithm: str, parts: Sequence[str]) -> str:
    return f"{algorithm} [{', '.join(parts)}]" if parts else algorithm


def index_in(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
