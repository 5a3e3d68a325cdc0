"""The rows of `mopo-bench data list`: which dataset each task has on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...tasks.data.d4rl import FileState, verify
from ...tasks.data.hdf5 import open_hdf5
from ...tasks.data.sources import DatasetRequest, regenerated_path
from ...tasks.registry import all_tasks


def data_listing() -> list[dict[str, Any]]:
    """One row per task: the dataset that `--data auto` takes, by the label of runs on it, its rows (of one that is still to be
    made, the most that it may have), and whether it is here; the states of D4RL's files, by size alone; and what a regenerated
    dataset is made from."""
    rows = []
    for task in all_tasks().values():
        states = {file.version: verify(file, hashing=False) for file in task.recipe.files}
        v0 = states.get("v0", FileState("absent"))
        label, count, most = task.recipe.label, None, None
        if v0.status in ("right size", "accepted"):
            label, count, here = "v0" if v0.status == "right size" else "v0-changed", rows_of(v0.path), "yes"
        elif v0.status != "absent":  # a run refuses it; nothing is made in its place
            label, count, here = "v0", None, f"no: {v0.status}"
        elif task.recipe.regenerate is None:
            label, here = "v0" if task.recipe.files else "", "no"
        else:
            made = regenerated_path(task, DatasetRequest())
            here = "yes" if made.exists() else "made when asked for"
            count, most = (rows_of(made), None) if made.exists() else (None, task.recipe.rows)
        if here == "yes" and count is None:
            here = "no: it cannot be read"
        rows.append(
            {
                "name": task.name,
                "dataset": f"{task.name}@{label}" if label else "a file of yours, --dataset FILE",
                "rows": count,
                "rows_at_most": most,
                "here": here,
                "d4rl_file": task.recipe.files[0].name if task.recipe.files else None,
                **{version: states[version].status if version in states else None for version in ("v0", "v2")},
                "made_from": task.recipe.made_from or None,
            }
        )
    return rows


def rows_of(path: Path | None) -> int | None:
    """The number of rows of an HDF5 file in D4RL's layout; None where it cannot be read."""
    if path is None:
        return None
    try:
        with open_hdf5(path) as file:
            return len(file["rewards"])
    except (OSError, KeyError, TypeError):
        return None
