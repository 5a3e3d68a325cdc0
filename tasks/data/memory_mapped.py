"""Memory-mapped datasets: a file is unpacked once into plain arrays on disk, which all processes of a machine share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ...common.errors import UserError
from ...common.files import reserve
from .d4rl import cache_trouble, sha256_of
from .dataset import OfflineDataset, Packing
from .hdf5 import read_hdf5, require_hdf5, trouble_reported

READER_VERSION = 3  # raised by hand when `read_hdf5` makes other arrays of the same file; it is then unpacked anew

_ABOUT = "about.json"
_FLAGS = ("terminals", "timeouts", "valid_next")
_PARTIAL = ".partial"


def mapped(
    path: str | os.PathLike[str], folder: Path, *, provenance: Mapping[str, Any] | None = None, **options: Any
) -> OfflineDataset:
    """The dataset that `read_hdf5` reads from `path` with `options` and `provenance`, mapped read-only from files in `folder`.

    The arrays take no memory of the process: their pages are the machine's, read when they are used. The first call
    unpacks the file into a folder of its own, named by a digest of the file's name and bytes and of the options; so do calls
    after a change of either, and where a file in the folder has not the size it should. The folder appears whole or not at
    all, and may be deleted at any time.

    Raises UserError as `read_hdf5` does, and where `folder` cannot be written.
    """
    path = Path(path)
    require_hdf5(path)
    with trouble_reported(path):
        source = sha256_of(path)
    # the name, too: the provenance of a file that says nothing of its origin names it
    identity = json.dumps([READER_VERSION, path.name, source, options], default=_plain, sort_keys=True)
    target = folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
    dataset = _opened(target, provenance)
    if dataset is None:
        with cache_trouble(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock"):
                dataset = _opened(target, provenance)  # another process may have been quicker
                if dataset is None:
                    _unpack(path, source, target, options)
                    dataset = _open(target, provenance)
    return dataset


def _unpack(path: Path, source: str, target: Path, options: Mapping[str, Any]) -> None:
    """Makes the folder `target`. The caller holds the lock: half-written folders are those of killed processes."""
    for leftover in target.parent.glob(f"*{_PARTIAL}"):
        shutil.rmtree(leftover)
    partial = target.with_suffix(_PARTIAL)
    partial.mkdir()
    files: dict[str, str] = {}

    def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        files[name] = f"extra-{len(files)}.npy" if "/" in name else f"{name}.npy"  # an extra may have any name
        with cache_trouble(target.parent):
            return _new_file(partial / files[name], shape, dtype)

    try:
        dataset = read_hdf5(path, **options, allocate=allocate)
        if sha256_of(path) != source:
            raise UserError(f"{path} was changed while it was read: run again")
        about = {
            "files": files,
            "bytes": {name: (partial / name).stat().st_size for name in files.values()},
            "observation_size": dataset.packing.observation_size,
            "action_size": dataset.packing.action_size,
            "digest": dataset.digest(),
            "provenance": dataset.provenance,
        }
        (partial / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        for written in partial.iterdir():  # or a machine that loses its power might be left with zeros
            with written.open("rb+") as file:
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _new_file(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    reserve(path, path.stat().st_size)  # a full disk is then an error here, not a signal when a page is written
    return array


def _open(folder: Path, provenance: Mapping[str, Any] | None) -> OfflineDataset:
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    for name, size in about["bytes"].items():
        if (folder / name).stat().st_size != size:
            raise ValueError(f"{name} is not of {size} bytes")
    arrays = {name: np.load(folder / file, mmap_mode="r", allow_pickle=False) for name, file in about["files"].items()}
    packing, table = Packing(about["observation_size"], about["action_size"]), arrays.pop("table")
    dataset = OfflineDataset(
        **packing.views(table),
        **{name: arrays.pop(name) for name in _FLAGS},
        extras=arrays,
        provenance={**about["provenance"], **(provenance or {})},
    )
    return dataset.trusting(about["digest"])


def _opened(folder: Path, provenance: Mapping[str, Any] | None) -> OfflineDataset | None:
    """The dataset in a folder; None where there is no such folder, or it is not whole."""
    try:
        return _open(folder, provenance)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _plain(value: Any) -> Any:
    """Converts numpy's numbers and arrays to what JSON can hold."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{value!r} cannot name a folder of arrays")
