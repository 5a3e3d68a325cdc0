"""Statistics over tasks beside rliable's own numbers, and the tables made of them."""

import json
import math

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.aggregates import aggregates
from mopo_bench.harness.report.statistics import (
    bootstrap_interval,
    holm,
    interquartile_mean,
    mean_over_tasks,
    median_over_tasks,
    optimality_gap,
    probability_of_improvement,
    share_above,
)
from mopo_bench.harness.report.tables import render

# by task, a score for each seed
A = ((62.5, 49.3, 45.9, 13.5, 49.1, 57.4), (57.4, 67.2, 34.7, 55.6, 53.7, 87.3), (72.8, 86.1, 47.5, 35.1, 68.2, 46.7),
     (62.1, 78.9, 60.8, 45.4, 80.9, 67.0))  # fmt: skip
B = (
    (62.5, 38.6, 46.0, 33.7, 18.5),
    (52.4, 55.5, 63.5, 46.8, 87.8),
    (31.4, 24.8, 55.4, 69.6, 83.6),
    (27.0, 44.8, 58.9, 87.3, 69.5),
)
# What rliable 1.2.0 gives for them (with pandas below 3), x and y the transposed arrays A and B: `metrics.aggregate_iqm(x)`,
# `aggregate_mean`, `aggregate_median`, `aggregate_optimality_gap(x, 100.0)`, `probability_of_improvement(x, y)`,
# `library.create_performance_profile({"a": x}, np.array([30.0, 50.0, 70.0]))`, and `library.get_interval_estimates` of the
# interquartile mean (reps=50_000) and of the probability of improvement of (x, y) (reps=20_000).
RLIABLE = {
    interquartile_mean: (57.46666666666667, 52.44000000000001),
    mean_over_tasks: (57.712500000000006, 52.879999999999995),
    median_over_tasks: (59.358333333333334, 55.23),
    optimality_gap: (42.2875, 47.120000000000005),
}
IMPROVEMENT, IMPROVEMENT_INTERVAL = 0.6041666666666666, (0.42083333, 0.78333333)
PROFILE = (0.95833333, 0.625, 0.20833333)
MIDDLE_INTERVAL = (51.40833333, 64.16666667)


@pytest.mark.parametrize("statistic", RLIABLE)
def test_statistics_equal_rliables(statistic):
    assert (statistic(A), statistic(B)) == pytest.approx(RLIABLE[statistic], rel=1e-12)


def test_improvement_and_profile_equal_rliables():
    assert probability_of_improvement(A, B) == pytest.approx(IMPROVEMENT, rel=1e-12)  # with a tie among the pairs
    assert probability_of_improvement(A, B) + probability_of_improvement(B, A) == pytest.approx(1)
    assert [share_above(A, limit) for limit in (30, 50, 70)] == pytest.approx(PROFILE, rel=1e-7)


def test_bootstrap_intervals_are_rliables_up_to_chance():
    assert bootstrap_interval(interquartile_mean, A, draws=5_000) == pytest.approx(MIDDLE_INTERVAL, abs=0.35)
    assert bootstrap_interval(probability_of_improvement, A, B, draws=5_000) == pytest.approx(IMPROVEMENT_INTERVAL, abs=0.02)


def test_random_scores_give_what_rliable_gives():
    """Where it is installed: `tox -e rliable`."""
    metrics = pytest.importorskip("rliable.metrics")
    generator = np.random.default_rng(5)
    x, y = generator.normal(50, 30, (7, 5)).round(0), generator.normal(60, 10, (9, 5)).round(0)  # seeds, tasks; with ties
    ours = [each(x.T) for each in (interquartile_mean, mean_over_tasks, median_over_tasks, optimality_gap)]
    theirs = [metrics.aggregate_iqm(x), metrics.aggregate_mean(x), metrics.aggregate_median(x)]
    assert ours == pytest.approx([*theirs, metrics.aggregate_optimality_gap(x, 100.0)])
    assert probability_of_improvement(x.T, y.T) == pytest.approx(metrics.probability_of_improvement(x, y))


def test_a_bootstrap_draws_within_tasks_is_seeded_and_wants_five_seeds():
    far = ([0.0] * 5, [100.0] * 5)
    assert bootstrap_interval(mean_over_tasks, far) == (50.0, 50.0)  # were tasks drawn, too, it would reach from 0 to 100
    assert bootstrap_interval(mean_over_tasks, A, seed=3) == bootstrap_interval(mean_over_tasks, A, seed=3)
    assert bootstrap_interval(mean_over_tasks, A, seed=3) != bootstrap_interval(mean_over_tasks, A, seed=4)
    assert bootstrap_interval(mean_over_tasks, [*A, [1.0, 2.0, 3.0, 4.0]]) is None


@pytest.mark.parametrize(("tasks", "share"), [(1, 85), (30, 92)])
def test_with_five_seeds_intervals_are_as_narrow_as_is_said(grid, tasks, share):
    """A bootstrap of n draws has (n - 1) / n of the variance: for a known one 1.96 standard errors become 1.75."""
    generator = np.random.default_rng(0)
    intervals = [bootstrap_interval(mean_over_tasks, generator.normal(0, 1, (tasks, 5)), draws=300) for _ in range(1_000)]
    assert np.mean([low <= 0 <= high for low, high in intervals]) == pytest.approx(share / 100, abs=0.03)
    assert any(f"in {share} % " in note for note in aggregates(grid.runs())[0].notes)


