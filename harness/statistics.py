"""Means, spreads and intervals over seeds, and which number stands for a run's evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from ..tasks.errors import UserError

Interval = tuple[float, float]

METRICS: dict[str, Callable[[np.ndarray], float]] = {
    "last": lambda returns: returns[-1],
    "mean10": lambda returns: returns[-10:].mean(),
    "best": lambda returns: returns.max(),
}


def aggregate(evaluations: Sequence[Mapping[str, Any]], metric: str = "last") -> float:
    """The return that stands for one run: its evaluations in order, each with `return_mean`, by metric.

    `last`: the last one, as in the paper. `mean10`: the mean of the last 10 (of all where there are fewer), as in the
    authors' plot script. `best`: the highest. Raises UserError for another metric, ValueError without evaluations.
    """
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}: --metric is one of {', '.join(METRICS)}")
    if not evaluations:
        raise ValueError("a run without evaluations has no return")
    return float(METRICS[metric](np.array([row["return_mean"] for row in evaluations], float)))


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (divisor n - 1) in the unit of the values; None for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval (low, high) of the mean in the unit of the values; None for fewer than two."""
    if len(values) < 2:
        return None
    return _around(mean(values), np.var(values, ddof=1) / len(values), len(values) - 1, level)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval | None:
    """Welch's t interval (low, high) of mean(a) - mean(b); None where either has fewer than two values."""
    if min(len(a), len(b)) < 2:
        return None
    first, second = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    scatter = first**2 / (len(a) - 1) + second**2 / (len(b) - 1)
    freedom = (first + second) ** 2 / scatter if scatter else 1.0  # no spread at all: any will do
    return _around(mean(a) - mean(b), first + second, freedom, level)


def _around(centre: float, squared_error: float, freedom: float, level: float) -> Interval:
    reach = float(student.ppf((1 + level) / 2, freedom)) * math.sqrt(squared_error)
    return centre - reach, centre + reach
