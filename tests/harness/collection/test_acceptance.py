"""What is asked of a dataset before it may stand for the paper's, on logs that are fit and on logs that are not."""

from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.harness.collection.acceptance import check_dataset
from mopo_bench.harness.collection.inspection import inspect_dataset
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, bundled_policy, roll_out
from mopo_bench.tasks.data.relabelling import with_own_rewards
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import ReferenceReturns

CHEETAH = get_task("halfcheetah-mixed")


@pytest.fixture(scope="module")
def running():
    """An untrained and a trained policy: two episodes of each."""
    return roll_out(
        CHEETAH, [(BehaviourPolicy.random(CHEETAH, 0), 0.5), (bundled_policy("halfcheetah-medium"), 0.5)], 4_000, seed=0
    )


def fails(dataset, task):
    return [check.name for check in check_dataset(dataset, task) if not check.holds]


def test_a_run_that_reached(running):
    assert fails(running, CHEETAH) == []
    facts = inspect_dataset(running, CHEETAH)
    assert facts["accepted"] is True and len(facts["acceptance"]) == 5
    assert facts["acceptance"][0].startswith("upright: median |pitch| 0.") and "as asked" in facts["acceptance"][0]


def test_on_its_back(running):
    flipped = running.observations.copy()
    flipped[:, 1] += np.float32(np.pi)
    assert fails(replace(running, observations=flipped), CHEETAH) == ["upright"]
    flipped = running.observations.copy()
    flipped[-1_000:, 1] += np.float32(np.pi)  # it fell over late: most rows are upright
    assert fails(replace(running, observations=flipped), CHEETAH) == ["upright"]


def test_untrained_policy():
    backwards = roll_out(CHEETAH, BehaviourPolicy.random(CHEETAH, 0), 3_000, seed=0)
    failed = ["upright", "moving", "better than zero action", "better than random actions", "growing skill"]
    assert fails(backwards, CHEETAH) == failed


def test_an_ant_that_stands():
    """With a point for each step alive it returns more than most of what it does while it learns to run."""
    task = get_task("ant-angle")
    standing = BehaviourPolicy([np.zeros(shape, np.float32) for shape in ((27, 16), (1, 16))], {})
    standing.weights[1][0, 8:] = -20  # the standard deviation's logarithm
    dataset = with_own_rewards(roll_out(task.as_collected(), standing, 2_000, seed=0), task)
    assert dataset.episode_returns().max() > 900
    failed = fails(dataset, task)
    assert {"moving", "better than zero action", "growing skill"} <= set(failed)
    assert inspect_dataset(dataset, task)["accepted"] is False


def test_an_expert_that_is_none(running):
    task = get_task("halfcheetah-medium-expert")
    assert fails(running, task) == ["expert"]
    asked = replace(task.recipe.acceptance, expert=0.7 * 5_000)
    assert fails(running, replace(task, recipe=replace(task.recipe, acceptance=asked))) == []


def test_ten_points_and_seven_tenths():
    task = get_task("walker2d-medium-expert")
    references = task.references
    assert isinstance(references, ReferenceReturns)
    assert task.recipe.acceptance.margin == pytest.approx((references.max - references.min) / 10)
    assert task.recipe.acceptance.expert == pytest.approx(0.7 * references.max)


def test_nothing_is_asked_of_random_data_or_of_strangers(running):
    task = get_task("halfcheetah-random")
    assert check_dataset(running, task) == []
    assert inspect_dataset(running, task)["accepted"] is None