def test_a_quarter_that_is_no_whole_number_is_rounded_down_and_said(grid):
    assert interquartile_mean([[0.0, 0.0, 9.0]]) == 3  # nothing is left out
    assert interquartile_mean([[0.0, 1.0, 2.0, 9.0], [-5.0, 3.0, 4.0]]) == 2  # five of seven
    assert any("rounded down" in note for note in aggregates(grid.runs())[0].notes)


def test_holm():
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 p, then 2 p, then p, none below the one before
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_holm_holds_the_family_wise_error():
    """Of twenty true null hypotheses, over 4 000 families; without it one is rejected in 0.64 of them."""
    p_values = np.random.default_rng(0).uniform(size=(4_000, 20))
    wrong = np.mean([min(holm(family)) <= 0.05 for family in p_values])
    assert wrong == pytest.approx(1 - (1 - 0.05 / 20) ** 20, abs=3 * math.sqrt(0.05 * 0.95 / 4_000))


@pytest.fixture
def grid(records):
    """Two algorithms on two tasks with scores and one without; a third on one of them."""
    generator = np.random.default_rng(0)
    for task, mean in (("hopper-medium", 2000), ("walker2d-medium", 3000), ("point-angle", 150)):
        for algorithm, worth in (("mopo", 1.2), ("sac", 0.7)):
            records.add(generator.normal(mean * worth, mean / 20, 5), task=task, algorithm=algorithm, identity=algorithm)
    return records


def test_scores_are_put_together_and_returns_are_not(grid):
    table, *profiles, improvement = aggregates(grid.runs())
    shown = [[entry.lines()[0] for entry in row[:4]] for row in table.rows]
    assert [row[:2] for row in shown] == [["2 tasks", "score"]] * 2 + [["point-angle", "return"]] * 2
    assert [row[3] for row in shown] == ["10", "10", "5", "5"]
    middle, gap = table.rows[0][4], table.rows[0][7]
    assert middle.low < middle.mean < middle.high and gap.mean == pytest.approx(100 - table.rows[0][5].mean)
    assert table.rows[2][7].mean is None
    assert len(profiles) == 2 and [row[2].mean for row in improvement.rows] == [100.0, 100.0]


def test_tasks_that_not_every_algorithm_has_are_left_out_and_named(grid):
    grid.add([2000.0] * 5, algorithm="bc", identity="bc")
    table, *_ = aggregates(grid.runs())
    assert [row[0].text for row in table.rows][:3] == ["hopper-medium"] * 3
    assert any("left out: walker2d-medium" in note for note in table.notes)


def test_under_five_seeds_the_points_are_shown(records):
    records.add([2000.0, 1500.0, 1800.0])
    table, *_ = aggregates(records.runs())
    assert table.rows[0][4].low is None and table.rows[0][8].text == "46.7, 55.9, 62.1"


def test_columns_without_a_number_and_their_note_are_left_out(records):
    records.add([100.0, 150.0, 120.0, 110.0, 130.0], task="point-angle")
    table, *_ = aggregates(records.runs())
    assert table.columns[-1] == "Median" and not any("Optimality gap" in note for note in table.notes)


def test_formats(grid):
    (rows,) = {len(each["rows"]) for each in [json.loads(render("aggregate", grid.runs(), "x", "json"))]}
    lines = render("aggregate", grid.runs(), "x", "csv").splitlines()
    assert rows > 4 and lines[0].startswith("task,") and any("mopo: interquartile mean" in line for line in lines)
    assert any("mopo over sac" in line for line in lines)
    assert "| Over | Unit |" in render("aggregate", grid.runs(), "x", "markdown")


def test_comparisons_are_corrected_where_that_is_asked_for(records):
    """Two of three differences have p = 0.036: clear alone, and not among three."""
    from mopo_bench.harness.report.comparisons import comparisons

    ours = [100.0, 103.0, 97.0, 101.0, 99.0]
    records.add([3100 + each for each in ours])
    for algorithm, loss in (("bc", [3.0, 1.0, 2.0, 0.2, 1.2]), ("sac", [1.0, 3.0, 0.2, 2.0, 1.2])):
        lost = [3100 + each - 100 * less for each, less in zip(ours, loss, strict=True)]
        records.add(lost, algorithm=algorithm, identity=algorithm)
    plain, corrected = (comparisons(records.runs(), correct=each) for each in (False, True))
    assert [row[-1].text for row in plain.rows] == ["clear"] * 3
    assert [row[-1].text for row in corrected.rows] == ["not clear", "not clear", "clear"]
    assert [row[-2].bold for row in corrected.rows] == [False, False, True]
    assert "over the 3 that have one" in corrected.notes[-1]
    with pytest.raises(UserError, match="--holm goes with the table of scores"):
        render("table1", records.runs(), "x", correct=True)
