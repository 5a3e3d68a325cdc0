"""Slips in an environment of the user's, made on Pendulum, are named; one without a slip raises no doubt."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection.environments import misfits
from mopo_bench.tasks.data.request import DatasetRequest
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.simulation import checked_specification
from mopo_bench.tasks.true_step import true_step

PENDULUM = get_task("pendulum-mixed")


class Mine(PendulumEnv):
    """No slip."""


class ForgottenSeed(PendulumEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


class OwnGenerator(PendulumEnv):
    """Every copy starts at the same state."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.draws = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.draws.uniform(-1, 1, 2)
        self.last_u = None
        return self._get_obs(), {}


class GlobalNoise(PendulumEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + np.random.normal(), *rest


class ShortLimit(PendulumEnv):
    steps = 0

    def reset(self, **options):
        self.steps = 0
        return super().reset(**options)

    def step(self, action):
        self.steps += 1
        observation, reward, terminated, _, information = super().step(action)
        return observation, reward, terminated, self.steps == 7, information


class Falls(ShortLimit):
    def step(self, action):
        observation, reward, _, truncated, information = super().step(action)
        return observation, reward, truncated, False, information


def paying(change):
    class Paid(PendulumEnv):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, change(reward), *rest

    return Paid


@pytest.fixture
def task(monkeypatch):
    """The pendulum's task with an environment of the user's."""

    def made(environment, **wrappers):
        specification = gymnasium.envs.registration.EnvSpec("mine/Pendulum-v0", entry_point=environment, **wrappers)
        monkeypatch.setitem(gymnasium.registry, specification.id, specification)
        return replace(PENDULUM, environment=specification.id)

    return made


def found(task):
    return misfits(load_dataset(PENDULUM, DatasetRequest()), task, checked_specification(task))


def test_no_slip(task):
    assert found(task(Mine)) == []
    assert found(PENDULUM) == []  # Gymnasium's own is not tried


@pytest.mark.parametrize(
    "environment, said",
    [
        (ForgottenSeed, "two copies of the environment that were reset with one seed and given the same actions differ"),
        (GlobalNoise, "two copies of the environment that were reset with one seed and given the same actions differ"),
        (OwnGenerator, "the environment starts every episode alike, whatever the seed"),
        (ShortLimit, "the environment stops an episode by itself after 7 steps, the task's limit is 200"),
        (Falls, "the environment ends an episode by itself after 7 steps where the task's termination says that it goes on"),
        (paying(lambda reward: 100 * reward), "the environment's rewards of 100 steps of random actions lie between"),
        (paying(lambda reward: 1 - reward), "the environment's rewards of 100 steps of random actions lie between"),
    ],
)
def test_a_slip_is_named(task, environment, said):
    (only,) = found(task(environment))
    assert only.startswith(said)


class Goal(PendulumEnv):
    """A small cost, and now and then a large reward, which a hundred random steps may not meet."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 100.0 if observation[0] > 0.99 else reward, *rest


class AlwaysTheSame(PendulumEnv):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([1.0, 0.5])
        return self._get_obs(), {}


def test_what_is_meant_so_raises_no_doubt(task):
    dataset = load_dataset(PENDULUM, DatasetRequest())
    rare = replace(dataset, rewards=np.where(dataset.observations[:, 0] > 0.99, np.float32(100.0), dataset.rewards))
    mine = task(Goal)
    assert misfits(rare, mine, checked_specification(mine)) == []
    observations = dataset.observations.copy()
    observations[dataset.episodes()[0]] = np.array([np.cos(1.0), np.sin(1.0), 0.5], np.float32)
    fixed = task(AlwaysTheSame)
    assert misfits(replace(dataset, observations=observations), fixed, checked_specification(fixed)) == []


class Counting(gymnasium.Wrapper):
    """Fails where it is stepped on and on, as some that count do."""

    opened = 0
    steps = 0

    def __init__(self, env):
        super().__init__(env)
        Counting.opened += 1

    def reset(self, **options):
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action):
        self.steps += 1
        assert self.steps <= 200, "it has to be reset"
        return self.env.step(action)

    def close(self):
        Counting.opened -= 1
        return self.env.close()


def test_what_counts_steps_begins_anew_and_is_closed(task):
    spec = gymnasium.envs.registration.WrapperSpec("Counting", f"{__name__}:Counting", {})
    mine = task(PendulumEnv, additional_wrappers=(spec,))
    assert found(mine) == [] and Counting.opened == 0
    many = np.tile([[1.0, 0.0, 0.5]], (300, 1))
    assert np.ptp(true_step(mine)(many, np.zeros((300, 1)))[1]) == 0


def test_a_termination_that_the_environment_does_not_know(task):
    mine = task(Mine)
    ends = replace(mine, problem=replace(mine.problem, termination=get_task("hopper-medium").problem.termination))
    (only,) = found(ends)
    assert only.startswith("the environment goes on where the task's termination says that an episode ends")


class FourTuple(PendulumEnv):
    def step(self, action):
        return super().step(action)[:4]


class ArrayReward(PendulumEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward, reward]), *rest


class OldReset(PendulumEnv):
    def reset(self, **options):
        return super().reset(**options)[0]


class Column(PendulumEnv):
    def step(self, action):
        observation, *rest = super().step(action)
        return observation[:, None], *rest


@pytest.mark.parametrize(
    "environment, said",
    [
        (FourTuple, "fails at its first step, which must give (observation, reward, terminated, truncated, info) (ValueError"),
        (ArrayReward, "gives reward=array(["),
        (OldReset, "fails at its reset, which must give (observation, info) (ValueError"),
        (Column, "gives observations of shape (3, 1) at its first step: 3 numbers are declared"),
    ],
)
def test_a_broken_step_is_refused_when_a_grid_is_planned(task, environment, said):
    with pytest.raises(UserError) as refused:
        checked_specification(task(environment))
    assert str(refused.value).startswith(f"pendulum-mixed: environment mine/Pendulum-v0 {said}")


class TenTimes(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 10 * reward


class Told(TenTimes):
    def true_step(self, observations, actions):
        return observations, np.full(len(observations), 7.0)


class ByBefore(gymnasium.Wrapper):
    """Pays by the observation before, which no true step can know."""

    before = 0.0

    def step(self, action):
        observation, _, *rest = self.env.step(action)
        paid, self.before = self.before, float(observation[2])
        return observation, paid, *rest


@pytest.mark.parametrize("wrapper", [TenTimes, Told, ByBefore])
def test_wrappers_take_part_in_the_true_step(task, wrapper):
    """That of the wrapper counts, or its step; one that remembers is refused, where it had been ignored."""
    spec = gymnasium.envs.registration.WrapperSpec(wrapper.__name__, f"{__name__}:{wrapper.__name__}", {})
    mine = task(PendulumEnv, additional_wrappers=(spec,))
    observations, actions = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -2.0]]), np.array([[0.5], [-1.0]])
    if wrapper is ByBefore:
        with pytest.raises(UserError, match="cannot be set from an observation"):
            true_step(mine)
        return
    successors, paid = true_step(mine)(observations, actions)
    plain = true_step(PENDULUM)(observations, actions)
    if wrapper is Told:
        assert np.array_equal(successors, observations) and paid.tolist() == [7.0, 7.0]
    else:
        np.testing.assert_allclose(successors, plain[0])
        np.testing.assert_allclose(paid, 10 * plain[1])
