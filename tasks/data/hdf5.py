"""Datasets in D4RL's HDF5 layout: files are read and checked in bounded memory, written whole, and refused in one line."""

from __future__ import annotations

import difflib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ...common.errors import UserError
from ...common.files import replace_file, reserve
from .dataset import COLUMNS, TIMEOUT_INFERRED, OfflineDataset, Packing, row_slices
from .episodes import KINEMATICS, Ends, find_ends
from .minari_layout import episodes_in, minari_nodes, stored_provenance

_REQUIRED = ("observations", "actions", "rewards", "terminals")
_ACTION_TOLERANCE = 1e-3
_OVERHEAD = 2**20  # bytes of an HDF5 file in addition to its arrays, generously

Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]


def in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocates an array of `read_hdf5` in memory."""
    return np.empty(shape, dtype)


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    observation_size: int | None = None,
    action_size: int | None = None,
    action_low: ArrayLike = -1.0,
    action_high: ArrayLike = 1.0,
    max_episode_steps: int = 1000,
    kinematics: str | None = None,
    clip_actions: bool = False,
    provenance: Mapping[str, Any] | None = None,
    allocate: Allocate = in_memory,
) -> OfflineDataset:
    """Reads a file in D4RL's layout: v0 (no next observations), v2, or as `write_hdf5` leaves it; or one in Minari's.

    Stored next observations are taken as valid but where they are the next episode's first, unless the file itself says in
    `valid_next` which are. Without them next_observations[i] = observations[i + 1], valid but on the last row of each episode
    and of the file. Where episodes end is found from all that the file stores, see `find_ends`; `kinematics` names one of
    `KINEMATICS`. Where flags and rows disagree, the provenance counts it as "flags".
    Rewards and flags of shape (N, 1) are squeezed, numbers become float32. Actions up to 1e-3 outside
    [action_low, action_high] are clipped; further out they are refused, or clipped and counted in the provenance as
    "clipped_actions" (rows) with `clip_actions`. `provenance` overrides the file's own.

    The dataset's arrays are views of one packed table, filled in slices. Apart from what `allocate` gives for "table", each
    flag and each extra (by default memory), no more is held than a slice, or one chunk of the file where its chunks are larger.

    Raises UserError, in one line, for anything that keeps the file from being a usable dataset. Links are not followed.
    """
    path = Path(path)
    require_hdf5(path)
    with trouble_reported(path), open_hdf5(path) as file:
        nodes, episode_stops, notes = _nodes(path, file)
        _check_shapes(path, nodes, {"observations": observation_size, "actions": action_size})
        _check_claim(path, nodes)
        rows, packing = len(nodes["observations"]), Packing(nodes["observations"].shape[1], nodes["actions"].shape[1])
        table = allocate("table", (rows, packing.width), np.dtype(np.float32))
        flags = {key: allocate(key, (rows,), np.dtype(np.bool_)) for key in ("terminals", "timeouts", "valid_next")}
        arrays = {**packing.views(table), **flags}
        # the dtype by its plain name: HDF5 hangs notes on some, which a .npy file cannot keep
        extras = {key: allocate(key, node.shape, np.dtype(node.dtype.str)) for key, node in nodes.items() if key not in COLUMNS}
        for key, node in nodes.items():
            _fill(path, key, node, arrays[key] if key in arrays else extras[key])
    notes |= provenance or {}

    clipped = _clip(path, arrays["actions"], action_low, action_high, clip_actions)
    if clipped:
        notes["clipped_actions"] = clipped
    notes.pop("flags", None)  # of the file that this one was made from
    if episode_stops is not None:  # the layout itself says where episodes end
        last = episode_stops[:-1] - 1  # but of the file, whose end may be that of a log
        flags["timeouts"][last] |= ~flags["terminals"][last]
        if "valid_next" not in nodes:
            flags["valid_next"][:] = True
    else:
        ends = _complete(arrays, set(nodes), max_episode_steps, kinematics)
        if ends.inferred.any():
            extras[TIMEOUT_INFERRED] = allocate(TIMEOUT_INFERRED, (rows,), np.dtype(np.uint8))
            extras[TIMEOUT_INFERRED][:] = ends.inferred
        if ends.disagreements:
            notes["flags"] = ends.disagreements
    table[:, packing.alive] = ~flags["terminals"]
    return OfflineDataset(**arrays, extras=extras, provenance=notes)


def _complete(arrays: Mapping[str, np.ndarray], stored: Set[str], max_episode_steps: int, kinematics: str | None) -> Ends:
    """Fills in what a file in D4RL's layout does not store, or stores wrongly: timeouts, next observations, valid_next."""
    terminals, timeouts, valid_next = (arrays[name] for name in ("terminals", "timeouts", "valid_next"))
    ends = find_ends(
        arrays["observations"],
        terminals,
        max_episode_steps,
        KINEMATICS[kinematics] if kinematics else None,
        **{name: arrays[name] for name in ("timeouts", "next_observations", "valid_next") if name in stored},
    )
    timeouts[:] = ends.timeouts
    if "next_observations" not in stored:
        _shift(arrays["observations"], arrays["next_observations"])
        valid_next[:] = ~(terminals | timeouts)
        valid_next[-1] = False
    elif "valid_next" not in stored:
        valid_next[:] = ~ends.astray
    return ends


