"""Where an environment from outside this package does otherwise than its task says, in a few steps of random actions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from ...common.errors import FOREIGN, several
from ...common.streams import numpy_stream
from ...tasks.data.dataset import OfflineDataset
from ...tasks.simulation import from_outside, simulate
from ...tasks.task import Task
from ...tasks.terminations import said_by

STEPS, SECONDS = 100, 5.0  # that are tried at most: what a step costs is not known
RESETS = 10  # of two copies, that may all be alike
FAR = 20  # times as large, in the median and at the most: rewards in another unit


class Step(NamedTuple):
    before: np.ndarray
    action: np.ndarray  # in [-1, 1]
    after: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


def misfits(dataset: OfflineDataset, task: Task, specification: EnvSpec) -> list[str]:
    """What the environment does otherwise, in sentences; empty for one of Gymnasium's or this package's.

    One that fails here is asked no further: it fails in the run, too, which says where.
    """
    found = list[str]()
    if from_outside(specification):
        with suppress(*FOREIGN), ExitStack() as opened:
            copies = [opened.enter_context(closing(simulate(task, specification))) for _ in range(2)]
            for said in _misfits(dataset, task, *copies):
                found.append(said)
    return found


def _misfits(dataset: OfflineDataset, task: Task, one: Any, other: Any) -> Iterator[str]:
    until = time.monotonic() + SECONDS
    logged = dataset.observations[dataset.episodes()[0][bool(dataset.provenance.get("starts_within_an_episode")) :]]
    if len(logged) > 1 and np.ptp(logged, axis=0).any() and _starts_alike(one, other, until):
        yield (
            "the environment starts every episode alike, whatever the seed, and the dataset's episodes do not: its reset must "
            "draw from self.np_random, after super().reset(seed=seed)"
        )
    steps, again = _played(one, task, until), _played(other, task, until)
    if any(_differ(*pair) for pair in zip(steps, again, strict=False)):
        yield (
            "two copies of the environment that were reset with one seed and given the same actions differ: it draws from "
            "elsewhere than self.np_random, so that no evaluation can be repeated and columns do not meet the same starts"
        )
    yield from _ends(steps, task)
    yield from _rewards(steps, dataset)


def _starts_alike(one: Any, other: Any, until: float) -> bool:
    """Whether two copies that are reset with other seeds show the same, again and again; not where that takes too long."""
    for seed in range(RESETS):
        if time.monotonic() > until or not np.array_equal(one.reset(seed=seed)[0], other.reset(seed=seed + RESETS)[0]):
            return False
    return True


def _played(environment: Any, task: Task, until: float) -> list[Step]:
    """The first steps of an episode, with the same seed and actions each time; one at least."""
    box = task.problem.action_box
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
            f"the environment ends an episode by itself after {several(len(steps), 'step')} where the task's termination says "
            "that it goes on: rollouts of a model go on there"
        )
    elif any(place < len(steps) - 1 or not steps[-1].terminated for place, ends in enumerate(over) if ends):
        yield "the environment goes on where the task's termination says that an episode ends: rollouts of a model end there"
    if steps[-1].truncated and len(steps) < limit:
        yield f"the environment stops an episode by itself after {several(len(steps), 'step')}, the task's limit is {limit:,}"


def _rewards(steps: list[Step], dataset: OfflineDataset) -> Iterator[str]:
    """Rewards of the dataset that are of another sign or size."""
    paid, logged = np.array([step.reward for step in steps]), dataset.rewards
    opposite = paid.max() < 0 < logged.min() or logged.max() < 0 < paid.min()
    sizes = [np.array([np.median(np.abs(each)), np.abs(each).max()]) for each in (paid, logged)]
    larger = any((few > 0).all() and (many > FAR * few).all() for few, many in (sizes, sizes[::-1]))
    if opposite or larger:
        yield (
            f"the environment's rewards of {several(len(steps), 'step')} of random actions lie between {paid.min():.4g} and "
            f"{paid.max():.4g}, the dataset's between {logged.min():.4g} and {logged.max():.4g}: another unit, sign or reward"
        )
