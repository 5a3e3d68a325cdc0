"""The numbers of a diagnosis, against loops."""

import math

import numpy as np
import pytest
from mopo_bench.harness.diagnosis.measures import calibration, errors, occupancy_mean, rank_correlation
from mopo_bench.harness.diagnosis.model import Answers
from scipy import stats

ELITES, ROWS, WIDTH = 3, 40, 4


@pytest.fixture
def asked():
    """What elites say of some rows, and what is true of them."""
    draw = np.random.default_rng(0)
    means, stds = draw.normal(size=(ELITES, ROWS, WIDTH)), np.exp(draw.normal(size=(ELITES, ROWS, WIDTH)))
    return Answers(draw.random(ROWS), means, stds), draw.normal(size=(ROWS, WIDTH))


def test_errors_are_those_of_the_mean_of_the_elites(asked):
    answers, truth = asked
    for row, error in enumerate(errors(answers, truth)):
        centre = sum(answers.means[elite, row] for elite in range(ELITES)) / ELITES
        assert error == pytest.approx(math.dist(centre, truth[row]))


def test_calibration_equals_a_loop(asked):
    answers, truth = asked
    found = calibration(answers, truth)
    places = [(elite, row) for elite in range(ELITES) for row in range(ROWS)]
    normals = {place: stats.norm(answers.means[place], answers.stds[place]) for place in places}
    squares = [((truth[row] - answers.means[elite, row]) / answers.stds[elite, row]) ** 2 for elite, row in places]
    assert found["z_scores"] == pytest.approx(list(np.sqrt(np.mean(squares, 0))), rel=1e-5)
    assert found["z_score"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)
    nll = np.mean([-normals[place].logpdf(truth[place[1]]).sum() for place in places])
    assert found["nll"] == pytest.approx(nll, rel=1e-5)


def test_a_spread_that_is_right_has_z_scores_of_one():
    draw = np.random.default_rng(1)
    stds = np.exp(draw.normal(size=(1, 20_000, 2)))
    truth = draw.normal(size=(20_000, 2)) * stds[0]
    assert calibration(Answers(stds[0, :, 0], np.zeros_like(stds), stds), truth)["z_scores"] == pytest.approx([1, 1], abs=0.02)


def test_rank_correlation_is_of_ranks_alone():
    values = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    assert rank_correlation(values, np.exp(values) ** 3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.ones(5)) is None and rank_correlation(values[:2], values[:2]) is None


def test_an_occupancy_weighs_by_the_discount():
    """Two episodes of 3 and 1 steps, by hand; one of a million steps at 1 each is worth 1, and an end counts as 0."""
    values, steps = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 2, 0])
    by_hand = 0.5 * ((1 + 2 / 2 + 4 / 4) + 8) / 2
    assert occupancy_mean(values, steps, 0.5, 2.0) == pytest.approx(by_hand, rel=1e-5)
    assert occupancy_mean(np.ones(10**6), np.arange(10**6), 0.99, 10**6) == pytest.approx(1, rel=1e-5)
    assert occupancy_mean(np.ones(10), np.arange(10), 0.99, 10) == pytest.approx(1 - 0.99**10, rel=1e-5)
    assert occupancy_mean(values, steps, 1.0, 2.0) is None
