"""An offline dataset: logged transitions, their packed form, windows, counts and a digest."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...common.errors import UserError
from ...common.settings import converted
from .episodes import tally
from .request import WINDOWS, Window

# Every array of a dataset with its dtype and rank: (rows, columns) or (rows,).
COLUMNS: dict[str, tuple[type, int]] = {
    "observations": (np.float32, 2),
    "actions": (np.float32, 2),
    "rewards": (np.float32, 1),
    "next_observations": (np.float32, 2),
    "terminals": (np.bool_, 1),
    "timeouts": (np.bool_, 1),
    "valid_next": (np.bool_, 1),
}
TIMEOUT_INFERRED = "infos/timeout_inferred"
SLICE_BYTES = 1 << 23  # arrays are read, checked and hashed in slices of this size, so that no copy of the whole is needed


class Packing(NamedTuple):
    """The layout of a packed row: observation, action, reward, alive (1 - terminal), next observation.

    No other code knows this order. Rows are numpy arrays or tensors, (..., width).
    """

    observation_size: int
    action_size: int

    @property
    def observations(self) -> slice:
        return slice(self.observation_size)

    @property
    def actions(self) -> slice:
        return slice(self.observation_size, self.rewards)

    @property
    def observation_actions(self) -> slice:
        return slice(self.rewards)

    @property
    def rewards(self) -> int:
        return self.observation_size + self.action_size

    @property
    def alive(self) -> int:
        return self.rewards + 1

    @property
    def next_observations(self) -> slice:
        return slice(self.alive + 1, self.width)

    @property
    def width(self) -> int:
        return 2 * self.observation_size + self.action_size + 2

    def views(self, rows: Any) -> dict[str, Any]:
        """The columns of `rows` by their names in an `OfflineDataset`; alive is not among them, since that stores terminals."""
        names = ("observations", "actions", "rewards", "next_observations")
        return {name: rows[..., getattr(self, name)] for name in names}

    def fill(self, rows: Any, observations: Any, actions: Any, rewards: Any, alive: Any, next_observations: Any) -> Any:
        """Writes (..., obs), (..., act), (...), (...) and (..., obs) into `rows`, and returns `rows`."""
        rows[..., self.observations] = observations
        rows[..., self.actions] = actions
        rows[..., self.rewards] = rewards
        rows[..., self.alive] = alive
        rows[..., self.next_observations] = next_observations
        return rows


def row_slices(array: Any, multiple: int = 1) -> Iterator[slice]:
    """Consecutive slices of the rows of an array (or HDF5 dataset), about `SLICE_BYTES` each, in multiples of so many rows."""
    rows, *sizes = array.shape
    row_bytes = max(1, array.dtype.itemsize * math.prod(sizes))
    step = max(1, SLICE_BYTES // row_bytes // multiple) * multiple
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@dataclass(frozen=True, eq=False)
class OfflineDataset:
    """N transitions in the order in which they were logged, and where they come from.

    Shapes: observations and next_observations (N, observation size) float32; actions (N, action size) float32; rewards
    (N,) float32, in the environment's own units; terminals, timeouts and valid_next (N,) bool. A terminal state ends an
    episode, a timeout merely cuts it. `valid_next` says whether the row's next observation really is its
    successor. `extras` holds further arrays of N rows under names such as "infos/qpos"; `provenance` is JSON-able.

    The arrays are read-only, so that the digest stays theirs, and are not copied: they may be views of one packed
    table, in memory or mapped from a file (see `table`). A wrong dtype or shape raises ValueError.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    valid_next: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.observations)
        if rows == 0:
            raise ValueError("a dataset needs at least one row")
        for name, (dtype, rank) in COLUMNS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != rank or len(array) != rows:
                wanted = f"{np.dtype(dtype)} of rank {rank} with {rows} rows"
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected {wanted}")
            object.__setattr__(self, name, _read_only(array))
        if self.next_observations.shape != self.observations.shape:
            raise ValueError(f"next_observations are {self.next_observations.shape}, unlike the observations")
        for name, array in self.extras.items():
            if not re.fullmatch("infos/[^/]+", name) or array.shape[:1] != (rows,):
                raise ValueError(f"extra {name!r} of shape {array.shape}: expected 'infos/<name>' with {rows} rows")
        object.__setattr__(self, "extras", {name: _read_only(array) for name, array in self.extras.items()})

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def dynamics_rows(self) -> np.ndarray:
        """(N,) bool: rows that a dynamics model may learn from, those whose next observation is the successor."""
        return self.valid_next

    @property
    def critic_rows(self) -> np.ndarray:
        """(N,) bool: rows that a critic may learn from: valid ones and terminals, whose next observation is masked."""
        return self.valid_next | self.terminals

    @property
    def packing(self) -> Packing:
        """How a row of this dataset is packed."""
        return Packing(self.observations.shape[1], self.actions.shape[1])

    def table(self) -> np.ndarray:
        """(N, width) float32, read-only: all rows packed in the order of `packing`.

        This is no copy where the arrays are views of one such table, as `read_hdf5` makes them; else every call packs the rows.
        """
        found = self._table_beneath()
        if found is None:
            parts = (self.observations, self.actions, self.rewards, ~self.terminals, self.next_observations)
            found = self.packing.fill(np.empty((len(self), self.packing.width), np.float32), *parts)
        return _read_only(found)

    def _table_beneath(self) -> np.ndarray | None:
        """The packed table that the arrays are views of; None where one of them lies elsewhere."""
        width = self.packing.width
        # Nothing is read from it before each array proved to lie in it: together they cover all of it but `alive`.
        table = as_strided(self.observations, (len(self), width), (4 * width, 4), writeable=False)
        for name, view in self.packing.views(table).items():
            array = getattr(self, name)
            if array.strides != view.strides or array.ctypes.data != view.ctypes.data:
                return None
        alive = table[:, self.packing.alive]
        return table if np.array_equal(alive, ~self.terminals) else None

    def episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The starts and stops of episodes, each (episodes,) int64: rows start to stop - 1. The last episode may be cut."""
        ends = self.terminals | self.timeouts
        ends[-1] = True
        stops = np.flatnonzero(ends) + 1
        return np.concatenate([[0], stops[:-1]]), stops

    def episode_returns(self) -> np.ndarray:
        """(episodes,) float64: undiscounted sums of rewards, for a cut episode of the rows that are left of it."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.episodes()[0])

    def followed(self) -> np.ndarray:
        """(N,) bool: the rows whose next observation is known and which another row of their episode follows."""
        found = self.valid_next.copy()
        found[self.episodes()[1] - 1] = False
        return found

    def episode_lengths(self) -> np.ndarray:
        """(episodes,) int64: the number of rows of each episode."""
        starts, stops = self.episodes()
        return stops - starts

    def whole_episodes(self) -> np.ndarray:
        """(episodes,) bool: all but those that a window cut at its start, or that neither end nor time out where the rows end.

        What is left of a cut episode has no return: under a reward that costs, its few rows would be the dataset's best
        episode. Where there is no other episode all count.
        """
        whole = np.ones(len(self.episodes()[1]), bool)
        whole[0] = not self.provenance.get("starts_within_an_episode", False)
        whole[-1] &= self.terminals[-1] or self.timeouts[-1]
        return whole if whole.any() else ~whole

    def window(self, name: str) -> OfflineDataset:
        """The rows named `all`, `last_1m` (MOPO's ring of a million) or `first_1m` (D4RL's BC and BRAC runs).

        A window may cut an episode; `provenance` records it as "window", and its rows in the file as "rows". A name
        other than these raises UserError.
        """
        return self._rows(WINDOWS[converted(name, Window, "--window")], window=name)

    def head(self, rows: int) -> OfflineDataset:
        """The first `rows` rows (all, where there are fewer); fewer than one raises UserError."""
        if rows < 1:
            raise UserError(f"cannot keep the first {rows} rows of a dataset: ask for at least 1")
        return self._rows(slice(rows), head=rows)

    def copy(self) -> OfflineDataset:
        """The same rows in memory of their own, in one packed table."""
        arrays = self.packing.views(np.array(self.table()))
        flags = {name: getattr(self, name).copy() for name in COLUMNS if name not in arrays}
        return replace(self, **arrays, **flags, extras={name: array.copy() for name, array in self.extras.items()})

    def _rows(self, rows: slice, **note: Any) -> OfflineDataset:
        # Successors and timeouts were completed from the whole file, so the row at a cut keeps its true successor.
        start, stop, _ = rows.indices(len(self))
        before = self.provenance.get("rows", [0])[0]
        if start:
            note["starts_within_an_episode"] = not (self.terminals[start - 1] or self.timeouts[start - 1])
        cut = replace(
            self,
            **{name: getattr(self, name)[rows] for name in COLUMNS},
            extras={name: array[rows] for name, array in self.extras.items()},
            provenance={**self.provenance, **note, "rows": [before + start, before + stop]},
        )
        return cut.trusting(self._digest) if len(cut) == len(self) and "_digest" in vars(self) else cut

    def noting(self, **notes: Any) -> OfflineDataset:
        """The same dataset with further entries of `provenance`, or with other values of those."""
        noted = replace(self, provenance={**self.provenance, **notes})
        return noted.trusting(self._digest) if "_digest" in vars(self) else noted

    def trusting(self, digest: str) -> OfflineDataset:
        """The same dataset with a known digest, computed from these very arrays before, which is then not computed again."""
        known = replace(self)
        vars(known)["_digest"] = digest
        return known

    def digest(self) -> str:
        """The SHA-256 in hexadecimal of the seven arrays, their names, dtypes and shapes, without extras and provenance."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        state = hashlib.sha256()
        for name in COLUMNS:
            array = getattr(self, name)
            state.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            for rows in row_slices(array):
                state.update(np.ascontiguousarray(array[rows], array.dtype.newbyteorder("<")).data)
        return state.hexdigest()

    def describe(self) -> dict[str, int | float]:
        """Counts, returns and ranges as plain numbers.

        `rows`, `episodes`; `return_mean`, `return_max`, `return_min` over `whole_episodes`; `terminals`, `timeouts`,
        `valid_next`, `critic_rows` count rows; `repaired` counts the rows whose timeout was inferred, since the file
        did not store it, `repaired_by_data` those where the next row does not follow, `repaired_by_count` those where
        only the number of steps said so; `dropped` counts the rows that no learner can use, neither valid nor
        terminal; `action_min` and `action_max` are over all rows and dimensions.
        """
        returns = self.episode_returns()[self.whole_episodes()]
        repaired = tally(np.atleast_1d(np.asarray(self.extras.get(TIMEOUT_INFERRED, 0), np.uint8)))
        flags = ("terminals", "timeouts", "valid_next", "critic_rows")
        return {
            "rows": len(self),
            "episodes": len(self.episodes()[1]),
            **{f"return_{of}": float(getattr(returns, of)()) for of in ("mean", "max", "min")},
            **{flag: int(getattr(self, flag).sum()) for flag in flags},
            "repaired": sum(repaired.values()),
            "repaired_by_data": repaired["by_data"] + repaired["by_both"],
            "repaired_by_count": repaired["by_count"],
            "dropped": int((~self.critic_rows).sum()),
            **{f"action_{of}": float(getattr(self.actions, of)()) for of in ("min", "max")},
        }


def joined(parts: Sequence[OfflineDataset]) -> OfflineDataset:
    """Concatenates datasets; an episode ends where one of them does. Extras are those that all of them have."""
    if len(parts) == 1:
        return parts[0]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    joints = np.cumsum([len(part) for part in parts]) - 1
    arrays["timeouts"][joints] |= ~arrays["terminals"][joints]
    common = [name for name in parts[0].extras if all(name in part.extras for part in parts)]
    extras = {name: np.concatenate([part.extras[name] for part in parts]) for name in common}
    return OfflineDataset(**arrays, extras=extras, provenance={"parts": [part.provenance for part in parts]})


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
