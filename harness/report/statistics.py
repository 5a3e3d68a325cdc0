"""Numbers over seeds: the return that stands for a run, and means, standard deviations and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .choices import get_metric

Interval = tuple[float, float]
FEWEST = 3  # values behind an interval; the t quantile of two is 12.7


class Difference(NamedTuple):
    """Of two means, with its 95 % interval if there is one, and by pairs of equal seeds; no pairs: Welch's interval."""

    mean: float
    interval: Interval | None
    pairs: list[float]


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
    """The arithmetic mean, as a plain float."""
    return float(np.mean(values))


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (divisor n - 1) in the unit of the values; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval (low, high) of the mean in the unit of the values; None for fewer than `FEWEST`, or all equal."""
    if len(values) < FEWEST or not _differ(values):
        return None
    return _around(mean(values), _squared_error(values), len(values) - 1, level)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval | None:
    """Welch's t interval (low, high) of mean(a) - mean(b); None where either has fewer than `FEWEST`, or neither any spread."""
    if min(len(a), len(b)) < FEWEST or not (_differ(a) or _differ(b)):
        return None
    first, second = _squared_error(a), _squared_error(b)
    scatter = first**2 / (len(a) - 1) + second**2 / (len(b) - 1)
    return _around(mean(a) - mean(b), first + second, (first + second) ** 2 / scatter, level)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """How much more a gives than b, both by seed: paired on the seeds that both have if these are `FEWEST`, or all of both.

    Equal seeds meet the same starts, and some share fits and first weights: what they have in common cancels in a pair.
    """
    pairs = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    if len(pairs) >= FEWEST or len(pairs) == len(a) == len(b):
        return Difference(mean(pairs), mean_interval(pairs), pairs)
    first, second = list(a.values()), list(b.values())
    return Difference(mean(first) - mean(second), difference_interval(first, second), [])


def _differ(values: Sequence[float]) -> bool:
    """Whether the values differ at all: equal ones say nothing of how far the next may lie."""
    return min(values) < max(values)


def _squared_error(values: Sequence[float]) -> float:
    """The squared standard error of the mean of the values: their sample variance by their number."""
    return float(np.var(values, ddof=1)) / len(values)


def _around(centre: float, squared_error: float, freedom: float, level: float) -> Interval:
    """The interval around `centre` that Student's t with so many degrees of freedom gives at this level."""
    from scipy.special import stdtrit  # takes a quarter of a second, for which nothing else need wait

    reach = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(squared_error)
    return centre - reach, centre + reach


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: those below a level are rejected with that family-wise error.

    p~_(i) = max over j <= i of min(1, (n - j + 1) p_(j)), the p-values in increasing order.
    """
    order, adjusted, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * float(p_values[index])))
        adjusted[index] = largest
    return adjusted
