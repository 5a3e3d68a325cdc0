"""The examples, installed beside the package as a user installs them, and run away from the checkout."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms
from mopo_bench.tasks.registry import all_tasks
from mopo_bench.testing import check_contract, check_resumes, small_problem

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
GRID = ("--tasks", "my-task", "--algorithms", "td3-bc,weighted-cloning,bc,mopo", "--seeds", "2", "--jobs", "2", "--rows", "600")
SMALL = ("hidden=16,16", "value.epochs=3", "dynamics.max_epochs=2", "rollout_states=100")
BUDGET = ("--steps", "20", "--evaluate-every", "10", "--episodes", "2", *(word for each in SMALL for word in ("--set", each)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with all three installed."""
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLES, sources / "examples")  # building leaves files beside what is built
    folders = [str(path.parent) for path in sorted((sources / "examples").glob("*/pyproject.toml"))]
    assert len(folders) == 3
    quietly = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *quietly, *folders], check=True, timeout=300)
    return target


@pytest.fixture(scope="module")
def mopo_bench(installed, tmp_path_factory):
    """Runs a command where the examples are installed; gives what it printed on standard output."""
    folder, program = tmp_path_factory.mktemp("elsewhere"), "from mopo_bench.harness.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "80"}

    def run(*words):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and "left out" not in done.stderr, done.stdout + done.stderr
        return done.stdout

    return run


def test_all_three_are_run_and_reported(mopo_bench, installed, tmp_path):
    log = str(tmp_path / "log.hdf5")
    subprocess.run([sys.executable, str(installed / "my_task.py"), log], check=True, timeout=300)
    planned = mopo_bench("run", *GRID, *BUDGET, "--dry-run")
    assert "8 runs and 4 fits" in planned and "Not counted" not in planned, planned
    mopo_bench("run", *GRID, *BUDGET)
    again = mopo_bench("run", *GRID, *BUDGET)
    assert "Everything was done already." in again, again
    table = mopo_bench("table", "scores")
    for said in ("TD3+BC", "Weighted BC", "BC", "MOPO", "mopo minus td3-bc", "mopo minus weighted-cloning", "thermostats"):
        assert said in table, table
    mopo_bench("run", "--tasks", "my-task", "--algorithms", "bc", *BUDGET[:6], "--dataset", log, "--results", "named")
    assert "rewards of my-task (price=0.3)" in mopo_bench("table", "scores", "--results", "named")
    status = mopo_bench("status")
    assert all(name in status for name in ("my-task", "td3-bc", "weighted-cloning")), status
    assert "td3_bc" in mopo_bench("list", "algorithms") and "my_task" in mopo_bench("list", "tasks")


@pytest.fixture
def example(monkeypatch):
    """Imports one, whose names are forgotten after the test."""
    known = [(all_algorithms(), set(all_algorithms())), (all_tasks(), set(all_tasks()))]

    def load(name):
        monkeypatch.syspath_prepend(EXAMPLES / name)
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield load
    for registry, before in known:
        for name in set(registry) - before:
            del registry[name]
    gymnasium.registry.pop("my_task/HeatedRoom-v0", None)


def test_weighted_cloning_keeps_the_contract(example):
    module = example("weighted_cloning")
    check_contract(all_algorithms()["weighted-cloning"], None, **{"value.epochs": 2})
    check_resumes(module.Value, small_problem(), module.Value.Config(epochs=4, hidden=(8,)), at=1)


def test_the_task_s_dataset_is_its_environment_s(example):
    """Replayed row by row, the environment pays the reward that the dataset has, and ends where the rule says."""
    example("my_task")
    task = all_tasks()["my-task"].with_parameters(price=0.7)
    dataset = task.recipe.regenerate(task, 2_000, 0)
    environment = gymnasium.make(task.environment, **task.parameters).unwrapped
    environment.reset(seed=0)
    for row in range(len(dataset)):
        environment.state, environment.steps = dataset.observations[row], 0
        following, reward, terminal, _, _ = environment.step(dataset.actions[row])
        assert following[0] == dataset.next_observations[row, 0] and terminal == dataset.terminals[row]
        assert reward == pytest.approx(dataset.rewards[row], abs=1e-5)
    ended = task.problem.termination(dataset.observations, dataset.actions, dataset.next_observations)
    np.testing.assert_array_equal(ended, dataset.terminals)
    assert dataset.terminals.any() and dataset.timeouts.any()
