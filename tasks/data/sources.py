"""Where the dataset of a task comes from: D4RL's file if it is on this machine, else one regenerated from what the package
bundles, else a file that the user names. It is labelled task@source wherever it is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import filelock

from ...common.errors import UserError, in_words
from ...common.settings import converted
from ..task import DataFile, Task, name_of
from . import BUNDLED
from .d4rl import cache_folder, cache_trouble, check_file, d4rl_path, sha256_of
from .dataset import OfflineDataset
from .hdf5 import write_hdf5
from .memory_mapped import mapped
from .recipes import RECIPE_VERSION
from .relabelling import with_rewards_for
from .request import DatasetRequest, Source


def load_dataset(task: Task, request: DatasetRequest) -> OfflineDataset:
    """Finds or regenerates a dataset, and validates it.

    Its provenance holds `label`, which is task@source, and `from`, where it comes from in words. Raises UserError, one line
    that says what to do, where there is no such dataset or it is not usable.
    """
    converted(request.source, Source, "--data")
    if request.rows is not None and request.rows < 1:
        raise UserError(f"cannot make a dataset of {request.rows} rows: ask for at least 1")
    if request.seed < 0:
        raise UserError(f"--data-seed {request.seed}: seeds are 0 or more")
    if request.file is not None:
        dataset = with_rewards_for(task, _read(task, request.file, request, {"source": "file"}), request.file)
    elif found := _d4rl_here(task, request.source):
        file, path = found
        if request.rows is not None:
            raise UserError(f"{task.name}: --rows is for regenerated datasets, and {path} is here; add --data regenerated")
        notes = {"source": file.version, "from": f"D4RL {file.version}, {file.name}"}
        if check_file(file, path) == "accepted":
            notes["source"] += "-changed"
            notes["from"] += f", changed and accepted by its SHA-256 {sha256_of(path)[:8]}"
        dataset = with_rewards_for(task, _read(task, path, request, notes), path)
    elif missing := why_missing(task, request):
        raise UserError(f"there is no dataset for {task.name}: {missing}; --dataset FILE takes one of your own")
    else:
        dataset = _regenerated(task, request)
    return dataset.window(request.window)


def why_missing(task: Task, request: DatasetRequest) -> str | None:
    """Says in a few words why there is no such dataset on this machine; None where there is one. Reads and makes nothing."""
    if request.file is not None or _d4rl_here(task, request.source):
        return None
    file = _d4rl_name(task, request.source)
    if request.source.startswith("d4rl"):
        return to_fetch({task.name: file}, request.source) if file else "it is not a task of D4RL"
    if task.recipe.regenerate is None:
        if not file:
            return f"it has none of its own; a file is read by `mopo-bench data inspect FILE --task {task.name}`"
        return f"no policy of it is bundled, and {file} is not in {cache_folder() / 'd4rl'}"
    return None


def file_to_fetch(task: Task, request: DatasetRequest) -> str | None:
    """The name of D4RL's file, where that is what the request asks for and what is not on this machine."""
    wanted = request.file is None and request.source.startswith("d4rl") and not _d4rl_here(task, request.source)
    return _d4rl_name(task, request.source) if wanted else None


def _d4rl_name(task: Task, source: str) -> str | None:
    return next((file.name for file in task.recipe.files if file.version == _version(source)), None)


def to_fetch(files: Mapping[str, str], source: str) -> str:
    """How files of D4RL that are not here, by task, are brought."""
    are, them = ("is", "it") if len(files) == 1 else ("are", "them")
    return (
        f"D4RL's {in_words(files.values())} {are} not in {cache_folder() / 'd4rl'}; `mopo-bench data fetch {' '.join(files)} "
        f"--version {_version(source)}` brings {them}, with --mirror FOLDER from a folder of yours"
    )


def _version(source: str) -> str:
    return "v2" if source == "d4rl-v2" else "v0"  # v0 is the paper's


