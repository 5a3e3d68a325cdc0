"""Where a dataset does not fit its task: its terminals, its rows and the simulator say different things of a transition.

Each is a sentence for who reads numbers of this dataset. None is a fault: a log may be noisy, or of another simulator.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from ...common.errors import FOREIGN, several
from ...common.streams import numpy_stream
from ...tasks.data.dataset import TIMEOUT_INFERRED, OfflineDataset
from ...tasks.data.episodes import jumps
from ...tasks.registry import all_tasks
from ...tasks.task import Task
from ...tasks.terminations import never, said_by
from ...tasks.true_step import true_step
from .environments import misfits

SLICE = 100_000  # rows examined together, so that a dataset of millions is examined in bounded memory
ROWS, FEWEST = 100, 10  # that the simulator repeats: at most, and at least
FAR = 0.1  # of what a quantity varies by: so large a median difference is not the rounding of a log
MANY = 0.01  # of the rows or episodes: fewer may be slips of a logger

_CAUSES = (
    "other units or another scaling of observations or actions, a shift by a row, another task's rows, or another simulator"
)


def doubts(dataset: OfflineDataset, task: Task, specification: EnvSpec | None = None) -> list[str]:
    """What does not fit, in sentences. With the environment's specification a file of the user's is held against its simulator,
    too, where that can be asked, and an environment from outside against the task.

    Raises UserError for a termination that cannot be asked.
    """
    found = [*_of_the_name(dataset, task), *_of_the_rule(dataset, task), *_of_the_ends(dataset, task), *_of_the_rows(dataset)]
    if specification is not None:
        if dataset.provenance.get("source") == "file":
            found += _of_the_simulator(dataset, task, specification)
        found += misfits(dataset, task, specification)
    return found


def _of_the_name(dataset: OfflineDataset, task: Task) -> Iterator[str]:
    """That a file says itself that it is of another of D4RL's tasks: no row tells hopper-medium from hopper-mixed."""
    said, ours = dataset.provenance.get("task"), {name for name, each in all_tasks().items() if each.recipe.files}
    named = dataset.provenance.get("source") == "file" and isinstance(said, str) and {said, task.name} <= ours
    if named and said != task.name and "relabelled" not in dataset.provenance:
        yield f"the file says itself that it is of {said}"


def _of_the_rule(dataset: OfflineDataset, task: Task) -> Iterator[str]:
    """The rows that end by the file and not by the task's termination, and the other way round."""
    pair = [np.stack([array[:1], array[:1]]) for array in _transitions(dataset, task, slice(0, 1))]
    said_by(task.problem.termination, task.name, *map(torch.tensor, pair))  # it has to take any leading axes
    stored_only = ruled_only = 0
    for first in range(0, len(dataset), SLICE):
        rows = slice(first, first + SLICE)
        over = said_by(task.problem.termination, task.name, *map(torch.tensor, _transitions(dataset, task, rows))).numpy()
        # elsewhere the next observation is not known, which a rule that ends nothing need not see
        stored, known = dataset.terminals[rows], dataset.valid_next[rows] | (task.problem.termination is never)
        stored_only += int((stored & ~over & known).sum())
        ruled_only += int((over & ~stored & known).sum())
    if stored_only:
        yield f"{stored_only:,} rows are terminal where the task's termination says that they are not"
    if ruled_only:
        of = ": this may be a dataset of another task" if ruled_only > len(dataset) / 2 else ""
        yield f"{ruled_only:,} rows are not terminal where the task's termination says that they are{of}"


