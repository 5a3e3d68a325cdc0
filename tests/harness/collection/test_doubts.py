"""Where a dataset does not fit its task: every slip, made on real datasets, is named, and these themselves are clean."""

from dataclasses import replace
from functools import cache

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection.doubts import doubts
from mopo_bench.harness.runs.plan import facts_of
from mopo_bench.tasks.data.hdf5 import write_hdf5
from mopo_bench.tasks.data.request import DatasetRequest
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.simulation import checked_specification

TASKS = ("pendulum-mixed", "hopper-mixed", "halfcheetah-mixed", "point-edge")


@cache
def parts(name):
    task = get_task(name)
    return load_dataset(task, DatasetRequest()).noting(source="file"), task, checked_specification(task)


def found(name, change=lambda dataset: {}):
    dataset, task, specification = parts(name)
    return doubts(replace(dataset, **change(dataset)), task, specification)


REWARDS, NEXT = "the simulator's rewards differ", "the simulator's next observations differ"
SHUFFLED = "rows are shuffled or shifted"
SLIPS = {
    "rewards a row late": (lambda data: {"rewards": np.roll(data.rewards, 1)}, "rewards are those of the row after"),
    "rewards a row early": (lambda data: {"rewards": np.roll(data.rewards, -1)}, "rewards are those of the row before"),
    "rewards of the wrong sign": (lambda data: {"rewards": -data.rewards}, REWARDS),
    "rewards in another unit": (lambda data: {"rewards": 100 * data.rewards}, REWARDS),
    "actions a row late": (lambda data: {"actions": np.roll(data.actions, 1, axis=0)}, NEXT),
    "actions in another scaling": (lambda data: {"actions": data.actions / 2}, NEXT),
    "observations in degrees": (
        lambda data: {each: 57.3 * getattr(data, each) for each in ("observations", "next_observations")},
        NEXT,
    ),
    "next observations a row late": (lambda data: {"next_observations": np.roll(data.next_observations, 1, axis=0)}, SHUFFLED),
    "next observations that are the observations": (lambda data: {"next_observations": data.observations}, "nothing happens"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_dataset_of_ours_raises_no_doubt(name):
    assert found(name) == []


def test_a_file_that_says_of_which_task_it_is_is_believed():
    """No row tells hopper-medium from hopper-mixed."""
    dataset, _, _ = parts("hopper-mixed")
    other = get_task("hopper-medium")
    said = "the file says itself that it is of hopper-mixed"
    assert doubts(dataset, other) == [said]
    assert doubts(dataset.noting(source="v0"), other) == [] == doubts(dataset.noting(task=None), other)
    own = replace(other, name="mine")
    assert doubts(dataset, own) == [] == doubts(dataset.noting(relabelled={"reward": "mine"}), other)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_of_a_logger_is_named(name, slip):
    change, words = SLIPS[slip]
    assert any(words in each for each in found(name, change)), found(name, change)


def test_the_terminals_are_held_against_the_termination_both_ways():
    dataset, task, _ = parts("hopper-mixed")
    terminal = int((dataset.terminals & dataset.valid_next).sum())
    assert doubts(replace(dataset, terminals=np.zeros_like(dataset.terminals)), task)[:1] == [
        f"{terminal:,} rows are not terminal where the task's termination says that they are"
    ]
    never = get_task("halfcheetah-mixed").problem.termination
    assert doubts(dataset, replace(task, problem=replace(task.problem, termination=never))) == [
        f"{terminal:,} rows are terminal where the task's termination says that they are not"
    ]


def without_next(dataset, **change):
    """As D4RL's files of 2020 are read: the next observation of an episode's last row is not known."""
    ends = dataset.terminals | dataset.timeouts
    return replace(dataset, valid_next=dataset.valid_next & ~ends, extras={}, **change)


def test_terminals_that_no_next_observation_contradicts():
    """All of these had passed without a word in files that store no next observations."""
    dataset, task, _ = parts("halfcheetah-mixed")
    assert doubts(without_next(dataset), task) == []
    ended = without_next(dataset, terminals=dataset.timeouts, timeouts=np.zeros_like(dataset.timeouts))
    assert doubts(ended, task) == [
        f"{int(dataset.timeouts.sum()):,} rows are terminal where the task's termination says that they are not"
    ]
    dataset, task, _ = parts("hopper-mixed")
    assert doubts(without_next(dataset), task) == []
    folded = without_next(dataset, timeouts=dataset.terminals | dataset.timeouts, terminals=np.zeros_like(dataset.terminals))
    (said,) = doubts(folded, task)
    assert "episodes end by a timeout before the task's limit of 1,000 steps" in said and "if these are falls" in said
    # marked once more a row late: the row after the end is an episode of its own
    said = doubts(without_next(dataset, terminals=dataset.terminals | np.roll(dataset.terminals, 1)), task)
    assert any("episodes have one row: their ends may be marked a row late" in each for each in said)


def test_a_file_of_another_task_with_the_same_shapes_is_called_so():
    dataset, _, _ = parts("halfcheetah-mixed")
    said = doubts(dataset, get_task("walker2d-mixed"))
    assert any(each.endswith("this may be a dataset of another task") for each in said)


def numbers(observations, actions, next_observations):
    return next_observations[..., 0]


def of_one_row(observations, actions, next_observations):
    return next_observations[:, 0] > 0.7


def out_of_bounds(observations, actions, next_observations):
    return next_observations[..., 99] > 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (numbers, r"its termination numbers gives float32 of shape \(2, 1\), expected bool of shape \(2, 1\)"),
        (of_one_row, r"its termination of_one_row gives bool of shape \(2, 11\), expected bool of shape \(2, 1\)"),
        (out_of_bounds, r"its termination out_of_bounds fails on tensors of shape \(2, 1, 11\), features last \(IndexError: "),
    ],
)
def test_a_termination_of_another_form_is_refused_before_anything_is_trained(rule, words):
    dataset, task, _ = parts("hopper-mixed")
    with pytest.raises(UserError, match=f"^hopper-mixed: {words}"):
        doubts(dataset, replace(task, problem=replace(task.problem, termination=rule)))


