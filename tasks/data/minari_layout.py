"""Minari's HDF5 layout: a group for each episode, which stores one observation more than it has steps.

https://minari.farama.org/content/dataset_standards. Observations and actions must be arrays: no other spaces are read. What is
written here besides is `infos/valid_next`, and the provenance, as an attribute of the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...common.errors import UserError, WriteError
from .dataset import OfflineDataset
from .episodes import jumps

# our name: Minari's, and the first row that is ours, since row t + 1 of its observations is what step t leads to
_COLUMNS = {
    "observations": ("observations", 0),
    "actions": ("actions", 0),
    "rewards": ("rewards", 0),
    "next_observations": ("observations", 1),
    "terminals": ("terminations", 0),
    "timeouts": ("truncations", 0),
}
_BEFORE_THE_STEP = ("qpos", "qvel")  # of `infos`: a dataset stores them as they were before the step, see `recorded_step`

_PROVENANCE = "mopo_bench_provenance"
_LONGEST = 60_000  # bytes; HDF5 keeps no longer attribute

NodeOf = Callable[[str], h5py.Dataset]  # the array of that path within the file, checked


class Joined:
    """An array of all episodes, one after another, read in slices as an HDF5 dataset is.

    nodes: paths and arrays, one an episode. starts: (episodes + 1,), each episode's first row here, and the end. first: the row
    of each array that is the first here. Raises ValueError where the rows of different episodes differ in shape.
    """

    chunks = None

    def __init__(self, file: h5py.File, nodes: Mapping[str, h5py.Dataset], starts: np.ndarray, first: int):
        shapes = {node.shape[1:] for node in nodes.values()}
        if len(shapes) > 1:
            raise ValueError(f"shapes {', '.join(map(str, sorted(shapes)))}")
        self._file, self._paths, self._starts, self._first = file, list(nodes), starts, first
        self.shape: tuple[int, ...] = (int(starts[-1]), *shapes.pop())
        self.dtype = np.result_type(*{node.dtype for node in nodes.values()})
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        values = np.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
        episode = int(np.searchsorted(self._starts, rows.start, "right")) - 1
        while self._starts[episode] < rows.stop:
            start, stop = (int(edge) for edge in self._starts[episode : episode + 2])
            begin, end, shift = max(start, rows.start), min(stop, rows.stop), self._first - start
            values[begin - rows.start : end - rows.start] = self._file[self._paths[episode]][begin + shift : end + shift]
            episode += 1
            if episode + 1 == len(self._starts):
                break
        return values


def episodes_in(names: Iterable[str]) -> list[str]:
    """The groups of a file that are Minari's episodes, in order."""
    found = [name for name in names if re.fullmatch(r"episode_[0-9]+", name)]
    return sorted(found, key=lambda name: int(name.removeprefix("episode_")))


def minari_nodes(file: h5py.File, node_of: NodeOf) -> tuple[dict[str, Joined], np.ndarray, list[str]]:
    """The arrays of a dataset by our names, the row after each episode's last, and the entries of `infos` that are left out.

    Those are what some episodes lack, what is no array of numbers, and what has neither a row for each step nor one more.
    Raises ValueError, which says what does not fit, and whatever `node_of` raises.
    """
    episodes = episodes_in(file)
    found = {
        name: {path: node_of(path) for path in (f"{episode}/{name}" for episode in episodes)}
        for name in dict.fromkeys(name for name, _ in _COLUMNS.values())
    }
    lengths = [len(node) for node in found["rewards"].values()]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for name, arrays in found.items():
        for (path, node), length in zip(arrays.items(), lengths, strict=True):
            if len(node) != (wanted := length + (name == "observations")):
                raise ValueError(f"{path} has {len(node)} rows where {length} rewards need {wanted}")
    nodes = {}
    for ours, (name, first) in _COLUMNS.items():
        try:
            nodes[ours] = Joined(file, found[name], starts, first)
        except ValueError as error:
            raise ValueError(f"{name} of different episodes have rows of {error}") from None
    infos, left_out = [_infos(file[episode]) for episode in episodes], []
    for name in sorted(set().union(*infos)):
        arrays = {f"{episode}/infos/{name}": info.get(name) for episode, info in zip(episodes, infos, strict=True)}
        more = {None if node is None else len(node) - rows for node, rows in zip(arrays.values(), lengths, strict=True)}
        try:
            if more not in ({0}, {1}):
                raise ValueError("not a row for each step")
            first = 1 if more == {1} and name not in _BEFORE_THE_STEP else 0
            column = "valid_next" if name == "valid_next" else f"infos/{name.replace('/', '.')}"
            nodes[column] = Joined(file, arrays, starts, first)
        except ValueError:
            left_out.append(name)
    return nodes, starts[1:], left_out


