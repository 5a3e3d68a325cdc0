"""A stranger's termination or environment that was edited is another one: its runs are never taken for those of before."""

import importlib.util
import linecache
import pickle
import subprocess
import sys
from functools import partial

import gymnasium
import mopo_bench
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.wrappers import TimeLimit
from mopo_bench.common.errors import UserError
from mopo_bench.harness.api import plan_run
from mopo_bench.tasks.registry import all_tasks, get_task
from mopo_bench.tasks.simulation import code_of
from mopo_bench.tasks.task import ActionBox, Problem, Task

SOURCE = """
from gymnasium.envs.classic_control.pendulum import PendulumEnv

def fallen(observations, actions, next_observations, limit=0.0):
    return next_observations[..., 0] < limit {rule}
{version}

class Mine(PendulumEnv):
    def step(self, action):
        return super().step(action) {environment}
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """The cell of a task whose module has these edits."""

    def plan(**edits):
        text = SOURCE.format(**{"rule": "", "environment": "", "version": "", **edits})
        path = tmp_path / "strange_module.py"
        path.write_text(text)
        specification = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, path.stem, module)  # where Python looks for the source of a class
        specification.loader.exec_module(module)
        importlib.invalidate_caches()
        linecache.checkcache(str(path))
        monkeypatch.delitem(gymnasium.registry, "strange/Mine-v0", raising=False)
        gymnasium.register("strange/Mine-v0", entry_point=module.Mine)
        rule = partial(module.fallen, limit=-0.9)
        problem = Problem(3, 1, termination=rule, action_box=ActionBox(-2.0, 2.0), max_episode_steps=200)
        task = Task("strange", "strange/Mine-v0", problem, recipe=get_task("pendulum-mixed").recipe)
        (cell,) = plan_run(tasks=task, algorithms="mopo", seeds=1, steps=10, results=tmp_path / "runs").cells
        assert cell.identity  # read while the source is there
        return cell

    return plan


def test_an_edited_rule_or_environment_is_another_identity(planned):
    first, again = planned(), planned()
    rule, environment = planned(rule="+ 0"), planned(environment="+ ()")
    assert first.identity == again.identity
    assert len({first.identity, rule.identity, environment.identity}) == 3
    assert first.rules["termination"].startswith("fallen(limit=-0.9) (version ")
    assert first.describe()["rules"]["environment_code"] != environment.describe()["rules"]["environment_code"]
    # what is fitted knows neither
    assert first.stage_identity("dynamics") == rule.stage_identity("dynamics") == environment.stage_identity("dynamics")


def test_a_plan_tells_of_runs_of_other_code(planned):
    first = planned()
    mopo_bench.run(tasks=first.task, algorithms="bc", seeds=1, steps=10, results=first.results, quiet=True, jobs=1)

    def told(cell, **asked):
        asked = {"algorithms": "bc", "seeds": 2, "steps": 10, "results": cell.results} | asked
        return plan_run(tasks=cell.task, **asked).of_other_code

    assert told(planned()) == []
    assert told(planned(), settings={"learning_rate": 0.5}) == []
    for edit, part in (("rule", "termination"), ("environment", "environment")):
        (line,) = told(planned(**{edit: "+ 0" if edit == "rule" else "+ ()"}))
        assert line.startswith(f"strange bc: other code (the {part}) than that of 1 run in ")


@pytest.mark.parametrize("steps", [None, 0, 2.5])
def test_a_time_limit_that_is_none_is_refused(steps):
    with pytest.raises(UserError, match=r"^max_episode_steps="):
        Problem(3, 1, max_episode_steps=steps)


def test_a_version_of_its_own_stands_for_the_source_of_a_rule(planned):
    one, other = (planned(rule=edit, version="fallen.version = 3") for edit in ("", "+ 0"))
    assert one.rules["termination"] == other.rules["termination"] == "fallen(limit=-0.9) (version 3)"


def test_a_worker_finds_the_same_identity(planned, tmp_path):
    """It unpickles the cell, imports the module anew, and hands on parts of the cell, which know no identity yet."""
    cell = planned()
    (tmp_path / "cell.pickle").write_bytes(pickle.dumps(cell.with_seeds(0)))
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).with_seeds(0).identity)"
    done = subprocess.run(
        [sys.executable, "-c", script, "cell.pickle"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == cell.identity


def test_what_an_environment_is_given_and_wrapped_in_counts():
    class Mine(PendulumEnv):
        pass

    def code(**options):
        return code_of(gymnasium.spec(gymnasium.register("strange/Given-v0", **options) or "strange/Given-v0"))

    wrapper = TimeLimit.wrapper_spec(max_episode_steps=5)
    options = [
        {"entry_point": Mine},
        {"entry_point": Mine, "kwargs": {"g": 9.0}},
        {"entry_point": Mine, "kwargs": {"g": 1.0}},
        {"entry_point": partial(Mine, g=9.0)},
        {"entry_point": partial(Mine, g=1.0)},
        {"entry_point": Mine, "additional_wrappers": (wrapper,)},
    ]
    try:
        codes = []
        for each in options:
            gymnasium.registry.pop("strange/Given-v0", None)
            codes.append(code(**each))
    finally:
        gymnasium.registry.pop("strange/Given-v0", None)
    assert codes[1] == codes[3] and codes[2] == codes[4]
    assert len(set(codes)) == 4 and all(codes)


@pytest.mark.parametrize("name", [name for name, task in all_tasks().items() if task.origin == "mopo_bench"])
def test_rules_of_this_package_are_known_by_their_names(name):
    assert "version" not in get_task(name).identity()["termination"]