def numpy_rule(observations, actions, next_observations):
    return next_observations.numpy()[..., 0] > 0.7


def test_a_rule_of_numpy_is_refused_too():
    dataset, task, _ = parts("hopper-mixed")
    with pytest.raises(UserError, match=r"numpy_rule gives a ndarray, expected bool of shape \(2, 1\)"):
        doubts(dataset, replace(task, problem=replace(task.problem, termination=numpy_rule)))


def test_a_window_that_leaves_nothing_out_keeps_the_doubts(tmp_path):
    dataset, task, specification = parts("pendulum-mixed")
    file = tmp_path / "late.hdf5"
    write_hdf5(replace(dataset, rewards=np.roll(dataset.rewards, 1)), file)
    for window in ("all", "last_1m"):
        facts = facts_of(task, DatasetRequest(file=file, window=window), specification)
        (doubt,) = facts["doubts"]
        assert "those of the row after" in doubt


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_a_few_rows_are_too_few_for_the_simulator(rows):
    dataset, task, specification = parts("pendulum-mixed")
    assert doubts(dataset.head(rows), task, specification) == []


class Lagging(PendulumEnv):
    """Fails where its state is set to what Pendulum's would be."""

    def step(self, action):
        angle, velocity, lag = self.state
        raise AssertionError(angle, velocity, lag)


class Misshapen(PendulumEnv):
    def true_step(self, observations, actions):
        return observations, np.zeros((len(observations), 1))


@pytest.mark.parametrize(("environment", "said"), [(Lagging, []), (Misshapen, ["the environment's true_step gives shapes"])])
def test_a_simulator_that_fails_ends_no_plan(environment, said):
    dataset, task, _ = parts("pendulum-mixed")
    gymnasium.register("strange/Fails-v0", entry_point=environment)
    try:
        found = doubts(dataset, replace(task, environment="strange/Fails-v0"), gymnasium.spec("strange/Fails-v0"))
    finally:
        del gymnasium.registry["strange/Fails-v0"]
    assert [each[: len(words)] for each, words in zip(found, said, strict=True)] == said
