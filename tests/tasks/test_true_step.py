"""The real simulator, set to an observation, does what it does when it comes there by itself."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.registration import EnvSpec
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.points import POINT_EDGE
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.simulation import simulate
from mopo_bench.tasks.true_step import true_step

NAMES = ("pendulum-mixed", "halfcheetah-mixed", "hopper-mixed", "walker2d-mixed", "halfcheetah-jump", "ant-angle")
SEEN_WHOLE = {"hopper-mixed": 10, "walker2d-mixed": 10}  # velocities beyond which are shown as these


def played(task, steps=60):
    """Random actions from resets: observations, actions in [-1, 1], next observations and rewards."""
    environment, generator = simulate(task), np.random.default_rng(0)
    observation, _ = environment.reset(seed=3)
    rows = []
    for _ in range(steps):
        action = generator.uniform(-1, 1, task.problem.action_size).astype(np.float32)
        successor, reward, terminated, _, _ = environment.step(task.problem.action_box.from_unit(action))
        rows.append((observation, action, successor, reward))
        observation = environment.reset()[0] if terminated else successor
    return tuple(map(np.array, zip(*rows, strict=True)))


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_environment_at_play(name):
    """Backwards, so that what the simulator did before does not show."""
    task = get_task(name)
    observations, actions, successors, rewards = (each[::-1] for each in played(task))
    whole = np.abs(observations).max(1) < SEEN_WHOLE.get(name, np.inf)
    assert whole.sum() > 10
    found, paid = true_step(task)(observations, actions)
    np.testing.assert_allclose(found[whole], successors[whole], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(paid[whole], rewards[whole], rtol=1e-6, atol=1e-6)


def test_parameters_of_the_task_hold():
    """The plain observation and another angle: what the simulator pays follows."""
    plain = get_task("halfcheetah-jump").with_parameters(observation="plain")
    turned = get_task("ant-angle").with_parameters(angle=60.0)
    for task in (plain, turned):
        observations, actions, successors, rewards = played(task, 10)
        found, paid = true_step(task)(observations, actions)
        np.testing.assert_allclose(found, successors, atol=1e-6)
        np.testing.assert_allclose(paid, rewards, atol=1e-6)


def test_a_point_takes_the_expected_step():
    """The mean of what it does, which its noise leaves; all points at once."""
    task, count = get_task("point-edge"), 20_000
    observations, actions = np.tile([0.4, 0.3], (count, 1)), np.tile([0.2, 0.1, -0.5], (count, 1))
    found, paid = true_step(task)(observations, actions)
    noise = np.random.default_rng(0).standard_normal((count, 2))
    moved, rewards, _ = POINT_EDGE.step(observations, actions, noise)
    np.testing.assert_allclose(found[0], moved.mean(0), atol=1e-3)
    assert paid[0] == pytest.approx(rewards.mean(), abs=5e-3) and np.ptp(found, 0).max() == 0


def test_refused_where_the_state_is_not_in_the_observation():
    with pytest.raises(UserError, match="z_reference=nominal"):
        true_step(get_task("halfcheetah-jump").with_parameters(z_reference="reset"))
    swing = replace(get_task("pendulum-mixed"), environment="MountainCarContinuous-v0")
    with pytest.raises(UserError, match=r"give the environment a method true_step"):
        true_step(swing)


class InCentimetres(HopperEnv):
    """It shows what Hopper does not: set to one of its observations, it would not be where it says."""

    def _get_obs(self):
        return 100 * super()._get_obs()


def test_refused_where_the_observation_is_another_than_it_seems(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "InCentimetres-v0", EnvSpec("InCentimetres-v0", entry_point=InCentimetres))
    with pytest.raises(UserError, match=r"give the environment a method true_step"):
        true_step(replace(get_task("hopper-medium"), environment="InCentimetres-v0"))
