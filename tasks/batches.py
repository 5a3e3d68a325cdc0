"""Where the batch of a task comes from: D4RL's file if it is here, else made again from what the package bundles, else a file
that the user names. Labelled task@source wherever it is shown."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import filelock
import gymnasium
import mujoco
import platformdirs

from .behaviour import RECIPE_VERSION
from .dataset import OfflineDataset, read_hdf5, write_hdf5
from .errors import UserError
from .task import DataFile, Task

SOURCES = ("auto", "d4rl", "regenerated")


@dataclass(frozen=True)
class BatchRequest:
    """Which batch of a task is wanted.

    source: "auto" takes D4RL's v0 file if it is here, else regenerates. rows: of a regenerated batch (None: the task's own
    number). window: see `OfflineDataset.window`. file: a user's own HDF5 file in D4RL's layout, instead of all that.
    """

    source: str = "auto"
    rows: int | None = None
    window: str = "all"
    file: Path | None = None
    seed: int = 0
    clip_actions: bool = False


def cache_folder() -> Path:
    """$MOPO_BENCH_DATA, else the platform's cache folder."""
    return Path(os.environ.get("MOPO_BENCH_DATA") or platformdirs.user_cache_dir("mopo-bench"))


def d4rl_path(file: DataFile) -> Path | None:
    """Where a file of D4RL is on this machine: in our cache, or in D4RL's own folder; v0 and v2 files never share a name."""
    own = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
    for path in (cache_folder() / "d4rl" / file.name, own / file.name):
        if path.is_file():
            return path
    return None


def load_batch(task: Task, request: BatchRequest) -> OfflineDataset:
    """The batch, validated; its provenance holds `label` (task@source) and where it comes from."""
    if request.source not in SOURCES:
        raise UserError(f"unknown data source {request.source!r}: choose one of {', '.join(SOURCES)}")
    if request.rows is not None and request.rows < 1:
        raise UserError(f"cannot make a batch of {request.rows} rows: ask for at least 1")
    if request.file is not None:
        batch = _read(task, request.file, request, {"source": "file", "from": request.file.name})
    elif request.source != "regenerated" and (found := _d4rl_here(task)):
        file, path = found
        if request.rows is not None:
            raise UserError(f"{task.name}: --rows is for regenerated batches, and {path} is here; add --data regenerated")
        check_file(file, path)
        notes = {"source": file.version, "from": f"D4RL {file.version}, {file.name}"}
        batch = _read(task, path, request, notes, max_episode_steps=file.episode_rows, part_rows=file.part_rows)
    elif missing := why_missing(task, request):
        raise UserError(f"there is no batch for {task.name}: {missing}; put one there, or use --batch FILE")
    else:
        batch = _regenerated(task, request)
    return batch.window(request.window)


def why_missing(task: Task, request: BatchRequest) -> str | None:
    """Why there is no such batch on this machine, in a few words; None where there is one. Reads and makes nothing."""
    if request.file is not None or (request.source != "regenerated" and _d4rl_here(task)):
        return None
    file = task.files[0].name if task.files else None
    if request.source == "d4rl":
        return f"D4RL's {file} is not in {cache_folder() / 'd4rl'}" if file else "it is not a task of D4RL"
    if task.regenerate is None:
        return "no policy of it is bundled" + (f", and {file} is not in {cache_folder() / 'd4rl'}" if file else "")
    return None


def _d4rl_here(task: Task) -> tuple[DataFile, Path] | None:
    for file in task.files:
        if file.version == "v0" and (path := d4rl_path(file)):
            return file, path
    return None


def check_file(file: DataFile, path: Path) -> None:
    """Raises UserError unless the file is D4RL's, by size and SHA-256: its name alone gives nobody the paper's label."""
    size = path.stat().st_size
    if size != file.bytes:
        found = f"{size:,} bytes where D4RL's has {file.bytes:,}"
    elif _sha256(path, size, path.stat().st_mtime_ns) != file.sha256:
        found = "another checksum than D4RL's"
    else:
        return
    raise UserError(f"{path} has {found}: fetch it again, or name a file of your own with --batch")


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(task: Task, path: Path, request: BatchRequest, provenance: dict, **layout: Any) -> OfflineDataset:
    return read_hdf5(
        path,
        observation_size=task.observation_size,
        action_size=task.action_size,
        action_low=task.action_low,
        action_high=task.action_high,
        **{"max_episode_steps": task.max_episode_steps, **layout},
        clip_actions=request.clip_actions,
        provenance={**provenance, "label": f"{task.name}@{provenance['source']}"},
    )


def _regenerated(task: Task, request: BatchRequest) -> OfflineDataset:
    """Made once and kept in the cache; two processes that want the same one at once make it once."""
    assert task.regenerate is not None
    rows = request.rows or task.regenerated_rows
    name = f"{task.name}-{rows}-seed{request.seed}-{_recipe_digest(task)}.hdf5"
    path = cache_folder() / "regenerated" / name
    with _cache_trouble(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    try:
        if not path.exists():
            batch = task.regenerate(task, rows, request.seed)
            with _cache_trouble(path.parent):
                write_hdf5(batch, path, compression="lzf")
    finally:
        lock.release()
    return _read(task, path, request, {"source": "regenerated", "from": task.regenerated_from})


@contextmanager
def _cache_trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot keep batches in {folder}: {error.strerror or error}; set MOPO_BENCH_DATA to a folder that can be written"
        ) from None


def _recipe_digest(task: Task) -> str:
    """Of what a regenerated batch is made from: bundled files, rules and parameters, recipe, versions of the simulator."""
    state = hashlib.sha256(repr((task.identity(), RECIPE_VERSION, gymnasium.__version__, mujoco.__version__)).encode())
    for kind in ("npz", "hdf5"):
        bundled = resources.files(__package__) / "bundled" / f"{task.name}.{kind}"
        if bundled.is_file():
            state.update(bundled.read_bytes())
    return state.hexdigest()[:8]
