"""Where new seeds may lie, given a baseline's: prediction limits, p-values by size and by rank, looks in between, and power.

The baseline's m seeds have mean b and sample standard deviation s. The mean x of n new seeds of that normal distribution has

    t = (x - b) / (s sqrt(1/n + 1/m)),  Student's t with m - 1 degrees of freedom,

so that b - s sqrt(1/n + 1/m) t_q(m - 1) is a prediction limit: x falls below it with probability 1 - q (Hahn 1969, Journal of
the American Statistical Association 64). Only the baseline's spread enters: new seeds that scatter more cannot hide a drop.

Scores of seeds are not normal: where one in ten collapses, a limit from t is exceeded far more often than it says. So the ranks
of the new seeds among the baseline's must be bad, too (Mann and Whitney 1947, Annals of Mathematical Statistics 18), which
holds whatever the distribution: p is the larger of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

LOW, HIGH, BOTH, NEITHER = SIDES = ("low", "high", "both", "neither")  # of the baseline, that is worse
FEWEST_BEHIND = 3  # seeds of a baseline behind a limit
SURE = 1e-4  # p-values below which Bonferroni's bound over looks is enough: the joint integral has errors of 1e-5

Distance = Callable[[float], float]  # of a mean above the worst that is allowed


@dataclass(frozen=True)
class Prediction:
    """What one number of a cell, such as its return, may be by a baseline's seeds.

    values: the baseline's, one a seed, at least three. margin: by how much the true mean may be worse, in their unit.
    direction: which side is worse.
    """

    values: tuple[float, ...]
    margin: float = 0.0
    direction: str = LOW

    @cached_property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @cached_property
    def spread(self) -> float:
        """The sample standard deviation; 0 where all are equal, which numpy's need not be."""
        return float(np.std(self.values, ddof=1)) if min(self.values) < max(self.values) else 0.0

    @property
    def freedom(self) -> int:
        return len(self.values) - 1

    def error(self, count: int) -> float:
        """The standard error of the mean of `count` new seeds minus the baseline's."""
        return self.spread * math.sqrt(1 / count + 1 / len(self.values))

    def limits(self, count: int, level: float) -> tuple[float, float]:
        """Between which the mean of `count` new seeds lies but with probability `level`; an open side is infinite."""
        from scipy.special import stdtrit  # as `scipy.stats.t`, without a tenth of a millisecond of checks

        each = level / 2 if self.direction == BOTH else level
        reach = self.margin + (-float(stdtrit(self.freedom, each)) * self.error(count) if self.spread else 0.0)
        low = -math.inf if self.direction == HIGH else self.mean - reach
        return low, math.inf if self.direction == LOW else self.mean + reach

    def p_value(self, new: Sequence[float], looks: Sequence[int] = ()) -> float:
        """By size and by rank, whichever is larger; both with one look or several."""
        return max(self.size_p_value(new, looks), self.rank_p_value(new, looks))

    def size_p_value(self, new: Sequence[float], looks: Sequence[int] = ()) -> float:
        """The probability of a mean at least as bad as that of `new`, were the true mean worse by exactly the margin.

        looks: the numbers of seeds after which one looks, where one looks more than once. Then it is the probability that any
        of these looks shows what the worst of those so far did, and holds at whichever look one stops.
        """
        tails: list[Distance] = [lambda mean: mean - (self.mean - self.margin)] * (self.direction != HIGH)
        tails += [lambda mean: (self.mean + self.margin) - mean] * (self.direction != LOW)
        return min(1.0, len(tails) * min(self._tail(tail, new, looks) for tail in tails))

    def rank_p_value(self, new: Sequence[float], looks: Sequence[int] = ()) -> float:
        """The probability of ranks at least as bad as those of `new` among the baseline's, were these worse by the margin.

        looks: as of `size_p_value`, by Bonferroni's bound.
        """
        sides = [1.0] * (self.direction != HIGH) + [-1.0] * (self.direction != LOW)  # -1: with all signs changed
        found = [
            float(_lower_ranks([side * each + self.margin for each in new[:count]], [side * each for each in self.values]))
            for count in _looked_at(new, looks)
            for side in sides
        ]
        return min(1.0, max(1, len(looks)) * len(sides) * min(found))

    def least_p_value(self, count: int, looks: Sequence[int] = ()) -> float:
        """What no p-value of `count` new seeds is below: that of ranks which are all worse than the baseline's."""
        tails = 2 if self.direction == BOTH else 1
        return min(1.0, max(1, len(looks)) * tails / math.comb(len(self.values) + count, count))

    def not_worse_by(self, effect: float, new: Sequence[float], looks: Sequence[int] = ()) -> float:
        """The probability of a mean at least as high as that of `new`, were the true mean lower by `effect`."""
        return self._tail(lambda mean: (self.mean - effect) - mean, new, looks)

    def power(self, effect: float, count: int, level: float) -> float:
        """How often `count` new seeds of a normal distribution show at `level` that the true mean is lower by `effect`.

        With the baseline's spread, of 1 000 draws.
        """
        from scipy.special import stdtr

        if not self.spread:
            return float(effect > self.margin and self.least_p_value(count) <= level)
        drawn = np.random.default_rng(0).normal(self.mean - effect, self.spread, (1_000, count))
        by_size = stdtr(self.freedom, (drawn.mean(1) - (self.mean - self.margin)) / self.error(count))
        by_rank = _lower_ranks(drawn + self.margin, self.values)
        return float(np.mean(np.maximum(by_size, by_rank) <= level))

    def _tail(self, distance: Distance, new: Sequence[float], looks: Sequence[int]) -> float:
        """P of the smallest distance (in standard errors) that the looks so far found, or of a smaller one."""
        from scipy.special import stdtr

        counts = _looked_at(new, looks)
        distances = [distance(float(np.mean(new[:count]))) for count in counts]
        if not self.spread:
            return 0.0 if min(distances) < -_rounding(self.values) else 1.0
        lowest = min(found / self.error(count) for found, count in zip(distances, counts, strict=True))
        alone = float(stdtr(self.freedom, lowest))
        if len(looks) < 2:
            return alone
        any_look = min(1.0, len(looks) * alone)
        if alone < SURE:
            return any_look
        joint = 1 - float(_joint(looks, len(self.values)).cdf(np.full(len(looks), -lowest)))
        return min(max(alone, joint), any_look)


