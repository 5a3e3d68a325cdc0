"""A batch of logged transitions in D4RL's HDF5 layout: read, check, write, window, count and fingerprint it."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from .errors import UserError

# Every array of a dataset with its dtype and rank: (rows, columns) or (rows,).
_ARRAYS: dict[str, tuple[type, int]] = {
    "observations": (np.float32, 2),
    "actions": (np.float32, 2),
    "rewards": (np.float32, 1),
    "next_observations": (np.float32, 2),
    "terminals": (np.bool_, 1),
    "timeouts": (np.bool_, 1),
    "valid_next": (np.bool_, 1),
}
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_TIMEOUT_INFERRED = "infos/timeout_inferred"
_ACTION_TOLERANCE = 1e-3

WINDOWS = {"all": slice(None), "last_1m": slice(-1_000_000, None), "first_1m": slice(1_000_000)}


@dataclass(frozen=True, eq=False)
class OfflineDataset:
    """N transitions in the order they were logged, and where they came from.

    Shapes: observations and next_observations (N, observation size) float32; actions (N, action size) float32; rewards
    (N,) float32, in the environment's own units; terminals, timeouts and valid_next (N,) bool. A terminal ends an
    episode for good, a timeout merely cuts it. `valid_next` says whether the row's next observation really is its
    successor. `extras` holds further arrays of N rows under names such as "infos/qpos"; `provenance` is JSON-able.

    The arrays are read-only, so that the digest cannot go stale. A wrong dtype or shape raises ValueError.
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
        for name, (dtype, rank) in _ARRAYS.items():
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

    def episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and stops, each (episodes,) int64: an episode is rows start to stop - 1; the last may be cut."""
        ends = self.terminals | self.timeouts
        ends[-1] = True
        stops = np.flatnonzero(ends) + 1
        return np.concatenate([[0], stops[:-1]]), stops

    def episode_returns(self) -> np.ndarray:
        """(episodes,) float64: undiscounted sums of rewards; of an episode cut by a window, what is left."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.episodes()[0])

    def episode_lengths(self) -> np.ndarray:
        """(episodes,) int64, in rows."""
        starts, stops = self.episodes()
        return stops - starts

    def window(self, name: str) -> OfflineDataset:
        """The rows named `all`, `last_1m` (MOPO's ring of a million) or `first_1m` (D4RL's BC and BRAC runs).

        A window may cut an episode; `provenance` records it as "window", and its rows in the file as "rows". A name
        other than these raises UserError.
        """
        if name not in WINDOWS:
            raise UserError(f"unknown window {name!r}: choose one of {', '.join(WINDOWS)}")
        return self._rows(WINDOWS[name], window=name)

    def head(self, rows: int) -> OfflineDataset:
        """The first `rows` rows (all, where there are fewer); fewer than one raises UserError."""
        if rows < 1:
            raise UserError(f"cannot keep the first {rows} rows of a dataset: ask for at least 1")
        return self._rows(slice(rows), head=rows)

    def _rows(self, rows: slice, **note: Any) -> OfflineDataset:
        # Successors and timeouts were completed from the whole file, so the row at a cut keeps its true successor.
        start, stop, _ = rows.indices(len(self))
        before = self.provenance.get("rows", [0])[0]
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in _ARRAYS},
            extras={name: array[rows] for name, array in self.extras.items()},
            provenance={**self.provenance, **note, "rows": [before + start, before + stop]},
        )

    def digest(self) -> str:
        """SHA-256 in hex of the seven arrays, their names, dtypes and shapes; not of extras or provenance."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        state = hashlib.sha256()
        for name in _ARRAYS:
            array = getattr(self, name)
            state.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            state.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return state.hexdigest()

    def describe(self) -> dict[str, int | float]:
        """Counts and ranges as plain numbers.

        `rows`, `episodes`; `return_mean`, `return_max`, `return_min` over episodes, cut ones included; `terminals`,
        `timeouts`, `valid_next`, `critic_rows` count rows; `repaired` counts the rows whose timeout was inferred, since
        the file had no timeouts; `dropped` counts the rows that no learner can use, neither valid nor terminal;
        `action_min` and `action_max` are over all rows and dimensions.
        """
        returns = self.episode_returns()
        flags = ("terminals", "timeouts", "valid_next", "critic_rows")
        return {
            "rows": len(self),
            "episodes": len(returns),
            **{f"return_{of}": float(getattr(returns, of)()) for of in ("mean", "max", "min")},
            **{flag: int(getattr(self, flag).sum()) for flag in flags},
            "repaired": int(np.count_nonzero(self.extras.get(_TIMEOUT_INFERRED, 0))),
            "dropped": int((~self.critic_rows).sum()),
            **{f"action_{of}": float(getattr(self.actions, of)()) for of in ("min", "max")},
        }


def infer_timeouts(terminals: np.ndarray, max_episode_steps: int, part_rows: int | None = None) -> np.ndarray:
    """(N,) bool for files without timeouts: an episode that no terminal ended stops after `max_episode_steps` rows.

    A file of several logs one after another begins an episode every `part_rows` rows. Boundaries that only the data show
    are to be found here; until then the caller names the lengths.
    """
    row = np.arange(len(terminals))
    begins = np.concatenate([[True], terminals[:-1]])
    if part_rows is not None:
        begins |= row % part_rows == 0
    rows_since_beginning = row - np.maximum.accumulate(np.where(begins, row, 0)) + 1
    return (rows_since_beginning % max_episode_steps == 0) & ~terminals


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    observation_size: int | None = None,
    action_size: int | None = None,
    action_low: float | np.ndarray = -1.0,
    action_high: float | np.ndarray = 1.0,
    max_episode_steps: int = 1000,
    part_rows: int | None = None,
    clip_actions: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> OfflineDataset:
    """Reads a file in D4RL's layout: v0 (no next observations), v2, or as `write_hdf5` leaves it.

    Stored next observations are all taken as valid, unless the file says otherwise in `valid_next`. Without them
    next_observations[i] = observations[i + 1], valid but on the last row of each episode and of the file. Missing
    timeouts are inferred (`infer_timeouts`, which says what `part_rows` is). Rewards and flags of shape (N, 1) are
    squeezed, numbers become float32. Actions up to 1e-3 outside [action_low, action_high] are clipped; further out they are
    refused, or clipped and counted in the provenance as "clipped_actions" (rows) with `clip_actions`. `provenance` overrides
    the file's own.

    Raises UserError, in one line, for anything that keeps the file from being a usable dataset. Links are not followed.
    """
    path = Path(path)
    _refuse(path, "it", path, _FILE_FAULTS)
    with _damage_reported(path), h5py.File(path, "r") as file:
        nodes = {key: _member(path, file, key) for key in _keys(path, file)}
        for key, node in nodes.items():
            _refuse(path, key, node, _NODE_FAULTS)
        _check_shapes(path, nodes, {"observations": observation_size, "actions": action_size})
        arrays = {key: _values(path, key, node) for key, node in nodes.items()}
        notes = _provenance(path, file) | dict(provenance or {})
    extras = {key: arrays.pop(key) for key in list(arrays) if key not in _ARRAYS}

    arrays["actions"], clipped = _into_box(path, arrays["actions"], action_low, action_high, clip_actions)
    if clipped:
        notes["clipped_actions"] = clipped
    if "timeouts" not in arrays:
        arrays["timeouts"] = infer_timeouts(arrays["terminals"], max_episode_steps, part_rows)
        extras[_TIMEOUT_INFERRED] = arrays["timeouts"]
    if part_rows is not None:  # where one log ends and the next begins, whatever the file says
        joints = slice(part_rows - 1, -1, part_rows)
        arrays["timeouts"][joints] |= ~arrays["terminals"][joints]
    if "next_observations" not in arrays:
        arrays["next_observations"] = np.concatenate([arrays["observations"][1:], arrays["observations"][-1:]])
        arrays["valid_next"] = ~(arrays["terminals"] | arrays["timeouts"])
        arrays["valid_next"][-1] = False
    arrays.setdefault("valid_next", np.ones(len(arrays["rewards"]), bool))
    return OfflineDataset(**arrays, extras=extras, provenance=notes)


def write_hdf5(dataset: OfflineDataset, path: str | os.PathLike[str], *, compression: str = "gzip") -> None:
    """Writes `dataset` in D4RL's v2 layout, with `valid_next` and a JSON string `metadata/provenance` besides.

    `compression` is "gzip", which every HDF5 reader knows, or "lzf", which is faster. The file appears whole or not at
    all. Raises UserError where it cannot be written.
    """
    path = Path(path)
    provenance = json.dumps(dataset.provenance)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            for name, array in ({name: getattr(dataset, name) for name in _ARRAYS} | dataset.extras).items():
                file.create_dataset(name, data=array, compression=compression, shuffle=True)
            # A string of fixed length: HDF5 can hang on a damaged one of variable length.
            file["metadata/provenance"] = np.bytes_(provenance)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        _fail(path, f"cannot be written ({error.strerror or error}); check the folder, its permissions and free space")
    finally:
        partial.unlink(missing_ok=True)


# What makes a file, or an object in it, unusable: the first test that holds names the fault.
_Faults = tuple[tuple[Callable[[Any], Any], str], ...]
_FILE_FAULTS: _Faults = (
    (lambda path: not os.path.exists(path), "does not exist; check the path, or fetch the dataset first"),
    (os.path.isdir, "is a directory; name the .hdf5 file itself"),
    (lambda path: not os.path.isfile(path), "is not a regular file; name an .hdf5 file"),
    (lambda path: not os.access(path, os.R_OK), "may not be read; check its permissions"),
    (lambda path: not h5py.is_hdf5(path), "is not an HDF5 file; fetch or convert it again"),
)
_NODE_FAULTS: _Faults = (
    (lambda node: isinstance(node, h5py.Group), "is a group where a dataset is expected; store an array there"),
    (lambda node: not isinstance(node, h5py.Dataset), "is a datatype, not a dataset; store an array there"),
    (lambda node: node.is_virtual or node.external, "keeps its values in another file; copy them into this one"),
    (lambda node: not node.shape, "is a scalar, not an array; store one value per row"),
    (lambda node: 0 in node.shape, "is empty (shape {node.shape}); a dataset needs at least one row and column"),
    (lambda node: node.dtype.kind not in "fiub", "has dtype {node.dtype}; store real numbers or booleans"),
)


def _fail(path: Path, problem: str) -> NoReturn:
    raise UserError(" ".join(f"{path}: {problem}".splitlines()))


def _refuse(path: Path, name: str, node: Any, faults: _Faults) -> None:
    for holds, problem in faults:
        if holds(node):
            _fail(path, f"{name} {problem.format(node=node)}")


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # h5py's, on bad bytes
        _fail(path, f"the file is truncated or damaged ({type(error).__name__}: {error}); fetch or write it again")


def _keys(path: Path, file: h5py.File) -> list[str]:
    """The names to read: the arrays of a dataset and whatever stands in `infos`."""
    found = sorted(file)  # names only: a link is listed, not followed
    for key in _REQUIRED:
        if key not in found:
            nearest = difflib.get_close_matches(key, found, 1)
            hint = f"rename {nearest[0]!r}" if nearest else "add it"
            _fail(path, f"key {key!r} is missing; {hint} (found: {', '.join(found[:20]) or 'nothing'})")
    infos = _member(path, file, "infos") if "infos" in found else {}
    if isinstance(infos, h5py.Dataset):
        _fail(path, "infos is a dataset where a group is expected; store it as infos/<name>")
    return [key for key in _ARRAYS if key in found] + [f"infos/{key}" for key in infos]


def _member(path: Path, file: h5py.File, key: str) -> Any:
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        _fail(path, f"{key} is a soft or external link, which is not followed; store the values themselves")
    return file[key]


def _check_shapes(path: Path, nodes: Mapping[str, h5py.Dataset], sizes: Mapping[str, int | None]) -> None:
    rows, *columns = nodes["observations"].shape
    for key, node in nodes.items():
        rank = _ARRAYS[key][1] if key in _ARRAYS else node.ndim
        if node.ndim != rank and not (rank == 1 and node.shape[1:] == (1,)):
            wanted = "(rows,)" if rank == 1 else "(rows, columns)"
            _fail(path, f"{key} has rank {node.ndim} (shape {node.shape}); store it as {wanted}")
        if node.shape[0] != rows:
            _fail(path, f"{key} has {node.shape[0]} rows, observations have {rows}; make their lengths equal")
        size = columns[0] if key == "next_observations" else sizes.get(key)
        if size is not None and node.shape[1] != size:
            _fail(path, f"{key} has {node.shape[1]} columns, expected {size}; is this another task's file?")


def _values(path: Path, key: str, node: h5py.Dataset) -> np.ndarray:
    values = node[()]
    if key not in _ARRAYS:
        return values
    dtype, rank = _ARRAYS[key]
    values = values.reshape(-1) if rank == 1 else values
    if dtype is np.bool_:
        bad, problem = (values != 0) & (values != 1), "neither 0 nor 1"
    else:
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused below
            values = values.astype(np.float32, copy=False)
        bad, problem = ~np.isfinite(values), "not finite as float32"
    bad_rows = np.flatnonzero(bad.any(axis=1) if rank == 2 else bad)
    if len(bad_rows):
        _fail(path, f"{key} is {problem} in {len(bad_rows)} rows, first in row {bad_rows[0]}; correct or remove them")
    return values.astype(dtype, copy=False)


def _into_box(
    path: Path, actions: np.ndarray, low: float | np.ndarray, high: float | np.ndarray, clip: bool
) -> tuple[np.ndarray, int]:
    """Actions within the box, and how many rows were outside by more than the tolerance."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    excess = np.maximum(low - actions, actions - high).max(axis=1)
    outside = int((excess > _ACTION_TOLERANCE).sum())
    if outside and not clip:
        worst = f"the worst by {excess.max():.4g} in row {excess.argmax()}"
        _fail(path, f"actions lie outside their box in {outside} rows, {worst}; rescale them, or clip them with --clip-actions")
    return np.clip(actions, low, high), outside


def _provenance(path: Path, file: h5py.File) -> dict[str, Any]:
    """What `write_hdf5` stored, or that the data come from this file."""
    metadata = _member(path, file, "metadata") if "metadata" in file else None
    if not isinstance(metadata, h5py.Group) or "provenance" not in metadata:
        return {"source": "file", "file": path.name}
    node = _member(path, metadata, "provenance")
    try:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "S" and node.shape == ():
            return dict(json.loads(node[()]))
    except (ValueError, TypeError):
        pass
    _fail(path, "metadata/provenance is not a JSON object in a fixed-length string; correct or remove it")


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