def _d4rl_here(task: Task, source: str) -> tuple[DataFile, Path] | None:
    for file in task.recipe.files:
        if source != "regenerated" and file.version == _version(source) and (path := d4rl_path(file)):
            return file, path
    return None


def _read(task: Task, path: Path, request: DatasetRequest, provenance: dict[str, Any]) -> OfflineDataset:
    problem = task.problem
    dataset = mapped(
        path,
        cache_folder() / "arrays",
        observation_size=problem.observation_size,
        action_size=problem.action_size,
        action_low=problem.action_box.low,
        action_high=problem.action_box.high,
        max_episode_steps=problem.max_episode_steps,
        kinematics=task.recipe.kinematics,
        clip_actions=request.clip_actions,
        provenance={"label": f"{task.name}@{provenance['source']}", **provenance},
    )
    if request.file is None:
        return dataset
    layout = dataset.provenance.get("layout")
    name = "/".join(path.parts[-3:]) if path.name == "main_data.hdf5" else path.name  # as all of Minari's are called
    return dataset.noting(**{"from": f"{name}, in {layout}'s layout" if layout else name})


def _regenerated(task: Task, request: DatasetRequest) -> OfflineDataset:
    """Regenerates the dataset, or reads it from the cache; of processes that want it at the same time one makes it."""
    assert task.recipe.regenerate is not None
    rows, path = request.rows or task.recipe.rows, regenerated_path(task, request)
    with cache_trouble(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    try:
        if not path.exists():
            dataset = task.recipe.regenerate(task, rows, request.seed)
            with cache_trouble(path.parent):
                write_hdf5(dataset, path, compression="lzf")
    finally:
        lock.release()
    notes = {"source": task.recipe.label, "from": task.recipe.made_from}
    if request.seed:  # another dataset, of some tasks from another training run
        notes["label"] = f"{task.name}@{task.recipe.label}-seed{request.seed}"
    dataset = _read(task, path, request, notes)
    if request.rows and len(dataset) < 0.9 * request.rows:  # whole episodes are seldom as many rows as were asked for
        said = f"{task.recipe.made_from}, {len(dataset):,} of the {request.rows:,} rows asked for"
        dataset = dataset.noting(**{"from": said})
    policies = dataset.provenance.get("policies", [])
    if idle := sum(each.get("rows") == 0 for each in policies):
        origin = f"{task.recipe.made_from} (too few rows for {idle} of these {len(policies)} policies)"
        return dataset.noting(**{"from": origin})
    return dataset


def regenerated_path(task: Task, request: DatasetRequest) -> Path:
    """The file in the cache that holds the regenerated dataset, or will hold it."""
    name = f"{task.name}-{request.rows or task.recipe.rows}-seed{request.seed}-{_recipe_digest(task)}.hdf5"
    return cache_folder() / "regenerated" / name


def _recipe_digest(task: Task) -> str:
    """A digest of all that decides a regenerated dataset: bundled files, rules, parameters, recipe, versions of the simulator.

    Part of the file's name in the cache, so that a change of any makes another file.
    """
    import gymnasium  # takes longer than finding a dataset that is here
    import mujoco

    recipe, regenerate = task.recipe, task.recipe.regenerate
    how = regenerate if is_dataclass(regenerate) else _name(regenerate)
    logged = (sorted(recipe.collected_under.items()), recipe.recorded, recipe.reward and _name(recipe.reward))
    versions = (RECIPE_VERSION, getattr(regenerate, "version", 1), gymnasium.__version__, mujoco.__version__)
    state = hashlib.sha256(repr((task.identity(), how, logged, versions)).encode())
    for name in getattr(regenerate, "files", ()):
        state.update((BUNDLED / name).read_bytes())
    return state.hexdigest()[:8]


def _name(function: Any) -> str:
    """The name of a function in a digest."""
    try:
        return name_of(function)
    except UserError:  # a lambda or closure has no name of its own: where it is defined has to do
        return f"{function.__module__}.{function.__qualname__}"