def _looked_at(new: Sequence[float], looks: Sequence[int]) -> list[int]:
    """The numbers of new seeds at which one has looked so far: all of them, where one looks once."""
    return [count for count in looks if count <= len(new)] or [len(new)]


def _lower_ranks(new: Any, values: Sequence[float]) -> Any:
    """The probability that ranks of `new` (..., n) among `values` are as low as these; of equal numbers a new one is higher."""
    above = np.searchsorted(np.sort(values), new, side="right").sum(-1)  # pairs with the new one above
    found, places = np.unique(above, return_inverse=True)
    return _rank_probabilities(np.shape(new)[-1], len(values), tuple(found.tolist()))[places.reshape(np.shape(above))]


@lru_cache(maxsize=1024)
def _rank_probabilities(count: int, behind: int, above: tuple[int, ...]) -> np.ndarray:
    """P(U <= u) for each u of `above`, of so many new seeds and others; of a hundred each, all u would take a second."""
    from scipy import stats

    pairs = np.array(above)[:, None] - behind * np.arange(count)  # the others below each new one, that u in all
    new, others = pairs.clip(0, behind) - 0.5, np.arange(float(behind))[None]
    return stats.mannwhitneyu(new, others, alternative="less", axis=1, method="exact").pvalue


def _joint(looks: Sequence[int], behind: int) -> Any:
    """The distribution of t at all looks together: multivariate t, since they share the spread, the baseline and seeds."""
    from scipy import stats

    counts = np.array(looks)
    covariance = 1 / np.maximum.outer(counts, counts) + 1 / behind
    scale = np.sqrt(np.diag(covariance))
    # the integral is a quasi-Monte Carlo one: a fixed seed, so that equal records have equal p-values
    return stats.multivariate_t(shape=covariance / np.outer(scale, scale), df=behind - 1, seed=0)


def _rounding(values: Sequence[float]) -> float:
    """What equal numbers may differ by on another machine."""
    return 1e-9 * max(map(abs, values))
