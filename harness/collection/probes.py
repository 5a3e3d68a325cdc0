"""What comes of learning nothing: returns of the zero action and of random actions in a task's environment.

A policy that beats the best episode of a dataset may have learned no more than to stand still; these two say so.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec

from ...common.errors import WriteError
from ...common.files import replace_file
from ...common.streams import derived_seed, numpy_stream
from ...tasks.data.d4rl import cache_folder
from ...tasks.simulation import from_outside
from ...tasks.task import Task
from ..runs.evaluation import Act, Evaluator
from ..runs.records import identity_hash, plain

EPISODES = 10
VERSION = 1  # raised by hand when the same task would give other returns; they are then measured anew


def probe_returns(task: Task, specification: EnvSpec) -> dict[str, float]:
    """`return_zero` and `return_random`: mean undiscounted returns of 10 episodes each, by the task's own reward.

    Kept in the data cache, by the task's rules and the versions of the simulators. Empty for an environment of another package
    than Gymnasium and this one: its code can change under the same name, and what a step of it costs is not known.
    """
    if from_outside(specification):
        return {}
    path = _cached(task)
    with suppress(OSError, ValueError):  # not measured yet, or unreadable
        return json.loads(path.read_text())
    found = _measured(task, specification)
    with suppress(WriteError):  # without a cache they are measured again next time
        replace_file(path, lambda temporary: temporary.write_text(json.dumps(found) + "\n"))
    return found


def _measured(task: Task, specification: EnvSpec) -> dict[str, float]:
    evaluator = Evaluator(task, specification)
    seeds = [derived_seed(0, "probes", episode) % 2**31 for episode in range(EPISODES)]
    acts = {"return_zero": _no_action(task), "return_random": _random_actions(task)}
    return {name: float(evaluator.returns(act, [seeds]).mean()) for name, act in acts.items()}


def _no_action(task: Task) -> Act:
    """The environment's zero action, or what of its box is nearest to it."""
    zero = task.problem.action_box.to_unit(np.zeros(task.problem.action_size, np.float32))
    return lambda observations: np.broadcast_to(zero, (*observations.shape[:-1], task.problem.action_size))


def _random_actions(task: Task) -> Act:
    """Uniform in the action box, by a stream of their own."""
    generator = numpy_stream(0, "probes", "actions")
    return lambda observations: generator.uniform(-1, 1, (*observations.shape[:-1], task.problem.action_size))


def _cached(task: Task) -> Path:
    """Where a task's returns are kept; tasks that differ by their data alone share them."""
    rules = {key: value for key, value in plain(task.identity()).items() if key != "task"}
    identity = {**rules, "version": VERSION, "simulators": [gymnasium.__version__, mujoco.__version__, np.__version__]}
    return cache_folder() / "probes" / f"{task.environment.rpartition('/')[2]}-{identity_hash(identity)}.json"
