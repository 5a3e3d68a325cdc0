"""What is run: a task, a batch, an algorithm and its seeds; and the models its seeds share, fitted once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock

from ...algorithms.learning.fast.compiling import Compilation
from ...algorithms.learning.learner import Experience, FitKeeper, Learner
from ...algorithms.learning.registry import Algorithm, version_of
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.sources import DatasetRequest, load_dataset
from ...tasks.task import OfflineProblem, Task
from .machine import describe_machine, prepare_process
from .records import Store, identity_hash, load_tensors, plain, save_tensors

KEEP_SECONDS = 60  # between two states of a fit that is still at work


@dataclass(frozen=True)
class Cell:
    """What is run: everything a worker needs, and the identity under which it is kept.

    config: the full configuration. overrides: the settings among it that the user or a suite chose. digest: of the batch.
    """

    task: Task
    algorithm: Algorithm
    config: dict[str, Any]
    overrides: dict[str, Any]
    dataset: DatasetRequest
    digest: str
    steps: int
    seeds: tuple[int, ...]
    results: Path
    device: str = "cpu"
    compilation: Compilation = field(default_factory=Compilation)
    evaluate_every: int | None = None
    evaluation_episodes: int | None = None
    evaluation_processes: int | None = None  # beside training; None: one for each seed of a group on a GPU, else none
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Of everything that decides the numbers but the seed and how far it is run."""
        return identity_hash(
            {
                **self.task.identity(),
                "digest": self.digest,
                "algorithm": self.algorithm.name,
                "versions": self.algorithm.versions,
                "settings": plain(self.algorithm.changed(self.config)),
            }
        )

    def stage_identity(self, stage: str) -> str:
        """Of a stage's fit: the data and its own settings, whichever algorithm asks for it."""
        kind = self.algorithm.stages[stage]
        settings = {k: v for k, v in self.algorithm.changed(self.config).items() if k.startswith(f"{stage}.")}
        return identity_hash({"stage": stage, "version": version_of(kind), "settings": plain(settings), "digest": self.digest})

    @property
    def folder(self) -> Path:
        return Store(self.results).cell_folder(self.task.name, self.algorithm.name, self.identity)

    def seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    @property
    def episodes(self) -> int:
        """Of an evaluation."""
        return self.evaluation_episodes or self.task.evaluation.episodes

    def with_seeds(self, *seeds: int) -> Cell:
        return replace(self, seeds=seeds)

    def describe(self) -> dict[str, Any]:
        """`cell.json`."""
        return {
            "task": self.task.name,
            "algorithm": self.algorithm.name,
            "identity": self.identity,
            "config": self.config,
            "overrides": self.overrides,
            "data": self.data,
            "rules": self.task.identity(),
            "versions": self.algorithm.versions,
            "package": describe_machine()["versions"]["mopo-bench"],
        }


def describe_dataset(batch: OfflineDataset) -> dict[str, Any]:
    """What a run record says of its data."""
    facts = batch.describe()
    notes = batch.provenance
    return {
        "label": notes.get("label"),
        "source": notes.get("source"),
        "from": notes.get("from"),
        "rows": facts["rows"],
        "episodes": facts["episodes"],
        "window": notes.get("window", "all"),
        "digest": batch.digest(),
        "return_mean": facts["return_mean"],
        "return_max": facts["return_max"],
        "critic_rows": facts["critic_rows"],
        "dynamics_rows": facts["valid_next"],
        "provenance": notes,
    }


def fit_stage(cell: Cell, stage: str, seed: int) -> dict[str, Any]:
    """The fitted stage of one seed, from disk or fitted now; two processes that want the same one at once fit it once."""
    path = Store(cell.results).stage_path(stage, cell.stage_identity(stage), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        if not path.exists():
            prepare_process(cell.device)
            config, parent = cell.algorithm.build_configs(cell.config)[stage], os.getppid()
            keeper = PartFile(path.with_suffix(".part.pt"), cell.device)
            state, record = cell.algorithm.stages[stage].fit(
                load_problem(cell),
                config,
                seed,
                device=cell.device,
                report=lambda row: leave_if_orphaned(parent),
                keeper=keeper,
            )
            save_tensors(path, {"state": state, "record": {**record, "machine": describe_machine()}})
            keeper.path.unlink(missing_ok=True)
    return load_tensors(path, "delete it to have it fitted again", cell.device)


class PartFile(FitKeeper):
    """Keeps a fit beside where it will stand, once in `KEEP_SECONDS`."""

    def __init__(self, path: Path, device: str):
        self.path, self.device = path, device
        self.kept_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        return load_tensors(self.path, "delete it to begin the fit anew", self.device) if self.path.exists() else None

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() - self.kept_at >= KEEP_SECONDS:
            save_tensors(self.path, state())
            self.kept_at = time.monotonic()


def leave_if_orphaned(parent: int) -> None:
    """Ends a worker whose parent is gone: what it holds locked is for the next run to take over."""
    if os.getppid() != parent:
        sys.exit(1)


def load_problem(cell: Cell) -> OfflineProblem:
    batch = load_dataset(cell.task, cell.dataset)
    if batch.digest() != cell.digest:
        raise RuntimeError(f"the batch of {cell.task.name} changed while it was being used: run again")
    return cell.task.offline_problem(batch)


def built(cell: Cell, fits: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Learner, Experience]:
    """The learner of the cell's seeds and its experience, untrained, from each stage's states, one per seed."""
    problem, configs = load_problem(cell), cell.algorithm.build_configs(cell.config)
    stages = {name: kind(problem, configs[name], fits[name]) for name, kind in cell.algorithm.stages.items()}
    common: dict[str, Any] = {"device": cell.device, "stages": stages}
    learner = cell.algorithm.learner(problem, configs["learner"], cell.seeds, **common)
    return learner, cell.algorithm.experience(problem, configs["experience"], cell.seeds, **common)
