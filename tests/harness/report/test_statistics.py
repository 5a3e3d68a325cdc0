import math

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.choices import METRICS
from mopo_bench.harness.report.statistics import (
    aggregate,
    difference,
    difference_interval,
    mean,
    mean_interval,
    standard_deviation,
)
from scipy import stats


def history(*returns):
    return [{"step": 10 * index, "returns": [value], "return_mean": value} for index, value in enumerate(returns, 1)]


def test_standard_deviation_is_the_samples_not_the_populations():
    assert standard_deviation([1, 2, 3, 4]) == pytest.approx(math.sqrt(5 / 3))
    assert standard_deviation([7, 7]) == 0.0
    assert standard_deviation([7]) is None
    assert mean([1, 2, 6]) == 3


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_agree_with_scipy(level):
    generator = np.random.default_rng(0)
    a, b = generator.normal(3, 1, 4), generator.normal(1, 9, 7)
    of_mean = stats.ttest_1samp(a, 0).confidence_interval(level)
    of_difference = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert mean_interval(a, level) == pytest.approx(tuple(of_mean))
    assert difference_interval(a, b, level) == pytest.approx(tuple(of_difference))


def test_intervals_need_two_values_each():
    assert mean_interval([1]) is None
    assert difference_interval([1], [1, 2]) is None
    assert difference_interval([1, 2], [1]) is None


def test_without_spread_there_is_no_interval():
    assert mean_interval([0.1, 0.1, 0.1]) is None  # numpy's variance of these is not nought
    assert difference_interval([5, 5, 5], [2, 2, 2]) is None
    assert difference({0: 5.0, 1: 6.0, 2: 9.0}, {0: 3.0, 1: 4.0, 2: 7.0}) == (2.0, None, [2.0, 2.0, 2.0], None)
    assert difference_interval([5, 6, 7], [2, 2, 2]) is not None


def test_two_values_have_no_interval():
    assert mean_interval([133.0, 170.0]) is None
    assert difference_interval([1, 2], [1, 2, 3]) is None
    assert difference({0: 1.0, 1: 2.0}, {0: 0.0, 1: 5.0}) == (-1.0, None, [1.0, -3.0], None)


def test_a_difference_is_paired_where_enough_seeds_are_equal():
    a, b = {0: 1.0, 1: 5.0, 2: 9.0, 3: 40.0}, {2: 8.5, 1: 4.0, 0: 0.0, 7: -3.0}
    found, student = difference(a, b), stats.ttest_rel([1, 5, 9], [0, 4, 8.5]).confidence_interval()
    assert found.pairs == [1.0, 1.0, 0.5] and found.mean == pytest.approx(2.5 / 3)
    assert found.interval == pytest.approx(tuple(student))
    others = {seed + 2: value for seed, value in b.items()}  # 2 and 3 alone are equal
    welch = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False).confidence_interval()
    assert difference(a, others).pairs == [] and difference(a, others).interval == pytest.approx(tuple(welch))
    assert difference(a, others).mean == pytest.approx(mean(list(a.values())) - mean(list(b.values())))


def test_intervals_cover_as_often_as_they_say():
    generator = np.random.default_rng(1)
    draws = 2000
    a, b = generator.normal(5, 2, (draws, 3)), generator.normal(4, 1, (draws, 6))
    covered = np.mean([low < 5 < high for low, high in map(mean_interval, a)])
    difference = np.mean([low < 1 < high for low, high in map(difference_interval, a, b)])
    assert abs(covered - 0.95) < 0.015  # the normal quantile would cover 0.81, the population's deviation 0.90
    assert abs(difference - 0.95) < 0.02


def test_metrics():
    returns = [100.0, *range(1, 12), 5.0]
    assert aggregate(history(*returns)) == aggregate(history(*returns), "last") == 5
    assert aggregate(history(*returns), "mean10") == np.mean(returns[-10:])
    assert aggregate(history(1, 2, 6), "mean10") == 3 and "a run with fewer counts all" in METRICS["mean10"].meaning
    assert aggregate(history(*returns), "best") == 100
    assert set(METRICS) == {"last", "mean10", "best"}


def test_a_wrong_metric_names_the_right_ones():
    with pytest.raises(UserError, match=r"'median'.*last, mean10, best"):
        aggregate(history(1.0), "median")
    with pytest.raises(ValueError, match="without evaluations"):
        aggregate([])
