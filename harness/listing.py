"""What `list` and `data` show, as lists of plain objects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..algorithms.registry import all_algorithms
from ..tasks.batches import BatchRequest, d4rl_path, load_batch
from ..tasks.dataset import read_hdf5
from ..tasks.registry import all_tasks, get_task
from .suite import suites


def listing(kind: str) -> list[dict[str, Any]]:
    """Rows of `list algorithms`, `list tasks` or `list suites`."""
    if kind == "algorithms":
        return [
            {
                "name": each.name,
                "learner": each.learner.__name__,
                "experience": each.experience.__name__,
                "stages": list(each.experience.stages),
                "versions": " ".join(each.versions.values()),
                "from": each.origin,
                "settings": each.configure(),
            }
            for each in all_algorithms().values()
        ]
    if kind == "tasks":
        return [
            {
                "name": task.name,
                "environment": task.environment,
                "sizes": f"{task.observation_size}/{task.action_size}",
                "steps": task.steps,
                "references": list(task.reference_returns or []),
                "termination": task.identity()["termination"],
                "paper": task.paper_table,
                "from": task.origin,
            }
            for task in all_tasks().values()
        ]
    return [
        {
            "name": suite.name,
            "tasks": list(suite.tasks),
            "algorithms": list(suite.algorithms),
            "seeds": suite.seeds,
            "description": suite.description,
        }
        for suite in suites().values()
    ]


def data_listing() -> list[dict[str, Any]]:
    """One row per task: D4RL's file and whether it is here, and what it is regenerated from."""
    rows = []
    for task in all_tasks().values():
        here = [file.version for file in task.files if d4rl_path(file)]
        rows.append(
            {
                "name": task.name,
                "d4rl_file": task.files[0].name if task.files else None,
                "here": here,
                "regenerated_rows": task.regenerated_rows if task.regenerate else None,
                "regenerated_from": task.regenerated_from or None,
            }
        )
    return rows


def inspect_batch(task_or_file: str, source: str, rows: int | None) -> dict[str, Any]:
    """The facts of a task's batch, or of a file named by a path (one that exists, or ends in .hdf5 or .h5)."""
    path = Path(task_or_file)
    if task_or_file not in all_tasks() and (path.exists() or path.suffix in (".hdf5", ".h5")):
        # no task says what the action box is, so any will do: the range is among the facts
        notes = {"label": str(path), "source": "file"}
        batch = read_hdf5(path, action_low=-math.inf, action_high=math.inf, provenance=notes)
    else:
        batch = load_batch(get_task(task_or_file), BatchRequest(source, rows))
    notes = batch.provenance
    return {
        "label": notes.get("label"),
        **batch.describe(),
        "observation_size": batch.observations.shape[1],
        "action_size": batch.actions.shape[1],
        "from": notes.get("from"),
        "digest": batch.digest(),
    }
