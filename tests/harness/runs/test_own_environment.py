"""A stranger's environment: checked when the grid is planned, and evaluated as a plain Gymnasium loop would."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward
from mopo_bench.common.errors import UserError
from mopo_bench.harness.api import plan_run
from mopo_bench.harness.runs.evaluation import Evaluator
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.simulation import checked_specification, simulate
from mopo_bench.tasks.task import ActionBox, Problem, Task


class Walk(gymnasium.Env):
    """One point a step; truncates by itself after 10 steps. `box`: of its actions."""

    def __init__(self, size=2, actions=None, limit=10):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = actions or gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.size, self.limit = size, limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.size), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(self.size), 1.0, False, self.steps >= self.limit, {}


@pytest.fixture
def registered():
    """Registers an entry point under a name of its own, for one test."""
    names = []

    def register(entry_point, **options):
        names.append(f"strange/Env{len(names)}-v0")
        gymnasium.register(names[-1], entry_point=entry_point, **options)
        return names[-1]

    yield register
    for name in names:
        del gymnasium.registry[name]


def task(environment, **problem):
    return Task(
        "strange", environment, Problem(**{"observation_size": 2, "action_size": 1, "max_episode_steps": 50, **problem})
    )


def gymnasium_return(name):
    environment = gymnasium.make(name)
    environment.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        _, reward, terminated, truncated, _ = environment.step(np.zeros(1, np.float32))
        total, ended = total + reward, terminated or truncated
    return total


@pytest.mark.parametrize(
    "entry_point, options, horizon, expected",
    [
        (Walk, {}, 50, 10),
        (lambda: TransformReward(Walk(), lambda reward: 100 * reward), {}, 50, 1000),
        (lambda: TransformReward(Walk(limit=50), lambda reward: 10 * reward), {}, 50, 500),
        (lambda: Walk(limit=10**9), {"max_episode_steps": 7}, 7, 7),
        (lambda: TransformReward(Walk(limit=10**9), lambda reward: 2 * reward), {"max_episode_steps": 7}, 7, 14),
    ],
)
def test_evaluated_as_gymnasium_does(entry_point, options, horizon, expected, registered):
    name = registered(entry_point, **options)
    evaluator = Evaluator(task(name, max_episode_steps=horizon))
    returns = evaluator.returns(lambda seen: np.zeros((*seen.shape[:2], 1), np.float32), [[0, 1]])
    assert gymnasium_return(name) == expected
    np.testing.assert_array_equal(returns, [[expected, expected]])


def test_standard_wrappers_are_left_out():
    """Which is what makes a step of MuJoCo's environments fast."""
    environment = simulate(get_task("hopper-medium"))
    assert environment is environment.unwrapped


@pytest.mark.parametrize(
    "entry_point, problem, word",
    [
        (lambda: Walk(size=3), {}, "observations of 3 numbers where the task declares 2"),
        (lambda: Walk(actions=gymnasium.spaces.Discrete(3)), {}, "a vector of real numbers"),
        (lambda: Walk(actions=gymnasium.spaces.Box(-1, 1, (2,))), {}, "actions of 2 numbers"),
        (
            lambda: Walk(actions=gymnasium.spaces.Box(-2, 2, (1,))),
            {},
            r"in \[-2, 2\] where the task declares \[-1, 1\]",
        ),
        (lambda: Walk(actions=gymnasium.spaces.Box(-2, 2, (1,))), {"action_box": ActionBox(-2.0, 1.0)}, "action_box"),
        (lambda: 1 / 0, {}, "cannot be made .ZeroDivisionError"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(entry_point, problem, word, registered, tmp_path):
    with pytest.raises(UserError, match=word) as refused:
        checked_specification(task(registered(entry_point), **problem))
    assert "\n" not in str(refused.value)


def test_another_time_limit_is_refused(registered):
    name = registered(Walk, max_episode_steps=10)
    with pytest.raises(UserError, match="stops after 10 steps where the task declares max_episode_steps=50"):
        checked_specification(task(name))
    assert checked_specification(task(name, max_episode_steps=10)).id == name


def test_no_such_environment_is_refused_when_planned(tmp_path):
    with pytest.raises(UserError, match="strange: environment nowhere/None-v0 cannot be made"):
        checked_specification(task("nowhere/None-v0"))


@pytest.mark.parametrize("name", ["point-angle", "pendulum-mixed", "hopper-random", "halfcheetah-jump", "ant-angle"])
def test_own_tasks_fit_their_environments(name):
    assert checked_specification(get_task(name)).id == get_task(name).environment


PAGE = Path(__file__).resolve().parents[3] / "docs" / "your-own-task.md"


@pytest.mark.parametrize("beside", ["", "evaluation_processes=1, "])
def test_the_page_s_script_runs(beside, tmp_path):
    """It has no main guard, nothing but itself can import its classes, and it works in two processes."""
    (script,) = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "own.py").write_text(script.replace("jobs=2,", f"jobs=2, {beside}"))
    done = subprocess.run([sys.executable, "own.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| drift"))
    assert "return" in row and row.count("±") == 2
    assert {run.state for run in load_runs(tmp_path / "runs")} == {"done"} and len(load_runs(tmp_path / "runs")) == 4


def test_parameters_are_set_by_name(tmp_path):
    options = {"tasks": "ant-angle,hopper-random", "algorithms": "bc", "rows": 200, "results": tmp_path}
    ant, hopper = plan_run(**options, task_set=["ant-angle.angle=45", "hopper-random.termination=hopper-released"]).cells
    assert ant.task.parameters["angle"] == 45.0 and ant.task.identity()["parameters"]["angle"] == 45.0
    assert hopper.task.identity()["termination"] == "hopper_released"
    usual = plan_run(**options).cells
    assert {ant.identity, hopper.identity}.isdisjoint(cell.identity for cell in usual)


@pytest.mark.parametrize(
    "setting, word",
    [
        ("ant-angle.angel=45", "'angle'"),
        ("ant-angle.angle=wide", "a number"),
        ("ant-angle=45", "TASK.PARAMETER=VALUE"),
        ("ant-angel.angle=45", "'ant-angle'"),
        ("hopper-random.angle=45", "TASK.PARAMETER=VALUE"),
        ("ant-angle.termination=ants", "'ant'"),
        ("ant-angle.healthy_z_range=1", "2 values"),
    ],
)
def test_wrong_parameters_are_refused(setting, word, tmp_path):
    with pytest.raises(UserError, match=word):
        plan_run(tasks="ant-angle", algorithms="bc", rows=200, results=tmp_path, task_set=[setting])
