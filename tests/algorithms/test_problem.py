"""An algorithm sees rules and a batch, never an environment; and imports run one way: tasks, algorithms, harness."""

import ast
import dataclasses
from pathlib import Path

import mopo_bench
import numpy as np
import pytest
from mopo_bench.tasks.registry import all_tasks
from mopo_bench.tasks.task import OfflineProblem

ROOT = Path(mopo_bench.__file__).parent
FOLDERS = ("tasks", "algorithms", "harness")  # each imports from itself and those before it
SIMULATORS = {"gymnasium", "gym", "mujoco", "dm_control"}


class DropFunctions(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        return None


def imports(path, in_functions=True):
    """Dotted names that a file imports; `from a import b` gives a and a.b, relative ones made absolute."""
    package = ["mopo_bench", *path.relative_to(ROOT).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree if in_functions else DropFunctions().visit(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def file_of(name):
    """The file of a module of this package, or None: a name within a module, or another package's."""
    if name.split(".")[0] != "mopo_bench":
        return None
    path = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def sources(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", sources("algorithms"), ids=lambda path: path.name)
def test_algorithms_import_no_environment(path):
    names = imports(path)
    assert not {name.split(".")[0] for name in names} & SIMULATORS
    forbidden = ("mopo_bench.tasks.environments", "mopo_bench.tasks.behaviour", "mopo_bench.tasks.catalog")
    assert not [name for name in names if name.startswith(forbidden)]


def test_importing_the_algorithms_imports_no_environment():
    """Nor does what they import. `all_tasks` imports the catalogue, and so the environments, only when it is called."""
    reached, waiting = set(), sources("algorithms")
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        names = imports(path, in_functions=False)
        assert not {name.split(".")[0] for name in names} & SIMULATORS, path.name
        waiting += filter(None, map(file_of, names))
    assert ROOT / "tasks" / "dataset.py" in reached


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder):
    allowed = set(FOLDERS[: FOLDERS.index(folder) + 1])
    for path in sources(folder):
        parts = [name.split(".") for name in imports(path)]
        used = {name[1] for name in parts if name[0] == "mopo_bench" and len(name) > 1}
        assert used & set(FOLDERS) <= allowed, f"{path.name} imports {used & set(FOLDERS) - allowed}"
        assert not {name[0] for name in parts} & {"tests", *FOLDERS}  # the top-level folders are mopo_bench.*


def test_the_reader_of_imports_sees_relative_and_inner_ones():
    """Or the tests above would pass on anything."""
    found = imports(ROOT / "algorithms" / "mbpo.py")
    assert {"torch", "mopo_bench.tasks.streams", "mopo_bench.algorithms.dynamics.Dynamics"} <= found
    inner = "mopo_bench.harness.tables"
    assert inner in imports(ROOT / "harness" / "api.py")
    assert inner not in imports(ROOT / "harness" / "api.py", in_functions=False)
    assert file_of("mopo_bench.algorithms.dynamics") == ROOT / "algorithms" / "dynamics.py"


def test_an_offline_problem_holds_rules_and_a_batch():
    fields = {field.name for field in dataclasses.fields(OfflineProblem)}
    rules = {"observation_size", "action_size", "termination", "discount", "max_episode_steps"}
    assert fields == {*rules, "batch"}


@pytest.mark.parametrize("name", sorted(all_tasks()))
def test_a_task_s_problem_has_its_rules(name, problem):
    task = all_tasks()[name]
    offline = task.offline_problem(problem.batch)
    assert offline.termination is task.termination and offline.discount == task.discount
    assert (offline.observation_size, offline.action_size) == (task.observation_size, task.action_size)
    assert not any(hasattr(value, "step") or hasattr(value, "reset") for value in vars(offline).values())


def test_actions_reach_an_algorithm_in_the_unit_box(problem):
    """A task whose box is [-0.4, 2]: low and high map to -1 and 1, next to nothing else changes."""
    task = dataclasses.replace(all_tasks()["point-angle"], action_low=-0.4, action_high=2.0, action_size=2)
    logged = dataclasses.replace(problem.batch, actions=(problem.batch.actions * 1.2 + 0.8).astype(np.float32))
    offline = task.offline_problem(logged)
    np.testing.assert_allclose(offline.batch.actions, problem.batch.actions, atol=1e-6)
    assert np.abs(offline.batch.actions).max() <= 1
    np.testing.assert_array_equal(offline.batch.rewards, problem.batch.rewards)