def write_hdf5(dataset: OfflineDataset, path: str | os.PathLike[str], *, compression: str = "gzip") -> None:
    """Writes `dataset` in D4RL's v2 layout, with `valid_next` and a JSON string `metadata/provenance` in addition.

    `compression` is "gzip", which every HDF5 reader knows, or "lzf", which is faster. The file appears whole or not at
    all. Raises UserError where it cannot be written.
    """
    arrays = {name: getattr(dataset, name) for name in COLUMNS} | dataset.extras

    def write(partial: Path) -> None:
        reserve(partial, sum(array.nbytes for array in arrays.values()) + _OVERHEAD)
        with open_hdf5(partial, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, compression=compression, shuffle=True)
            write_provenance(file, dataset.provenance)

    replace_file(Path(path), write)


def copy_with_rewards(source: Path, path: Path, rewards: np.ndarray, provenance: Mapping[str, Any]) -> None:
    """Writes a copy of an HDF5 file with other rewards (N,) and provenance; everything else is copied as it is."""

    def write(partial: Path) -> None:
        reserve(partial, source.stat().st_size + rewards.nbytes + _OVERHEAD)
        shutil.copyfile(source, partial)
        with open_hdf5(partial, "r+") as file:
            del file["rewards"]
            file.create_dataset("rewards", data=rewards, compression="gzip", shuffle=True)
            write_provenance(file, provenance)

    replace_file(path, write)


def write_provenance(file: h5py.File, provenance: Mapping[str, Any]) -> None:
    """Stores where a dataset comes from, in place of what the file says so far."""
    if "metadata/provenance" in file:
        del file["metadata/provenance"]
    # A string of fixed length: HDF5 can hang on a damaged one of variable length.
    file["metadata/provenance"] = np.bytes_(json.dumps(provenance))


# What makes a file, or an object in it, unusable: the first test that holds names the fault.
_Faults = tuple[tuple[Callable[[Any], Any], str], ...]
_FILE_FAULTS: _Faults = (
    (os.path.isdir, "is a directory; name the .hdf5 file itself (in Minari's folders, data/main_data.hdf5)"),
    (lambda path: not os.path.isfile(path), "is not a regular file; name an .hdf5 file"),
    (lambda path: not h5py.is_hdf5(path), "is not an HDF5 file; fetch or convert it again"),
)
# What the system says of a file that may be whole, by errno.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_LOCKED = (errno.EAGAIN, errno.EDEADLK, errno.ENOLCK)
_OF_DAMAGE = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG, errno.ENOMEM)  # of offsets and sizes that a damaged file names
_NODE_FAULTS: _Faults = (
    (lambda node: isinstance(node, h5py.Group), "is a group where a dataset is expected; store an array there"),
    (lambda node: not isinstance(node, h5py.Dataset), "is a datatype, not a dataset; store an array there"),
    (lambda node: node.is_virtual or node.external, "keeps its values in another file; copy them into this one"),
    (lambda node: not node.shape, "is a scalar, not an array; store one value per row"),
    (lambda node: 0 in node.shape, "is empty (shape {node.shape}); a dataset needs at least one row and column"),
    (lambda node: node.dtype.kind not in "fiub", "has dtype {node.dtype}; store real numbers or booleans"),
)