def _of_the_ends(dataset: OfflineDataset, task: Task) -> Iterator[str]:
    """Episodes of a single row, and timeouts that are none: what a file says where no next observation could contradict it."""
    ends = np.flatnonzero(dataset.terminals | dataset.timeouts)
    lengths = np.diff(ends, prepend=-1)
    whole = (ends > 0) & (ends < len(dataset) - 1)  # a window may cut the first episode, and the end of the file the last
    whole[:1] = False
    few = MANY * len(ends)
    single = int((whole & (lengths == 1)).sum())
    if single > max(1, few) and task.problem.max_episode_steps > 1:
        yield f"{single:,} of {len(ends):,} episodes have one row: their ends may be marked a row late"
    every = dataset.episode_lengths()
    if (long := every[every > task.problem.max_episode_steps]).size:
        yield (
            f"{len(long):,} of {several(len(every), 'episode')} go on beyond the task's limit of "
            f"{task.problem.max_episode_steps:,} steps, up to {long.max():,}: unmarked ends, or another limit than the task's"
        )
    limit, inferred = task.problem.max_episode_steps, dataset.extras.get(TIMEOUT_INFERRED)
    early = whole & ~dataset.terminals[ends] & (lengths < limit)
    if inferred is not None:  # these the file does not mark
        early &= inferred[ends] == 0
    if task.problem.termination is not never and early.sum() > few and len(set(lengths[early])) > 1:
        yield (
            f"{int(early.sum()):,} of {len(ends):,} episodes end by a timeout before the task's limit of {limit:,} steps, "
            f"after {lengths[early].min():,} to {lengths[early].max():,}: if these are falls, they are terminals"
        )


def _transitions(dataset: OfflineDataset, task: Task, rows: slice) -> tuple[np.ndarray, ...]:
    actions = task.problem.action_box.to_unit(dataset.actions[rows])
    return dataset.observations[rows], actions, dataset.next_observations[rows]


def _of_the_rows(dataset: OfflineDataset) -> Iterator[str]:
    """Next observations that are no other than the observations, or not those with which the next row begins."""
    usable = int(dataset.valid_next.sum())
    still = int(((dataset.observations == dataset.next_observations).all(axis=1) & dataset.valid_next).sum())
    if still > usable / 2:
        yield f"in {still:,} of {usable:,} rows the next observation is the observation: nothing happens there"
    inside = dataset.followed()
    apart = int((jumps(dataset.observations, dataset.next_observations) & inside).sum())
    if apart > MANY * inside.sum():
        yield (
            f"in {apart:,} of {int(inside.sum()):,} rows inside of episodes the next observation is not that of the next row: "
            "rows are shuffled or shifted, so that returns of episodes mean nothing"
        )


def _of_the_simulator(dataset: OfflineDataset, task: Task, specification: EnvSpec) -> Iterator[str]:
    """What one step of the simulator gives otherwise than the rows say; nothing where it cannot be set to an observation."""
    inside = dataset.followed()
    inside[1:], inside[0] = inside[1:] & inside[:-1], False  # the rows before and after are of the same episode
    rows = np.sort(numpy_stream(0, "doubts").permutation(np.flatnonzero(inside))[:ROWS])
    if len(rows) < FEWEST:
        return
    before, after = (array[rows].astype(np.float64) for array in (dataset.observations, dataset.next_observations))
    try:
        step = true_step(task, specification)
    except FOREIGN:  # it cannot be set to an observation
        return
    try:
        successors, rewards = step(before, task.problem.action_box.to_unit(dataset.actions[rows]).astype(np.float64))
        if np.shape(successors) != after.shape or np.shape(rewards) != rows.shape:
            yield (
                f"the environment's true_step gives shapes {np.shape(successors)} and {np.shape(rewards)}, expected "
                f"{after.shape} and {rows.shape}: the rows were not held against it"
            )
            return
    except FOREIGN as error:
        yield f"the simulator cannot take a step from the observations of its rows ({type(error).__name__}): {_CAUSES}"
        return
    moved = np.abs(after - before)
    scales = np.maximum(moved.mean(axis=0) + moved.std(axis=0), FAR * before.std(axis=0) + 1e-6)
    away = float(np.median((np.abs(successors - after) / scales).max(axis=1)))
    if not away <= FAR:  # nor is NaN
        yield (
            f"the simulator's next observations differ from those of {len(rows)} rows by {away:.2g} times what a step changes "
            f"(median): {_CAUSES}"
        )
    off, earlier, later = (float(np.median(np.abs(rewards - dataset.rewards[rows + shift]))) for shift in (0, -1, 1))
    varies = float(np.std(dataset.rewards[rows]))
    if min(earlier, later) < off / 3:
        row = "before" if earlier < later else "after"
        yield f"the simulator's rewards are those of the row {row}, not those of the row itself: shifted by a step"
    elif not off <= FAR * max(varies, 1e-6):
        yield (
            f"the simulator's rewards differ from those of {len(rows)} rows by {off:.3g} (median), which vary by {varies:.3g}: "
            "another unit, sign or reward, noise, or another simulator"
        )
