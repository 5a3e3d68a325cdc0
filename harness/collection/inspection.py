"""What is in a dataset, as facts by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError, several
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.episodes import flag_notes
from ...tasks.data.hdf5 import read_hdf5
from ...tasks.data.sources import DatasetRequest, load_dataset
from ...tasks.registry import all_tasks, get_task
from ...tasks.simulation import checked_specification
from ...tasks.task import Task
from ..report.paper import DATASET_COLUMNS, HEADINGS, paper_table
from .acceptance import Check, check_dataset
from .doubts import SLICE, doubts
from .probes import probe_returns


def find_dataset(task_or_file: str, request: DatasetRequest, task: str | None = None) -> tuple[OfflineDataset, Task | None]:
    """The dataset of a task, or of a file named by its path (which exists, or ends in .hdf5 or .h5), read as one of `task`.

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
    dataset = read_hdf5(path, action_low=-math.inf, action_high=math.inf, provenance={"label": str(path)})
    if layout := dataset.provenance.get("layout"):
        dataset = dataset.noting(**{"from": f"a file in {layout}'s layout"})
    return dataset.window(request.window), None


def inspect_dataset(dataset: OfflineDataset, task: Task | None) -> dict[str, Any]:
    """Facts by name, JSON-able: counts, returns, ranges per dimension, and oddities in words.

    With a task, also whether the dataset fits the task and is all that it asks (`accepted`; None where it fits and the task
    asks nothing), with what was found (`acceptance`), the normalised score of its mean and best episode, how often the task's
    termination and the stored terminals disagree, and the paper's Batch Mean and Batch Max where it prints them.
    """
    return _examined(dataset, task)[0]


def _examined(dataset: OfflineDataset, task: Task | None) -> tuple[dict[str, Any], list[Check]]:
    """The facts, and what is asked of the dataset: what its task asks, and that it fits, which is said where it does not."""
    misfits, checks = list[str](), list[Check]()
    if task is not None:
        misfits, checks = doubts(dataset, task, checked_specification(task)), check_dataset(dataset, task)
    if misfits:
        checks.insert(0, Check("fits the task", several(len(misfits), "misfit"), "none: see the oddities", False))
    whole = dataset.whole_episodes()
    lengths, returns = dataset.episode_lengths()[whole], dataset.episode_returns()[whole]
    facts: dict[str, Any] = {
        "label": dataset.provenance.get("label"),
        **dataset.describe(),
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
        array, singular = getattr(dataset, name), name.removesuffix("s")
        facts[f"{singular}_size"] = array.shape[1]
        facts[f"{singular}_low"], facts[f"{singular}_high"] = (
            [float(value) for value in of(array, axis=0)] for of in (np.min, np.max)
        )
    facts |= {
        "accepted": all(check.holds for check in checks) if checks else None,
        "acceptance": [str(check) for check in checks],
        "stored_besides": sorted(dataset.extras),
        "oddities": [*oddities(dataset, task, facts), *misfits],
        "from": dataset.provenance.get("from"),
        "digest": dataset.digest(),
    }
    return facts, checks


def summary(task: Task, request: DatasetRequest) -> dict[str, Any]:
    """One row about a task's dataset: the facts by which datasets are compared, with the paper's where it prints them.

    `return_zero` and `return_random` are of the zero action and of random actions; `accepted` is "yes", or what fails.
    """
    dataset = load_dataset(task, request)
    facts, checks = _examined(dataset, task)
    facts |= probe_returns(task, checked_specification(task))
    fails = "; ".join(f"{check.name}: {check.found}" for check in checks if not check.holds)
    ours = ("return_mean", "return_std", "return_max", "return_zero", "return_random", "score_mean")
    rounded = (*ours, "paper_return_mean", "paper_return_max")
    return {
        "dataset": facts["label"],
        **{name: facts[name] for name in ("rows", "episodes")},
        **{name: None if facts.get(name) is None else round(facts[name], 1) for name in rounded},
        "accepted": {True: "yes", False: fails, None: None}[facts["accepted"]],
        **{name: facts[name] for name in ("terminals", "repaired", "dropped")},
        "oddities": "; ".join(facts["oddities"]),
        "digest": facts["digest"][:12],
    }


def oddities(dataset: OfflineDataset, task: Task | None, facts: dict[str, Any]) -> list[str]:
    """What a careful reader would want to know before trusting the dataset, in sentences; `facts` are of `inspect_dataset`."""
    found = []
    for name in ("observations", "actions"):
        array = getattr(dataset, name)
        constant = np.flatnonzero(array.min(axis=0) == array.max(axis=0))
        if len(constant):
            found.append(f"{name} {', '.join(map(str, constant))} never change")
    if dataset.rewards.min() == dataset.rewards.max():
        found.append(f"every reward is {dataset.rewards[0]:g}")
    if repeated := len(dataset) - len(np.unique(_fingerprints(dataset))):
        found.append(f"{repeated:,} rows repeat another row exactly")
    found += flag_notes(dataset.provenance)
    if task is None and facts["repaired_by_count"]:
        found.append("where episodes end was only counted: name the task with --task, and it is found from the data")
    both = int((dataset.terminals & dataset.timeouts).sum())
    if both:
        found.append(f"{both:,} rows are both terminal and timed out")
    return found


def _fingerprints(dataset: OfflineDataset) -> np.ndarray:
    """(N,) uint64: equal for equal observations, actions, rewards and terminals; else different but by a chance of 2^-64."""
    columns = dataset.observations.shape[1] + dataset.actions.shape[1] + 2
    factors = np.random.default_rng(0).integers(1, 2**63, columns, dtype=np.uint64) | np.uint64(1)
    parts = []
    for first in range(0, len(dataset), SLICE):
        rows = slice(first, first + SLICE)
        reals = (dataset.observations[rows], dataset.actions[rows], dataset.rewards[rows, None], dataset.terminals[rows, None])
        bits = np.concatenate(reals, axis=1, dtype=np.float32).view(np.uint32).astype(np.uint64)
        bits *= bits ^ np.uint64(0x9E3779B97F4A7C15)  # not linear, or exchanged columns could cancel
        parts.append((bits * factors).sum(axis=1, dtype=np.uint64))
    return np.concatenate(parts)
