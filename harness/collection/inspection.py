"""What is in a batch, as facts and as a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...common.errors import UserError
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.hdf5 import read_hdf5
from ...tasks.data.sources import DatasetRequest, load_dataset
from ...tasks.registry import all_tasks, get_task
from ...tasks.task import Task
from ..report.paper import DATASET_COLUMNS, HEADINGS, paper_table

SLICE = 100_000  # rows looked at together, so that a batch of millions is inspected in bounded memory


def find_dataset(task_or_file: str, request: DatasetRequest, task: str | None = None) -> tuple[OfflineDataset, Task | None]:
    """The batch of a task, or of a file named by a path (one that exists, or ends in .hdf5 or .h5), read as a batch of `task`.

    A file without a task is read with what any file has in common: no action box, no knowledge of where episodes end.
    """
    path = Path(task_or_file)
    if task_or_file in all_tasks() or not (path.exists() or path.suffix in (".hdf5", ".h5")):
        if task not in (None, task_or_file):
            raise UserError(f"--task {task} is for files: {task_or_file} is read as itself")
        chosen = get_task(task_or_file)
        return load_dataset(chosen, request), chosen
    if request.source != "auto" or request.rows is not None or request.seed:
        raise UserError(f"{path} is a file: --data, --rows and --data-seed are for tasks")
    if task is not None:
        chosen = get_task(task)
        return load_dataset(chosen, replace(request, file=path)), chosen
    if request.clip_actions:
        raise UserError(f"--clip-actions: say whose actions {path} holds with --task")
    batch = read_hdf5(path, action_low=-math.inf, action_high=math.inf, provenance={"label": str(path)})
    return batch.window(request.window), None


def inspect_dataset(batch: OfflineDataset, task: Task | None) -> dict[str, Any]:
    """Facts by name, JSON-able: counts, returns, ranges per dimension, and oddities in words.

    With a task, also the normalised score of its mean and best episode, how often its termination rule and the stored
    terminals disagree, and the paper's Batch Mean and Batch Max where it prints them.
    """
    lengths, returns = batch.episode_lengths(), batch.episode_returns()
    facts: dict[str, Any] = {
        "label": batch.provenance.get("label"),
        **batch.describe(),
        "return_std": float(returns.std(ddof=1)) if len(returns) > 1 else None,
        "episode_length_min": int(lengths.min()),
        "episode_length_mean": float(lengths.mean()),
        "episode_length_max": int(lengths.max()),
    }
    if task is not None:
        for of in ("mean", "max"):
            facts[f"score_{of}"] = task.references.score(facts[f"return_{of}"]) if task.references else None
        printed = paper_table("table2")
        for column, of in DATASET_COLUMNS.items():
            if found := printed.get((task.name, HEADINGS[column])):
                facts[f"paper_{of}"] = found.mean
    for name in ("observations", "actions"):
        array, singular = getattr(batch, name), name.removesuffix("s")
        facts[f"{singular}_size"] = array.shape[1]
        facts[f"{singular}_low"], facts[f"{singular}_high"] = (
            [float(value) for value in of(array, axis=0)] for of in (np.min, np.max)
        )
    return {
        **facts,
        "stored_besides": sorted(batch.extras),
        "oddities": oddities(batch, task, facts),
        "from": batch.provenance.get("from"),
        "digest": batch.digest(),
    }


def summary(task: Task, request: DatasetRequest) -> dict[str, Any]:
    """A row for one task's batch: the facts by which batches are compared, the paper's beside them where it prints them."""
    facts = inspect_dataset(load_dataset(task, request), task)
    rounded = ("return_mean", "return_std", "return_max", "score_mean", "paper_return_mean", "paper_return_max")
    return {
        "batch": facts["label"],
        **{name: facts[name] for name in ("rows", "episodes")},
        **{name: None if facts.get(name) is None else round(facts[name], 1) for name in rounded},
        **{name: facts[name] for name in ("terminals", "repaired", "dropped")},
        "oddities": "; ".join(facts["oddities"]),
        "digest": facts["digest"][:12],
    }


def oddities(batch: OfflineDataset, task: Task | None, facts: dict[str, Any]) -> list[str]:
    """What a careful reader would want to know before trusting the batch, a sentence each; `facts`: what it says of itself."""
    found = []
    for name in ("observations", "actions"):
        array = getattr(batch, name)
        constant = np.flatnonzero(array.min(axis=0) == array.max(axis=0))
        if len(constant):
            found.append(f"{name} {', '.join(map(str, constant))} never change")
    if batch.rewards.min() == batch.rewards.max():
        found.append(f"every reward is {batch.rewards[0]:g}")
    if repeated := len(batch) - len(np.unique(_fingerprints(batch))):
        found.append(f"{repeated:,} rows repeat another row exactly")
    if task is None and facts["repaired"]:
        found.append("where episodes end was only counted: name the task with --task, and it is found from the data")
    if task is not None:
        if too_long := int((batch.episode_lengths() > task.problem.max_episode_steps).sum()):
            found.append(f"{too_long:,} episodes are longer than {task.problem.max_episode_steps} steps")
        if wrong := _against_the_rule(batch, task):
            found.append(f"{wrong:,} rows are terminal where the task's rule is not, or the other way round")
    both = int((batch.terminals & batch.timeouts).sum())
    if both:
        found.append(f"{both:,} rows are both terminal and timed out")
    return found


def _fingerprints(batch: OfflineDataset) -> np.ndarray:
    """(N,) uint64: equal for equal observations, actions, rewards and terminals; else different but by a chance of 2^-64."""
    columns = batch.observations.shape[1] + batch.actions.shape[1] + 2
    factors = np.random.default_rng(0).integers(1, 2**63, columns, dtype=np.uint64) | np.uint64(1)
    parts = []
    for first in range(0, len(batch), SLICE):
        rows = slice(first, first + SLICE)
        reals = (batch.observations[rows], batch.actions[rows], batch.rewards[rows, None], batch.terminals[rows, None])
        bits = np.concatenate(reals, axis=1, dtype=np.float32).view(np.uint32).astype(np.uint64)
        bits *= bits ^ np.uint64(0x9E3779B97F4A7C15)  # not linear, or exchanged columns could cancel
        parts.append((bits * factors).sum(axis=1, dtype=np.uint64))
    return np.concatenate(parts)


def _against_the_rule(batch: OfflineDataset, task: Task) -> int:
    wrong = 0
    usable = batch.valid_next  # elsewhere the next observation is not known
    for first in range(0, len(batch), SLICE):
        rows = slice(first, first + SLICE)
        arrays = (batch.observations[rows], batch.actions[rows], batch.next_observations[rows])
        over = task.problem.termination(*(torch.tensor(array) for array in arrays)).numpy()
        wrong += int(((over != batch.terminals[rows]) & usable[rows]).sum())
    return wrong
