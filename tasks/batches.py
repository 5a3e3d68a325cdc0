"""Where the batch of a task comes from: D4RL's file if it is here, else made again from what the package bundles, else a file
that the user names. Labelled task@source wherever it is shown."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import filelock
import platformdirs

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
        batch = _read(task, path, request, {"source": file.version, "from": f"D4RL {file.version}, {file.name}"})
    elif request.source == "d4rl":
        wanted = task.files[0].name if task.files else None
        if wanted is None:
            raise UserError(f"{task.name} is not a task of D4RL: use --data regenerated or --batch FILE")
        raise UserError(
            f"{task.name}: D4RL's {wanted} is not on this machine; put it into {cache_folder() / 'd4rl'}, "
            "or use --data regenerated"
        )
    else:
        batch = _regenerated(task, request)
    return batch.window(request.window)


def _d4rl_here(task: Task) -> tuple[DataFile, Path] | None:
    for file in task.files:
        if file.version == "v0" and (path := d4rl_path(file)):
            return file, path
    return None


def _read(task: Task, path: Path, request: BatchRequest, provenance: dict) -> OfflineDataset:
    return read_hdf5(
        path,
        observation_size=task.observation_size,
        action_size=task.action_size,
        action_low=task.action_low,
        action_high=task.action_high,
        max_episode_steps=task.max_episode_steps,
        clip_actions=request.clip_actions,
        provenance={**provenance, "label": f"{task.name}@{provenance['source']}"},
    )


def _regenerated(task: Task, request: BatchRequest) -> OfflineDataset:
    """Made once and kept in the cache; two processes that want the same one at once make it once."""
    if task.regenerate is None:
        here = f"put {task.files[0].name} into {cache_folder() / 'd4rl'}" if task.files else "collect one"
        raise UserError(f"there is no batch for {task.name}: no policy of it is bundled; {here} or use --batch FILE")
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
    """Of what a regenerated batch is made from: the bundled actor and the environment's parameters and version."""
    import gymnasium
    import mujoco

    state = hashlib.sha256(repr((task.identity(), gymnasium.__version__, mujoco.__version__)).encode())
    actor = resources.files(__package__) / "bundled" / f"{task.name}.npz"
    if actor.is_file():
        state.update(actor.read_bytes())
    return state.hexdigest()[:8]
