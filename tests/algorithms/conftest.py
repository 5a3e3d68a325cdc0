"""Fixtures of the algorithms' tests; the modules beside this file (support, golden) are top-level names."""

import sys
from pathlib import Path

import pytest
import torch

# --import-mode=importlib leaves this folder off the path; golden.py as a script finds its neighbours the same way
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("mopo_bench.algorithms.learning.testing")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """These tensors are too small to share, and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def problem():
    from mopo_bench.algorithms.learning.testing import small_problem

    return small_problem()


@pytest.fixture(scope="session")
def point_angle():
    """The point-angle batch as a learner sees it."""
    from mopo_bench.tasks.registry import get_task

    task = get_task("point-angle")
    return task.offline_problem(task.recipe.regenerate(task, task.recipe.rows, 0))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