def _infos(episode: h5py.Group) -> dict[str, h5py.Dataset | None]:
    """What is in an episode's `infos`, by its path there: arrays of numbers, None for all else."""
    found: dict[str, h5py.Dataset | None] = {}

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            usable = node.shape and node.dtype.kind in "fiub" and not (node.is_virtual or node.external)
            found[name] = node if usable else None

    if isinstance(episode.get("infos", getlink=True), h5py.HardLink) and isinstance(episode["infos"], h5py.Group):
        episode["infos"].visititems(note)  # which follows no link
    return found


def stored_provenance(file: h5py.File) -> dict[str, Any]:
    """What `write_minari` noted of where a dataset comes from; empty for files of others."""
    if _PROVENANCE not in file.attrs or file.attrs.get_id(_PROVENANCE).dtype.kind != "S":
        return {}
    try:
        return dict(json.loads(bytes(file.attrs[_PROVENANCE])))
    except (ValueError, TypeError):
        return {}


def write_minari(
    dataset: OfflineDataset, folder: Path, metadata: Mapping[str, Any], action_box: tuple[Any, Any], specification: Any
) -> None:
    """Writes the dataset with Minari's own writer to `folder`, which appears whole or not at all.

    metadata: further entries of Minari's metadata.json. action_box: lowest and highest actions. specification: Gymnasium's, of
    the environment; None where nobody knows it. Where a row's next observation is not known, its own observation stands in
    its place. Raises UserError where Minari is not installed, or the layout cannot hold the rows, and WriteError where the
    folder cannot be written.
    """
    from gymnasium.spaces import Box  # what only reads has no need of it

    try:
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise UserError(f"--to minari needs Minari ({error}): pip install 'mopo-bench[minari]'") from None
    apart = jumps(dataset.observations, dataset.next_observations) & dataset.followed()
    if apart.any():
        raise UserError(
            f"next observations of {apart.sum():,} rows are not those of the next row, though their episodes go on: Minari's "
            "layout has no place for them; write them with --to d4rl"
        )
    sizes = dataset.packing
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), (sizes.action_size,)) for bound in action_box)
    spaces = (Box(-np.inf, np.inf, (sizes.observation_size,), np.float32), Box(low, high, dtype=np.float32))
    partial = folder.resolve().with_name(f".{folder.name}.part")  # Minari loses its way on a relative one
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        storage = MinariStorage.new(partial, *spaces, env_spec=specification, data_format="hdf5")
        storage.update_metadata({**metadata, "minari_version": importlib.metadata.version("minari")})
        storage.update_episodes(_episodes(dataset))
        provenance = dataset.provenance
        if len(json.dumps(provenance)) > _LONGEST:  # of many policies
            provenance = {key: value for key, value in provenance.items() if key not in ("policies", "parts")}
        with h5py.File(partial / "main_data.hdf5", "r+", locking=False) as file:
            file.attrs[_PROVENANCE] = np.bytes_(json.dumps(provenance))
        partial.rename(folder)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written ({error.strerror or error}); check the folder and free space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _episodes(dataset: OfflineDataset) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    extras = {name.removeprefix("infos/"): array for name, array in dataset.extras.items()} | {"valid_next": dataset.valid_next}
    for start, stop in zip(*dataset.episodes(), strict=True):
        rows = slice(start, stop)
        last = dataset.next_observations if dataset.valid_next[stop - 1] else dataset.observations
        yield EpisodeBuffer(
            observations=np.concatenate([dataset.observations[rows], last[stop - 1 : stop]]),
            actions=dataset.actions[rows],
            rewards=dataset.rewards[rows],
            terminations=dataset.terminals[rows],
            truncations=dataset.timeouts[rows],
            infos={name: array[rows] for name, array in extras.items()},
        )
