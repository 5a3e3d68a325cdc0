import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from mopo_bench.harness.check.prediction import BOTH, HIGH, LOW, Prediction
from scipy import optimize, stats

VALUES = tuple(np.random.default_rng(3).normal(50, 4, 20))


def test_the_limit_is_that_of_the_formula():
    reach = stats.t.ppf(0.95, 19) * np.std(VALUES, ddof=1) * math.sqrt(1 / 5 + 1 / 20)
    assert Prediction(VALUES).limits(5, 0.05) == pytest.approx((np.mean(VALUES) - reach, math.inf))
    assert Prediction(VALUES, 3.0, HIGH).limits(5, 0.05) == pytest.approx((-math.inf, np.mean(VALUES) + 3 + reach))
    both = stats.t.ppf(0.975, 19) / stats.t.ppf(0.95, 19) * reach
    assert Prediction(VALUES, 0.0, BOTH).limits(5, 0.05) == pytest.approx((np.mean(VALUES) - both, np.mean(VALUES) + both))


@pytest.mark.parametrize("direction", [LOW, HIGH, BOTH])
def test_a_mean_at_the_limit_has_the_level_as_its_p_value(direction):
    prediction = Prediction(VALUES, 1.0, direction)
    for limit in filter(math.isfinite, prediction.limits(5, 0.02)):
        assert prediction.size_p_value([limit - 1, limit, limit + 1, limit, limit]) == pytest.approx(0.02)


def test_one_limit_covers_the_mean_of_new_seeds_as_often_as_it_says():
    """Over 20 000 baselines of eight seeds and five new ones: the normal quantile would cover 0.93, without 1/m 0.89."""
    generator = np.random.default_rng(0)
    before, after = generator.normal(10, 3, (20_000, 8)), generator.normal(10, 3, (20_000, 5)).mean(1)
    reach = Prediction(tuple(before[0])).mean - Prediction(tuple(before[0])).limits(5, 0.05)[0]
    each = reach / np.std(before[0], ddof=1)  # standard deviations below the mean
    low = before.mean(1) - each * before.std(1, ddof=1)
    assert np.mean(after >= low) == pytest.approx(0.95, abs=0.006)
    assert low[1] == pytest.approx(Prediction(tuple(before[1])).limits(5, 0.05)[0])


def test_p_values_of_several_looks_hold_their_level():
    """Over 20 000 baselines: where one looks after 3, 4, 5 and 6 seeds, the worst look is beyond the limit as often as is said.

    One look's limit, taken four times, would raise 0.17 false alarms instead of 0.1, Bonferroni's 0.05.
    """
    looks, prediction, generator = (3, 4, 5, 6), Prediction(VALUES), np.random.default_rng(1)
    worst = optimize.brentq(lambda new: prediction.size_p_value([new] * 6, looks) - 0.1, 30, 50)
    limit = (worst - prediction.mean) / prediction.error(6)  # of equal values the last look is the worst, in standard errors
    before, after = generator.normal(0, 1, (20_000, 20)), generator.normal(0, 1, (20_000, 6))
    means = np.stack([after[:, :count].mean(1) for count in looks])
    errors = np.stack([before.std(1, ddof=1) * math.sqrt(1 / count + 1 / 20) for count in looks])
    t = (means - before.mean(1)) / errors
    assert np.mean(t.min(0) < limit) == pytest.approx(0.1, abs=0.007)
    assert np.mean(t.min(0) < stats.t.ppf(0.1, 19)) > 0.15


def test_p_values_of_looks_never_rise_from_look_to_look():
    new = np.random.default_rng(5).normal(48, 4, 8)
    found = [Prediction(VALUES).size_p_value(new[:count], (3, 4, 5, 6, 7, 8)) for count in range(3, 9)]
    assert all(later <= before + 1e-4 for before, later in pairwise(found))
    assert found[0] > Prediction(VALUES).size_p_value(new[:3])


def test_power_is_what_simulation_finds():
    """Of a drop of 4 with margin 1 at level 0.02, over other baselines of twenty seeds with standard deviation 3."""
    generator, level = np.random.default_rng(2), 0.02
    drawn = [(Prediction(tuple(generator.normal(0, 3, 20)), 1.0), generator.normal(-4, 3, 5)) for _ in range(1_500)]
    found = np.mean([each.p_value(new) <= level for each, new in drawn])
    said = np.mean([each.power(each.mean + 4, 5, level) for each, _ in drawn[:60]])
    assert found == pytest.approx(said, abs=0.04) and 0.2 < found < 0.5


