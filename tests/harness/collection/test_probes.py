"""Returns of behaviour that nobody trained."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from mopo_bench.harness.collection import probes
from mopo_bench.harness.collection.probes import probe_returns
from mopo_bench.harness.runs.plan import make_plan
from mopo_bench.harness.runs.request import RunRequest
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.simulation import checked_specification, simulate
from mopo_bench.tasks.task import ActionBox


def probed(name):
    task = get_task(name)
    return probe_returns(task, checked_specification(task))


def test_returns_are_the_environments(monkeypatch):
    task = get_task("pendulum-mixed")
    returns, environment = [], simulate(task)
    for episode in range(probes.EPISODES):
        environment.reset(seed=probes.derived_seed(0, "probes", episode) % 2**31)
        returns.append(sum(environment.step(np.zeros(1, np.float32))[1] for _ in range(200)))
    found = probed("pendulum-mixed")
    assert found["return_zero"] == pytest.approx(np.mean(returns))
    assert found["return_random"] != found["return_zero"]


def test_they_are_measured_once_and_anew_where_the_cache_is_spoilt(monkeypatch, tmp_path):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path))
    found = probed("point-angle")
    with monkeypatch.context() as patch:
        patch.setattr(probes, "_measured", lambda *_: pytest.fail("measured again"))
        assert probed("point-angle") == found
    path = probes._cached(get_task("point-angle"))
    assert path.parent.parent == tmp_path
    path.write_text("{")
    assert probed("point-angle") == found and path.read_text() != "{"


def test_parameters_of_a_task_have_returns_of_their_own():
    task = get_task("ant-angle")
    assert probes._cached(task) != probes._cached(task.with_parameters(angle=45.0))
    assert probes._cached(get_task("hopper-medium")) == probes._cached(get_task("hopper-random"))  # data aside they are one


def test_no_action_is_the_nearest_that_the_box_has():
    task = get_task("pendulum-mixed")
    lifted = dataclasses.replace(task, problem=dataclasses.replace(task.problem, action_box=ActionBox(1.0, 3.0)))
    for each, unit in ((task, 0.0), (lifted, -1.0)):
        assert (probes._no_action(each)(np.zeros((1, 5, 3))) == np.full((1, 5, 1), unit)).all()


def test_environments_that_no_version_names_are_left_alone():
    specification = gymnasium.envs.registration.EnvSpec("strange/Walk-v0", entry_point="elsewhere.walks:Walk")
    assert probe_returns(get_task("point-angle"), specification) == {}


def test_records_say_them(tmp_path):
    plan = make_plan(RunRequest.of(tasks=["point-angle"], algorithms=["bc"], seeds=[0], steps=10), tmp_path)
    assert probed("point-angle").items() <= plan.cells[0].describe()["data"].items()
