"""Evaluates the bundled policies; `results/collection/actors.csv` is a table of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...common.streams import derived_seed
from ...tasks.data import BUNDLED
from ...tasks.data.behaviour_policies import BehaviourPolicy, bundled_policy
from ...tasks.registry import get_task
from ..runs.evaluation import Evaluator
from ..runs.machine import prepare_process


def bundled_names() -> list[str]:
    """The names of all policies that come with the package."""
    return sorted(path.name.removesuffix(".npz") for path in BUNDLED.iterdir() if path.name.endswith(".npz"))


def _mode(policy: BehaviourPolicy, observations: np.ndarray) -> np.ndarray:
    return policy(observations[0])[None]


def evaluate_actors(episodes: int) -> Iterator[dict[str, Any]]:
    """A row for each bundled policy: returns of its mode over `episodes` episodes of the environment it was trained in.

    Every policy of a task meets the same starts. `trained_return` is what 10 episodes gave when it was saved.
    """
    prepare_process()
    for name in bundled_names():
        policy = bundled_policy(name)
        about, task = policy.about, get_task(policy.about["task"]).as_collected()
        seeds = [derived_seed(0, "bundled actors", episode) % 2**31 for episode in range(episodes)]
        returns = Evaluator(task).returns(partial(_mode, policy), [seeds])[0]
        yield {
            "file": f"{name}.npz",
            "environment": task.environment,
            "seed": about["seed"],
            "steps": about["steps"],
            "trained_return": round(about["return_mean"], 1),
            "episodes": episodes,
            "return_mean": round(float(returns.mean()), 1),
            "return_std": round(float(returns.std(ddof=1)), 1),
            "score": round(task.references.score(float(returns.mean())), 1) if task.references else None,
        }
