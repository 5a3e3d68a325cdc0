"""Where an environment from outside this package does otherwise than its task says, in a few steps of random actions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from ...common.errors import FOREIGN
from ...common.streams import numpy_stream
from ...tasks.data.dataset import OfflineDataset
from ...tasks.simulation import from_outside, simulate
from ...tasks.task import Task
from ...tasks.terminations import said_by

STEPS, SECONDS = 100, 5.0  # that are tried at most: what a step costs is not known
FAR = 20  # times as large: rewards in another unit


class Step(NamedTuple):
    before: np.ndarray
    action: np.ndarray  # in [-1, 1]
    after: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


def misfits(dataset: OfflineDataset, task: Task, specification: EnvSpec) -> list[str]:
    """What the environment does otherwise, in sentences; empty for one of Gymnasium's or this package's, and for one that fails
    here, as it will in the run, which says where.
    """
    if not from_outside(specification):
        return []
    try:
        return list(_misfits(dataset, task, specification))
    except FOREIGN:
        return []


def _misfits(dataset: OfflineDataset, task: Task, specification: EnvSpec) -> Iterator[str]:
    one, other = (simulate(task, specification) for _ in range(2))
    alike = np.array_equal(one.reset(seed=1)[0], other.reset(seed=2)[0])
    logged = dataset.observations[dataset.episodes()[0]]
    if alike and len(logged) > 1 and np.ptp(logged, axis=0).any():
        yield (
            "the environment starts every episode alike, whatever the seed, and the dataset's episodes do not: its reset must "
            "draw from self.np_random, after super().reset(seed=seed)"
        )
    steps, again = _played(one, task), _played(other, task)
    if any(_differ(*pair) for pair in zip(steps, again, strict=False)):
        yield (
            "two copies of the environment that were reset with one seed and given the same actions differ: it draws from "
            "elsewhere than self.np_random, so that no evaluation can be repeated and columns do not meet the same starts"
        )
    yield from _ends(steps, task)
    yield from _rewards(steps, dataset)


def _played(environment: Any, task: Task) -> list[Step]:
    """The first steps of an episode, with the same seed and actions each time."""
    box, until = task.problem.action_box, time.monotonic() + SECONDS
    actions = numpy_stream(0, "environment", "actions").uniform(-1, 1, (STEPS, task.problem.action_size)).astype(np.float32)
    seen, found = np.asarray(environment.reset(seed=3)[0], np.float32), list[Step]()
    for action in actions[: task.problem.max_episode_steps]:
        after, reward, terminated, truncated, _ = environment.step(box.from_unit(action))
        found.append(Step(seen, action, np.array(after, np.float32), float(reward), bool(terminated), bool(truncated)))
        seen = found[-1].after
        if terminated or truncated or time.monotonic() > until:
            break
    return found


def _differ(one: Step, other: Step) -> bool:
    return not all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in zip(one, other, strict=True))


def _ends(steps: list[Step], task: Task) -> Iterator[str]:
    """Episodes that the environment ends where the task does not, or the other way round."""
    before, actions, after = (torch.tensor(np.stack([getattr(step, name) for step in steps])) for name in Step._fields[:3])
    over = said_by(task.problem.termination, task.name, before, actions, after).tolist()
    limit = task.problem.max_episode_steps
    if steps[-1].terminated and not over[-1]:
        yield (
            f"the environment ends an episode by itself after {len(steps)} steps where the task's termination says that it "
            "goes on: rollouts of a model go on there"
        )
    elif any(place < len(steps) - 1 or not steps[-1].terminated for place, ends in enumerate(over) if ends):
        yield "the environment goes on where the task's termination says that an episode ends: rollouts of a model end there"
    if steps[-1].truncated and len(steps) < limit:
        yield f"the environment stops an episode by itself after {len(steps)} steps, the task's limit is {limit:,}"


def _rewards(steps: list[Step], dataset: OfflineDataset) -> Iterator[str]:
    """Rewards of the dataset that are of another sign or size."""
    paid, logged = np.array([step.reward for step in steps]), dataset.rewards
    low, high = float(paid.min()), float(paid.max())
    sizes = sorted([float(np.abs(paid).max()), float(np.abs(logged).max())])
    apart = logged.min() > high or logged.max() < low
    if len(steps) > 1 and (apart or (sizes[0] > 0 and sizes[1] > FAR * sizes[0])):
        yield (
            f"the environment's rewards of {len(steps)} steps of random actions lie between {low:.4g} and {high:.4g}, the "
            f"dataset's between {logged.min():.4g} and {logged.max():.4g}: another unit, sign or reward, or much more skill"
        )
