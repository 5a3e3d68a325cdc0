"""Stored states stepped again in the simulator that logged them, and in one that is not the same."""

from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import read_hdf5, write_hdf5
from mopo_bench.tasks.data.relabelling import with_own_rewards
from mopo_bench.tasks.data.simulator_agreement import replay_physics
from mopo_bench.tasks.registry import get_task


@pytest.fixture(scope="module", params=["halfcheetah-random", "hopper-random", "walker2d-random", "ant-angle"])
def logged(request):
    task = get_task(request.param)
    dataset = roll_out(task.as_collected(), BehaviourPolicy.random(task, 0), 300, seed=1)
    return task, with_own_rewards(dataset, task)


def test_same_simulator(logged, tmp_path):
    """From states stored in single precision, in a file of v2's layout."""
    task, dataset = logged
    write_hdf5(dataset, tmp_path / "log.hdf5")
    facts = replay_physics(read_hdf5(tmp_path / "log.hdf5"), task, rows=200)
    assert facts["rows"] == 200 and facts["terminals_differ"] == 0
    assert facts["observation_error_median"] < 1e-5 and facts["observation_error_99"] < 1e-2
    assert ("reward_error_max" in facts) == (task.name != "ant-angle")
    if "reward_error_median" in facts:
        assert facts["reward_error_median"] < 1e-4


def test_other_physics_are_noticed(logged):
    """As if the log came from a simulator whose joints move a little faster."""
    task, dataset = logged
    successors = dataset.next_observations.copy()
    successors[:, -1] *= 1.01
    facts = replay_physics(replace(dataset, next_observations=successors), task, rows=200)
    moved = 0.01 * np.abs(dataset.next_observations[:, -1])
    assert facts["observation_error_max"] == pytest.approx(moved.max(), rel=0.2)
    assert facts["observation_error_median"] > 0.3 * np.median(moved)


def test_other_rewards_and_ends_are_noticed(logged):
    task, dataset = logged
    if task.recipe.collected_under:
        pytest.skip("its rewards are not those of the log")
    facts = replay_physics(replace(dataset, rewards=dataset.rewards + 0.5, terminals=~dataset.terminals), task, rows=300)
    assert facts["reward_error_median"] == pytest.approx(0.5, abs=1e-3) and facts["terminals_differ"] == 300


def test_rows_whose_successor_is_not_known_are_left_out(logged):
    task, dataset = logged
    valid = np.arange(300) < 40
    successors = np.where(valid[:, None], dataset.next_observations, 1e6).astype(np.float32)
    facts = replay_physics(replace(dataset, next_observations=successors, valid_next=valid), task)
    assert facts["rows"] == 40 and facts["observation_error_max"] < 1


def test_what_cannot_be_replayed():
    task = get_task("hopper-random")
    dataset = roll_out(task, BehaviourPolicy.random(task, 0), 20, seed=1)
    with pytest.raises(UserError, match="infos/qpos"):
        replay_physics(replace(dataset, extras={}), task)
    with pytest.raises(UserError, match="infos/qvel"):
        replay_physics(replace(dataset, extras={**dataset.extras, "infos/qvel": np.zeros((20, 5), np.float32)}), task)
    with pytest.raises(UserError, match="MuJoCo"):
        replay_physics(dataset, get_task("point-angle"))
