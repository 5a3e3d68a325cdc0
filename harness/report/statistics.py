"""Numbers over seeds and tasks: the return that stands for a run; means, standard deviations and 95 % intervals over seeds; and
what Agarwal et al. 2021 (arXiv 2108.13264, the library rliable) advise over tasks: interquartile means, stratified bootstrap
intervals, probabilities of improvement, performance profiles, optimality gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    p_value: float | None = None  # two-sided, of no difference; None where there is no interval


class Estimate(NamedTuple):
    """A mean or a difference of means, with its squared standard error and Student's degrees of freedom."""

    centre: float
    squared_error: float
    freedom: float

    def interval(self, level: float) -> Interval:
        """Student's, around the centre."""
        from scipy.special import stdtrit  # takes a quarter of a second, for which nothing else need wait

        reach = float(stdtrit(self.freedom, (1 + level) / 2)) * math.sqrt(self.squared_error)
        return self.centre - reach, self.centre + reach

    def p_value(self) -> float:
        """Two-sided, of a true value of 0."""
        from scipy.special import stdtr

        return 2 * float(stdtr(self.freedom, -abs(self.centre) / math.sqrt(self.squared_error)))


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
    estimate = _student(values)
    return estimate and estimate.interval(level)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval | None:
    """Welch's t interval (low, high) of mean(a) - mean(b); None where either has fewer than `FEWEST`, or neither any spread."""
    estimate = _welch(a, b)
    return estimate and estimate.interval(level)


def difference(a: Mapping[int, float], b: Mapping[int, float], paired: bool = True) -> Difference:
    """How much more a gives than b, both by seed: paired on the seeds that both have if these are `FEWEST`, or one has fewer.

    Equal seeds meet the same starts, and some share fits and first weights: what they have in common cancels in a pair. Where
    they have nothing in common, they are not to be paired.
    """
    pairs = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())] if paired else []
    if len(pairs) >= FEWEST or (pairs and min(len(a), len(b)) < FEWEST):
        return difference_of(pairs)
    first, second = list(a.values()), list(b.values())
    return _difference(mean(first) - mean(second), _welch(first, second), [])


def difference_of(pairs: Sequence[float]) -> Difference:
    """The mean of differences that are there already."""
    return _difference(mean(pairs), _student(pairs), list(pairs))


def _difference(centre: float, estimate: Estimate | None, pairs: list[float]) -> Difference:
    if estimate is None:
        return Difference(centre, None, pairs)
    return Difference(centre, estimate.interval(0.95), pairs, estimate.p_value())


def _student(values: Sequence[float]) -> Estimate | None:
    """Of the mean; None for fewer than `FEWEST`, or all equal."""
    if len(values) < FEWEST or not _differ(values):
        return None
    return Estimate(mean(values), _squared_error(values), len(values) - 1)


def _welch(a: Sequence[float], b: Sequence[float]) -> Estimate | None:
    """Of mean(a) - mean(b); None where either has fewer than `FEWEST`, or neither any spread."""
    if min(len(a), len(b)) < FEWEST or not (_differ(a) or _differ(b)):
        return None
    first, second = _squared_error(a), _squared_error(b)
    scatter = first**2 / (len(a) - 1) + second**2 / (len(b) - 1)
    return Estimate(mean(a) - mean(b), first + second, (first + second) ** 2 / scatter)


def _differ(values: Sequence[float]) -> bool:
    """Whether the values differ at all: equal ones say nothing of how far the next may lie."""
    return min(values) < max(values)


def _squared_error(values: Sequence[float]) -> float:
    """The squared standard error of the mean of the values: their sample variance by their number."""
    return float(np.var(values, ddof=1)) / len(values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: those below a level are rejected with that family-wise error.

    p~_(i) = max over j <= i of min(1, (n - j + 1) p_(j)), the p-values in increasing order.
    """
    order, adjusted, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * float(p_values[index])))
        adjusted[index] = largest
    return adjusted


Scores = Sequence[Sequence[float] | np.ndarray]  # of one algorithm: for each task, one number a seed, along the last axis
FEWEST_DRAWN = 5  # seeds of each task behind a bootstrap interval: it never leaves the values that are there
DRAWS = 2_000  # of a bootstrap


def pooled(scores: Scores) -> np.ndarray:
    """The numbers of all tasks and seeds together."""
    return np.concatenate([np.asarray(each, float) for each in scores], axis=-1)


def task_means(scores: Scores) -> np.ndarray:
    """The mean of each task, along the last axis."""
    return np.stack([np.mean(each, axis=-1) for each in scores], axis=-1)


def interquartile_mean(scores: Scores) -> Any:
    """The mean of the middle half of all numbers, tasks and seeds together: neither the best nor the worst quarter counts.

    A quarter that is no whole number of them is rounded down, as in rliable: of 7 it is the mean of 5, of 3 the mean of all.
    """
    from scipy import stats

    return stats.trim_mean(pooled(scores), 0.25, axis=-1)


def mean_over_tasks(scores: Scores) -> Any:
    """The mean of the tasks' means."""
    return task_means(scores).mean(-1)


def median_over_tasks(scores: Scores) -> Any:
    """The median of the tasks' means."""
    return np.median(task_means(scores), axis=-1)


def optimality_gap(scores: Scores, target: float = 100.0) -> Any:
    """By how much all numbers together fall short of `target` on average; what is above it does not make up for it."""
    return target - np.minimum(pooled(scores), target).mean(-1)


def share_above(scores: Scores, threshold: float) -> Any:
    """The share of all numbers that lie above a threshold: of several thresholds, a performance profile."""
    return (pooled(scores) > threshold).mean(-1)


def probability_of_improvement(a: Scores, b: Scores) -> Any:
    """How often a number of a is above one of b on the same task, equal ones counted half; the mean over tasks."""
    pairs = [np.asarray(x, float)[..., :, None] - np.asarray(y, float)[..., None, :] for x, y in zip(a, b, strict=True)]
    return np.mean([((each > 0) + (each == 0) / 2).mean((-2, -1)) for each in pairs], axis=0)


def bootstrap_interval(
    statistic: Callable[..., Any], *algorithms: Scores, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """The percentile interval of `statistic` of the scores of one algorithm or several, seeds drawn anew within each task.

    It is too narrow with few seeds: n of them drawn anew scatter by their sum of squares over n, not over n - 1. None where a
    task has fewer than `FEWEST_DRAWN` seeds. The same seed gives the same interval.
    """
    if min(len(each) for scores in algorithms for each in scores) < FEWEST_DRAWN:
        return None
    generator = np.random.default_rng(seed)

    def drawn(values: Any) -> np.ndarray:
        return np.asarray(values, float)[generator.integers(len(values), size=(draws, len(values)))]

    found = statistic(*([drawn(each) for each in scores] for scores in algorithms))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