def require_hdf5(path: Path) -> None:
    """Raises UserError unless `path` is an HDF5 file that may be read."""
    if "\0" in str(path):
        _fail(path, "it does not exist; no file has such a name")
    with trouble_reported(path):
        os.stat(path)  # which says why, where `exists` only says no
        _refuse(path, "it", path, _FILE_FAULTS)


def open_hdf5(path: str | os.PathLike[str], mode: str = "r") -> h5py.File:
    """Opens an HDF5 file without locking it, so that one is read, too, that another process holds open."""
    return h5py.File(path, mode, locking=False)


def _fail(path: Path, problem: str) -> NoReturn:
    raise UserError(" ".join(f"{path}: {problem}".splitlines()))


def _refuse(path: Path, name: str, node: Any, faults: _Faults) -> None:
    for holds, problem in faults:
        if holds(node):
            _fail(path, f"{name} {problem.format(node=node)}")


@contextmanager
def trouble_reported(path: Path) -> Iterator[None]:
    """Raises UserError for whatever goes wrong while the file is read, and tells damage from what the system refuses."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # h5py's, on bad bytes
        _fail(path, _trouble(error))


def _trouble(error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code in _NOT_THERE:
        return "it does not exist; check the path, or fetch the dataset first"
    if code in _FORBIDDEN:
        return "it may not be read; check its permissions and those of its folder"
    if code in _LOCKED:
        return f"it is locked ({os.strerror(code)}); run again when the process that holds it is done"
    if code is not None and code not in _OF_DAMAGE:
        return f"the system cannot read it ({os.strerror(code)}); check the disk or the network, and run again"
    if "already open for write" in str(error):
        return "it is being written, or its writer was killed; run again when that is done, or clear the mark with `h5clear -s`"
    return f"the file is truncated or damaged ({type(error).__name__}: {error}); fetch or write it again"


def _nodes(path: Path, file: h5py.File) -> tuple[dict[str, Any], np.ndarray | None, dict[str, Any]]:
    """The arrays of a file by their names in a dataset, checked; where episodes stop, in Minari's layout; the provenance."""

    def node_of(key: str) -> Any:
        node: Any = file
        for part in key.split("/"):
            if not isinstance(node, h5py.Group) or part not in node:
                _fail(path, f"{key} is missing; add it")
            node = _member(path, node, part, key)
        _refuse(path, key, node, _NODE_FAULTS)
        return node

    if "observations" not in file and episodes_in(file):
        try:
            nodes, stops, left_out = minari_nodes(file, node_of)
        except ValueError as error:
            _fail(path, f"{error}; write it again with Minari")
        notes = {"source": "file", "file": path.name, **stored_provenance(file), "layout": "Minari"}
        return dict(nodes), stops, notes | ({"left_out": left_out} if left_out else {})
    notes = _provenance(path, file)
    notes.pop("layout", None)  # of the file that this one was made from
    return {key: node_of(key) for key in _keys(path, file)}, None, notes


def _keys(path: Path, file: h5py.File) -> list[str]:
    """The names of the arrays to be read: those of a dataset, and all in `infos`."""
    found = sorted(file)  # names only: a link is listed, not followed
    for key in _REQUIRED:
        if key not in found:
            nearest = difflib.get_close_matches(key, found, 1)
            hint = f"rename {nearest[0]!r}" if nearest else "add it"
            _fail(path, f"key {key!r} is missing; {hint} (found: {', '.join(found[:20]) or 'nothing'})")
    infos = _member(path, file, "infos") if "infos" in found else {}
    if isinstance(infos, h5py.Dataset):
        _fail(path, "infos is a dataset where a group is expected; store it as infos/<name>")
    return [key for key in COLUMNS if key in found] + [f"infos/{key}" for key in infos]


def _member(path: Path, group: h5py.Group, key: str, shown: str = "") -> Any:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        _fail(path, f"{shown or key} is a soft or external link, which is not followed; store the values themselves")
    return group[key]


