"""What is run: a task, a dataset, an algorithm and its seeds, and the identity under which it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import EnvSpec

from ...algorithms.learning.experience import Experience
from ...algorithms.learning.fast.compiling import Compilation
from ...algorithms.learning.learner import Learner
from ...algorithms.learning.registry import Algorithm, version_of
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.request import DatasetRequest
from ...tasks.data.sources import load_dataset
from ...tasks.simulation import code_of
from ...tasks.task import OfflineProblem, Task
from ...tasks.true_step import true_step
from .machine import describe_machine
from .records import Store, identity_hash, plain

TRAINING_EPISODES = 10  # at most, before the evaluations that a table reads: 100 would take half of a run
SHORT_ROWS = 3_000  # of the dataset, for a short fit


@dataclass(frozen=True)
class Cell:
    """Everything a worker needs to train one algorithm on one task's dataset, for one seed or several.

    config: the full configuration. overrides: the settings in it that the user or a suite chose. data: what `describe_dataset`
    said of the dataset, its digest included. evaluate_every: gradient steps between evaluations, of `episodes` each.
    specification: as the environment is registered with Gymnasium, which a worker may not know.
    evaluation_processes: beside training; 0: training waits; None: one for each seed of a group on a GPU, else none.
    """

    task: Task
    algorithm: Algorithm
    config: dict[str, Any]
    overrides: dict[str, Any]
    dataset: DatasetRequest
    data: dict[str, Any]
    steps: int
    seeds: tuple[int, ...]
    results: Path
    evaluate_every: int
    episodes: int
    device: str = "cpu"
    compilation: Compilation = field(default_factory=Compilation)
    capture: bool = False
    evaluation_processes: int | None = None
    specification: EnvSpec | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of the dataset's arrays."""
        return self.data["digest"]

    @cached_property
    def identity(self) -> str:
        """The hash of everything that decides the numbers but the seed and the number of steps."""
        return identity_hash(
            {
                **self.rules,
                "digest": self.digest,
                "algorithm": self.algorithm.name,
                "versions": self.algorithm.versions,
                "settings": plain(self.algorithm.changed(self.config)),
            }
        )

    @cached_property
    def rules(self) -> dict[str, Any]:
        """What decides the numbers of the task; of an environment from elsewhere also which code it is."""
        code = code_of(self.specification) if self.specification else ""
        return self.task.identity() | ({"environment_code": code} if code else {})

    def stage_identity(self, stage: str) -> str:
        """The hash of what decides a stage's fit: the data and its own settings, whichever algorithm asks for it."""
        kind = self.algorithm.stages[stage]
        settings = {k: v for k, v in self.algorithm.changed(self.config).items() if k.startswith(f"{stage}.")}
        return identity_hash({"stage": stage, "version": version_of(kind), "settings": plain(settings), "digest": self.digest})

    @cached_property
    def folder(self) -> Path:
        return Store(self.results).cell_folder(self.task.name, self.algorithm.name, self.identity)

    @property
    def key(self) -> list[str]:
        """Task, algorithm and identity: the last three parts of its folder."""
        return [self.task.name, self.algorithm.name, self.identity]

    def seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def episodes_at(self, step: int) -> int:
        """Episodes of the evaluation at a step: fewer while training, all where a table reads them, in the last ten."""
        return self.episodes if step > self.steps - 10 * self.evaluate_every else min(self.episodes, TRAINING_EPISODES)

    def next_evaluation(self, step: int) -> int:
        """The step of the evaluation that follows one at this step."""
        return min((step // self.evaluate_every + 1) * self.evaluate_every, self.steps)

    @property
    def warmup_steps(self) -> int:
        """The steps from the start in which the policy sees no critic."""
        return self.algorithm.learner.warmup_steps(self.algorithm.build_configs(self.config)["learner"])

    @property
    def needs_simulator(self) -> bool:
        """Whether its experience asks the real simulator, as no offline algorithm does."""
        return self.algorithm.experience.needs_simulator(self.algorithm.build_configs(self.config)["experience"])

    def with_seeds(self, *seeds: int) -> Cell:
        return replace(self, seeds=seeds)

    def describe(self) -> dict[str, Any]:
        """What `cell.json` says: what is run, on what, by which versions, and what the algorithm says of itself."""
        return {
            "task": self.task.name,
            "algorithm": self.algorithm.name,
            "about": self.algorithm.describe(self.config),
            "identity": self.identity,
            "config": self.config,
            "settings": plain(self.algorithm.changed(self.config)),
            "overrides": self.overrides,
            "data": self.data,
            "dataset": self.dataset.describe(),
            "rules": self.rules,
            "versions": self.algorithm.versions,
            "package": describe_machine()["versions"]["mopo-bench"],
        }


def describe_dataset(dataset: OfflineDataset) -> dict[str, Any]:
    """What a run record says of its data."""
    facts = dataset.describe()
    notes = dataset.provenance
    return {
        "label": notes.get("label"),
        "source": notes.get("source"),
        "from": notes.get("from"),
        "rows": facts["rows"],
        "episodes": facts["episodes"],
        "window": notes.get("window", "all"),
        "digest": dataset.digest(),
        "return_mean": facts["return_mean"],
        "return_max": facts["return_max"],
        "critic_rows": facts["critic_rows"],
        "dynamics_rows": facts["valid_next"],
        "provenance": notes,
    }


def load_problem(cell: Cell) -> OfflineProblem:
    dataset = load_dataset(cell.task, cell.dataset)
    if dataset.digest() != cell.digest:
        raise RuntimeError(f"the dataset of {cell.task.name} changed while it was being used: run again")
    return cell.task.offline_problem(dataset)


def build(
    cell: Cell, fits: Mapping[str, Sequence[Mapping[str, Any]]], problem: OfflineProblem | None = None
) -> tuple[Learner, Experience]:
    """The learner of the cell's seeds and its experience, untrained, from each stage's states, one per seed.

    problem: another than the cell's own, for copies that are thrown away.
    """
    problem, configs = problem or load_problem(cell), cell.algorithm.build_configs(cell.config)
    stages = {name: kind(problem, configs[name], fits[name]) for name, kind in cell.algorithm.stages.items()}
    common: dict[str, Any] = {"device": cell.device, "stages": stages}
    learner = cell.algorithm.learner(problem, configs["learner"], cell.seeds, **common)
    simulator: dict[str, Any] = {"true_step": true_step(cell.task, cell.specification)} if cell.needs_simulator else {}
    return learner, cell.algorithm.experience(problem, configs["experience"], cell.seeds, **common, **simulator)


def short_configs(cell: Cell) -> dict[str, Any]:
    """The Config objects of work in small, that is timed or tried, by part."""
    configs, algorithm = cell.algorithm.build_configs(cell.config), cell.algorithm
    configs["experience"], _ = algorithm.experience.short_refresh(configs["experience"], cell.device)
    return configs | {name: kind.short_fit(configs[name]) for name, kind in algorithm.stages.items()}