def test_no_p_value_is_below_the_least():
    assert Prediction(VALUES).p_value([-1e9] * 5) == Prediction(VALUES).least_p_value(5) == 1 / math.comb(25, 5)
    assert Prediction(VALUES, 0.0, BOTH).rank_p_value([1e9] * 3) == Prediction(VALUES, 0.0, BOTH).least_p_value(3)


def test_without_spread_any_loss_beyond_the_margin_is_one():
    equal = (5.0,) * 20
    assert Prediction(equal).size_p_value([5.0] * 5) == Prediction(equal).p_value([5.0] * 5) == 1.0
    assert Prediction(equal).size_p_value([5.0, 5.0, 5.0, 5.0, 4.9]) == 0.0
    assert Prediction(equal).p_value([4.9] * 5) < 1e-4
    assert Prediction(equal, 0.1).size_p_value([5.0, 5.0, 5.0, 5.0, 4.9]) == 1.0
    assert Prediction((0.1,) * 20).size_p_value([0.1 + 1e-12] * 5) == 1.0
    assert Prediction(equal, 0.1, BOTH).size_p_value([5.2] * 5) == 0.0
    assert Prediction(equal, 0.1).limits(5, 0.05) == (4.9, math.inf)
    assert Prediction(equal, 0.1).power(0.5, 5, 0.05) == 1.0


def test_ranks_are_those_of_every_arrangement():
    """Five new seeds among seven, all 792 arrangements counted: how many have ranks that sum to no more, or to no less."""
    values, new = (3.0, 1.0, 8.0, 5.0, 9.0, 7.5, 6.0), [2.0, 4.0, 0.5, 6.5, 1.5]
    ranks = stats.rankdata([*new, *values])
    sums = np.array([sum(chosen) for chosen in combinations(ranks, 5)])
    low, high = np.mean(sums <= ranks[:5].sum()), np.mean(sums >= ranks[:5].sum())
    assert Prediction(values, 0.0, LOW).rank_p_value(new) == pytest.approx(low)
    assert Prediction(values, 0.0, HIGH).rank_p_value(new) == pytest.approx(high)
    assert Prediction(values, 0.0, BOTH).rank_p_value(new) == pytest.approx(2 * min(low, high))
    assert Prediction(values, 2.0, LOW).rank_p_value(new) == Prediction(values, 0.0, LOW).rank_p_value([x + 2 for x in new])
    tied = Prediction((0.0, 0.0, 2.0, 3.0), 0.0, BOTH)  # of equal numbers none is worse, however many there are
    assert tied.rank_p_value([0.0] * 5) == 1.0 and tied.rank_p_value([-1.0] * 5) == 2 / math.comb(9, 4)
    assert Prediction(values, 0.0, LOW).rank_p_value(new, (4, 5, 6)) >= 3 * min(low, 1 / 3)


@pytest.mark.parametrize("count, behind", [(1, 3), (3, 3), (5, 20), (30, 40), (300, 300)])
def test_ranks_are_those_of_scipy(count, behind):
    generator = np.random.default_rng(count)
    values = generator.normal(size=behind)
    for shift in (-2.0, -0.5, 0.0, 1.0):
        new = generator.normal(shift, 1, count)
        expected = stats.mannwhitneyu(new, values, alternative="less", method="exact").pvalue
        assert Prediction(tuple(values)).rank_p_value(new) == pytest.approx(expected, rel=1e-9)
    assert Prediction((1.0, 2.0, 3.0)).rank_p_value([0.0] * 3) == 1 / 20  # to the last bit: it may be the level


def test_ranks_hold_their_level_where_one_seed_in_ten_lies_far_out():
    """Over 4 000 baselines of twenty, which is where Student's limit is exceeded several times as often as it says."""
    generator, level = np.random.default_rng(5), 0.002
    drawn = generator.normal(size=(4_000, 25)) + 100 * (generator.random((4_000, 25)) < 0.1)
    tests = [(Prediction(tuple(row[:20]), 0.0, HIGH), row[20:]) for row in drawn]
    assert np.mean([each.size_p_value(new) <= level for each, new in tests]) > 3 * level
    assert np.mean([each.rank_p_value(new) <= level for each, new in tests]) < 2 * level
