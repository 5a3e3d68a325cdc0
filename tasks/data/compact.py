"""Replay buffers as the package ships them: HDF5 in D4RL's layout, numbers to 1e-4, each observation stored once."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ...common.errors import UserError
from ...common.files import replace_file
from .dataset import COLUMNS, OfflineDataset
from .hdf5 import open_hdf5, read_hdf5, trouble_reported, write_provenance

DECIMALS = 4  # of what is stored: 1e-4, where an ensemble's error of a one-step prediction is 1e-2 and more
FINAL = "final_observations"


def write_compact(dataset: OfflineDataset, path: Path, extras: Collection[str] = ()) -> None:
    """Writes the dataset with observations, actions, rewards and the named extras cut to four decimals, by HDF5's own filter.

    Next observations are those of the row after; what follows the last row of each episode is stored in addition, as
    `final_observations` (episodes, obs). A reader of D4RL's layout that does not know of it loses these successors alone.
    About 47 bytes a row for halfcheetah, where the float32 arrays have 168. Raises UserError for a dataset in which another
    row than an episode's last has a next observation that is not the observation of the row after.
    """
    ends = dataset.episodes()[1] - 1
    inner = np.ones(len(dataset), bool)
    inner[ends] = False
    if not np.array_equal(dataset.next_observations[inner], dataset.observations[np.flatnonzero(inner) + 1]):
        raise UserError(f"{path}: not written, since next observations are not those of the row after; keep them in full")
    arrays = {
        "observations": dataset.observations,
        "actions": dataset.actions,
        "rewards": dataset.rewards,
        FINAL: dataset.next_observations[ends],
        **{name: dataset.extras[name].astype(np.float32) for name in extras},
    }

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            for name, array in arrays.items():
                chunks = (len(array), *(1 for _ in array.shape[1:]))  # a column, which gets the bits that its range asks for
                file.create_dataset(name, data=array, chunks=chunks, scaleoffset=DECIMALS, compression="gzip")
            for name in ("terminals", "timeouts"):
                file.create_dataset(name, data=getattr(dataset, name), compression="gzip")
            write_provenance(file, dataset.provenance)

    replace_file(path, write)


def read_compact(path: str | os.PathLike[str], *, action_low: ArrayLike, action_high: ArrayLike) -> OfflineDataset:
    """The dataset that `write_compact` wrote, with all its successors; other files in D4RL's layout as `read_hdf5` does."""
    dataset = read_hdf5(path, action_low=action_low, action_high=action_high)
    with trouble_reported(Path(path)), open_hdf5(path) as file:
        if FINAL not in file:
            return dataset
        final = file[FINAL][:]
    ends = dataset.episodes()[1] - 1
    if final.shape != (len(ends), dataset.observations.shape[1]):
        raise UserError(
            f"{path}: {FINAL} has shape {final.shape}, expected a row for each of {len(ends)} episodes; write it again"
        )
    successors = dataset.next_observations.copy()
    successors[ends] = final
    return replace(dataset, next_observations=successors, valid_next=np.ones(len(dataset), bool))


def thinned(dataset: OfflineDataset, rows: int) -> OfflineDataset:
    """About `rows` rows: every so-many-th episode of the log, so that a replay buffer keeps its spread of skill.

    Episodes are counted, not their rows: to fill up with rows would prefer short episodes, which are those that fell. The whole
    dataset where it has no more; its first rows where they are less than half an episode. `provenance` says of how many rows
    these are. Raises UserError for fewer than 1.
    """
    if rows < 1:
        raise UserError(f"cannot keep {rows} rows of a dataset: ask for at least 1")
    if rows >= len(dataset):
        return dataset
    starts, stops = dataset.episodes()
    due = np.arange(len(starts) + 1) * rows / len(dataset) + 0.5  # episodes to have been kept before each, from the middle on
    kept = np.flatnonzero(np.floor(due[1:]) > np.floor(due[:-1]))
    chosen = np.concatenate([np.arange(starts[each], stops[each]) for each in kept]) if len(kept) else np.arange(rows)
    provenance = {**dataset.provenance, "thinned_from": len(dataset)}
    if chosen[0] > 0:
        provenance.pop("starts_within_an_episode", None)  # what a window had left of its first episode is gone
    return replace(
        dataset,
        **{name: getattr(dataset, name)[chosen] for name in COLUMNS},
        extras={name: array[chosen] for name, array in dataset.extras.items()},
        provenance=provenance,
    )
