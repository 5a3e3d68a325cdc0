"""An algorithm sees rules and a dataset, in the unit box."""

import dataclasses

import numpy as np
import pytest
from mopo_bench.tasks.registry import all_tasks
from mopo_bench.tasks.task import ActionBox, OfflineProblem


def test_an_offline_problem_holds_rules_and_a_batch():
    fields = {field.name for field in dataclasses.fields(OfflineProblem)}
    rules = {"observation_size", "action_size", "termination", "discount", "max_episode_steps"}
    assert fields == {*rules, "dataset"}


@pytest.mark.parametrize("name", sorted(all_tasks()))
def test_a_task_s_problem_has_its_rules(name, problem):
    task = all_tasks()[name]
    offline = task.offline_problem(problem.dataset)
    assert offline.termination is task.problem.termination and offline.discount == task.problem.discount
    assert (offline.observation_size, offline.action_size) == (task.problem.observation_size, task.problem.action_size)
    assert not any(hasattr(value, "step") or hasattr(value, "reset") for value in vars(offline).values())


def test_actions_reach_an_algorithm_in_the_unit_box(problem):
    """A task whose box is [-0.4, 2]: low and high map to -1 and 1, next to nothing else changes."""
    task = all_tasks()["point-angle"]
    task = dataclasses.replace(task, problem=dataclasses.replace(task.problem, action_size=2, action_box=ActionBox(-0.4, 2.0)))
    logged = dataclasses.replace(problem.dataset, actions=(problem.dataset.actions * 1.2 + 0.8).astype(np.float32))
    offline = task.offline_problem(logged)
    np.testing.assert_allclose(offline.dataset.actions, problem.dataset.actions, atol=1e-6)
    assert np.abs(offline.dataset.actions).max() <= 1
    np.testing.assert_array_equal(offline.dataset.rewards, problem.dataset.rewards)
