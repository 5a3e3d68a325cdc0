"""Finds from the data where episodes end, for logs that do not store it, such as D4RL's files of 2020, or store it wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BY_DATA, BY_COUNT = 1, 2  # the bits of what `infer_timeouts` returns
_SLICE = 65_536  # rows examined together: some 100 MB of working memory, however long the file
_ROUNDING = 1e-6  # by which a next observation may differ from the next row's, relative to 1 or its size, and be the same


@dataclass(frozen=True)
class Kinematics:
    """How the observations of a domain move: [positions, x velocity, velocities of those positions], in m and rad.

    A reset draws around the resting pose, in which all positions are 0 but the first, the torso's height.
    """

    positions: int
    timestep: float  # of the environment, s
    height: float
    spread: tuple[float, float]  # farthest that positions and velocities are from rest right after a reset
    still: float  # a row that looks like a reset is one if some position is this far off its course, or farther
    jump: tuple[float, ...]  # by position: farther off its course than this is a break, whatever the row looks like
    speed_limit: float = np.inf  # at which the observation clips velocities


# Resets are those of the environments' code, uniform in their bounds but for halfcheetah's velocities: normal, so 5 sigma,
# which one reset in 200 000 exceeds; at 6 some second rows would pass. Each `jump` is about twice the most that was measured
# within episodes (`breaks`).
KINEMATICS = {
    "halfcheetah": Kinematics(8, 0.05, 0.0, (0.1, 0.5), 0.01, (0.2, 0.5, *6 * (1.5,))),
    "hopper": Kinematics(5, 0.008, 1.25, (0.005, 0.005), 1e-4, (0.001, *4 * (0.01,)), 10.0),
    "walker2d": Kinematics(8, 0.008, 1.25, (0.005, 0.005), 1e-4, (0.005, *7 * (0.06,)), 10.0),
}


def breaks(observations: np.ndarray, kinematics: Kinematics, rows_at_once: int = _SLICE) -> np.ndarray:
    """Marks the rows i of `observations` (N, columns) after which row i + 1 does not follow, (N,) bool; never the last row.

    A position is off its course by its distance from where any velocity between this row's and the next one's would have
    taken it. Row i + 1 does not follow where a position is off by more than its `jump`, or where the row lies within `spread`
    of the resting pose, as after a reset, and a position is off by more than `still`. NaN is off any course.

    Measured on 773 580 rows of MuJoCo (random, trained, full-torque, zero and standing policies, a replay buffer of hopper,
    episodes of 5 rows) against their flags: of 34 453 ends none missed, no false one, also without the last row of each
    timed-out episode. Within episodes no position was off by more than 0.53 of its `jump`, and no row looked like a reset.
    Of 128 000 cuts continued by a reset one was missed; of cuts continued in mid-episode, where only `jump` can tell, up to
    0.5 % were missed in moving hoppers, 2 % in walkers, but 35 to 90 % in halfcheetahs, whose step is long.

    Observations of another width than the domain's raise ValueError.
    """
    n = kinematics.positions
    if observations.ndim != 2 or observations.shape[1] != 2 * n + 1:
        raise ValueError(f"observations of shape {observations.shape}, expected (rows, {2 * n + 1})")
    rest = np.zeros(2 * n + 1)
    rest[0] = kinematics.height
    spread = np.repeat(kinematics.spread, (n, n + 1)) + 1e-6  # that of float32
    found = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, rows_at_once):
        rows = observations[start : start + rows_at_once + 1].astype(np.float64)  # one more: the last one's successor
        off = _off_course(rows[:-1], rows[1:], kinematics)
        after_reset = (np.abs(rows[1:] - rest) <= spread).all(axis=1)
        reset = after_reset & (off > kinematics.still).any(axis=1)
        found[:-1][start : start + rows_at_once] = reset | ~(off <= kinematics.jump).all(axis=1)
    return found


@np.errstate(invalid="ignore")  # where rows are not finite
def _off_course(rows: np.ndarray, successors: np.ndarray, kinematics: Kinematics) -> np.ndarray:
    """How far each position is off its course, (rows, positions), in m or rad."""
    n, limit = kinematics.positions, kinematics.speed_limit
    velocities = rows[:, n + 1 :], successors[:, n + 1 :]
    low, high = np.minimum(*velocities), np.maximum(*velocities)
    # A clipped velocity may have been any greater one.
    low, high = np.where(low <= -limit, -np.inf, low), np.where(high >= limit, np.inf, high)
    moved = successors[:, :n] - rows[:, :n]
    return np.maximum(np.maximum(low * kinematics.timestep - moved, moved - high * kinematics.timestep), 0)


def jumps(observations: np.ndarray, next_observations: np.ndarray) -> np.ndarray:
    """Marks the rows i whose stored next observation is not the observation of row i + 1, (N,) bool; never the last row."""
    found = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, _SLICE):
        stop = min(start + _SLICE, len(observations) - 1)
        stored, following = next_observations[start:stop], observations[start + 1 : stop + 1]
        near = np.abs(stored - following) <= _ROUNDING * np.maximum(np.abs(following), 1)
        found[start:stop] = ~near.all(axis=1)
    return found


def infer_timeouts(
    observations: np.ndarray,
    terminals: np.ndarray,
    max_episode_steps: int,
    kinematics: Kinematics | None = None,
    jumped: np.ndarray | None = None,
) -> np.ndarray:
    """Timeouts for a log that stores none: (N,) uint8, not 0 at the last row of each episode that no terminal state ended.

    BY_DATA is set where the next row does not follow (`breaks`), BY_COUNT where `max_episode_steps` rows have passed since
    the episode began: after a terminal, after a break, or at a count before. So a missed break costs at most the boundary
    that counting puts in its place, up to the next break. Without `kinematics` only the count is left; so it is where more
    than half of the rows do not follow: those observations are not the domain's (normalised ones, say). Whether the log's
    last row ends an episode, only the count can tell.

    jumped: the rows after which the log says by its next observations that another episode begins (`jumps`). Then it says,
    too, where an episode goes on, and nothing is counted there.
    """
    broken = np.zeros(len(terminals), bool) if kinematics is None else breaks(observations, kinematics) & ~terminals
    if 2 * np.count_nonzero(broken) > len(broken):
        broken[:] = False
    if jumped is not None:
        broken |= jumped & ~terminals
    # by stretch, not by row: a column of row numbers may be a quarter of a small task's file
    begins = np.flatnonzero(np.concatenate([[True], (terminals | broken)[:-1]]))
    counts = np.diff(begins, append=len(terminals)) // max_episode_steps  # episodes of full length in each stretch
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    counted = np.zeros(len(terminals), bool)
    counted[np.repeat(begins, counts) + nth * max_episode_steps - 1] = True
    counted &= ~terminals
    if jumped is not None:
        counted[:-1] &= broken[:-1]
    return BY_DATA * broken.astype(np.uint8) + BY_COUNT * counted.astype(np.uint8)


@dataclass(frozen=True)
class Ends:
    """Where the episodes of a log end without a terminal state, from all that its file and its rows say.

    timeouts: (N,) bool. inferred: (N,) uint8, of those that the file does not mark, as `infer_timeouts` gives them.
    astray: (N,) bool, the rows whose stored next observation is the first of the next episode, not their successor.
    disagreements: how often rows and flags differ, by name, see `flag_notes`; empty where they agree, or there are no flags.
    """

    timeouts: np.ndarray
    inferred: np.ndarray
    astray: np.ndarray
    disagreements: dict[str, int]


def find_ends(
    observations: np.ndarray,
    terminals: np.ndarray,
    max_episode_steps: int,
    kinematics: Kinematics | None = None,
    timeouts: np.ndarray | None = None,
    next_observations: np.ndarray | None = None,
    valid_next: np.ndarray | None = None,
) -> Ends:
    """Where episodes end: by the file's `timeouts` and `next_observations` where it stores them, and by `kinematics`.

    D4RL's medium-replay files of v2 mark next to no timeout, but store next observations: where one is not the next row's
    observation, an episode ends, and where it is, a marked timeout is none. Three kinds of next observations tell nothing:
    those that are never the next row's (shuffled rows), those that always are (filled in from the next row, whichever
    episode that is of), and those of rows that `valid_next` excludes. Then flags are kept, and `kinematics` adds to them.
    Counts (`max_episode_steps`) have no part where the file has flags.
    """
    if next_observations is None:
        jumped = np.ones(len(terminals), bool)
    else:
        jumped = jumps(observations, next_observations)
        if valid_next is not None:
            jumped &= valid_next
    marked = terminals if timeouts is None else terminals | timeouts
    found, unmarked = np.count_nonzero(jumped), np.count_nonzero(jumped & ~marked)
    within = marked & ~jumped
    within[-1:] = False
    # where somebody joined logs that were filled in, ends that jump are few beside those that do not
    telling = next_observations is not None and found > 0 and np.count_nonzero(within) <= 2 * found
    telling = telling and 2 * unmarked <= len(jumped)
    inferred = infer_timeouts(observations, terminals, max_episode_steps, kinematics, jumped if telling else None)
    disagreements = {}
    if timeouts is None:
        timeouts = inferred > 0
    else:
        going_on = timeouts & ~terminals & (inferred & BY_DATA == 0)
        going_on[-1:] = False
        if not (telling or (kinematics is not None and np.any(inferred & BY_DATA))):
            going_on[:] = False  # nothing speaks against the flags
        inferred = np.where(timeouts, 0, inferred & BY_DATA).astype(np.uint8)
        counts = {"unmarked": inferred > 0, "overruled" if telling else "doubted": going_on}
        disagreements = {name: int(count) for name, rows in counts.items() if (count := np.count_nonzero(rows))}
        timeouts = (timeouts & ~going_on if telling else timeouts) | (inferred > 0)
    astray = (terminals | timeouts) & ~jumped
    astray[-1:] = False
    return Ends(timeouts, inferred, astray, disagreements)


def flag_notes(provenance: Any) -> list[str]:
    """What a reader of a dataset should know of its file's flags, in words; `provenance` may be any that a record holds."""
    counts = provenance.get("flags") if isinstance(provenance, Mapping) else None
    if not isinstance(counts, Mapping):
        return []
    sentences = {
        "unmarked": "ends of episodes that the file does not mark, found from its rows",
        "overruled": "ends that the file marks where its next observations go on, not taken",
        "doubted": "ends that the file marks where its rows seem to go on, taken",
    }
    return [f"{sentence}: {counts[name]:,}" for name, sentence in sentences.items() if type(counts.get(name)) is int]


def tally(inferred: np.ndarray) -> dict[str, int]:
    """How many timeouts of `infer_timeouts` were found from the data alone, from the count alone, and from both."""
    counts = np.bincount(inferred, minlength=4)
    return {"by_data": int(counts[BY_DATA]), "by_count": int(counts[BY_COUNT]), "by_both": int(counts[BY_DATA | BY_COUNT])}