def _check_shapes(path: Path, nodes: Mapping[str, h5py.Dataset], sizes: Mapping[str, int | None]) -> None:
    rows, *columns = nodes["observations"].shape
    for key, node in nodes.items():
        rank = COLUMNS[key][1] if key in COLUMNS else node.ndim
        if node.ndim != rank and not (rank == 1 and node.shape[1:] == (1,)):
            wanted = "(rows,)" if rank == 1 else "(rows, columns)"
            _fail(path, f"{key} has rank {node.ndim} (shape {node.shape}); store it as {wanted}")
        if node.shape[0] != rows:
            _fail(path, f"{key} has {node.shape[0]} rows, observations have {rows}; make their lengths equal")
        size = columns[0] if key == "next_observations" else sizes.get(key)
        if size is not None and node.shape[1] != size:
            _fail(path, f"{key} has {node.shape[1]} columns, expected {size}; is this another task's file?")


MOST_PACKED = 1100  # times that HDF5's filters make values smaller: deflate comes to 1032
_UNPACKED = 64 << 20  # bytes that nobody needs to ask about


def _check_claim(path: Path, nodes: Mapping[str, h5py.Dataset]) -> None:
    """Refuses a file that says to hold more than its bytes can, before memory is reserved for it."""
    claimed = sum(math.prod(node.shape) * node.dtype.itemsize for node in nodes.values())
    if claimed > max(_UNPACKED, MOST_PACKED * path.stat().st_size):
        claim = f"{nodes['observations'].shape[0]:,} rows, {claimed / 1e9:,.1f} GB"
        _fail(path, f"it claims {claim}, many times what its bytes can hold; write it again, whole")


def _fill(path: Path, key: str, node: h5py.Dataset, into: np.ndarray) -> None:
    """Copies an array of the file into one of the dataset. Raises UserError where that cannot hold its values."""
    bad_count, first_bad, problem = 0, 0, ""
    for rows in row_slices(node, node.chunks[0] if node.chunks else 1):  # no chunk of the file is unpacked twice
        values = node[rows]
        if key in COLUMNS:
            values, bad, problem = _converted(values.reshape(into[rows].shape), into.dtype)
            if bad.any():
                first_bad = first_bad if bad_count else rows.start + int(bad.argmax())
                bad_count += int(bad.sum())
        into[rows] = values
    if bad_count:
        _fail(path, f"{key} is {problem} in {bad_count} rows, first in row {first_bad}; correct or remove them")


def _converted(values: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, str]:
    """The values as bool or float32, a mask (rows,) of those that cannot be converted, and what is wrong with them."""
    if dtype == np.bool_:
        return values.astype(dtype, copy=False), (values != 0) & (values != 1), "neither 0 nor 1"
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused
        values = values.astype(dtype, copy=False)
    bad = ~np.isfinite(values)
    return values, bad.any(axis=1) if bad.ndim == 2 else bad, "not finite as float32"


def _clip(path: Path, actions: np.ndarray, low: ArrayLike, high: ArrayLike, clip: bool) -> int:
    """Clips the actions into their box, in place; returns how many rows were outside by more than the tolerance."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    outside, worst, worst_row = 0, -np.inf, 0
    for rows in row_slices(actions):
        part = actions[rows]
        excess = np.maximum(low - part, part - high).max(axis=1)
        outside += int((excess > _ACTION_TOLERANCE).sum())
        if excess.max() > worst:
            worst, worst_row = excess.max(), rows.start + int(excess.argmax())
        np.clip(part, low, high, out=part)
    if outside and not clip:
        where = f"the worst by {worst:.4g} in row {worst_row}"
        _fail(path, f"actions lie outside their box in {outside} rows, {where}; rescale them, or clip them with --clip-actions")
    return outside


def _shift(observations: np.ndarray, next_observations: np.ndarray) -> None:
    """Fills in next observations: each row's is the observation of the row after it, the last row's its own."""
    last = len(observations) - 1
    for rows in row_slices(observations):  # numpy would copy the whole, since the two lie in one table
        stop = min(rows.stop, last)
        next_observations[rows.start : stop] = observations[rows.start + 1 : stop + 1]
    next_observations[last] = observations[last]


def _provenance(path: Path, file: h5py.File) -> dict[str, Any]:
    """The provenance that `write_hdf5` stored; of other files, their name."""
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
