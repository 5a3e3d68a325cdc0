"""Task: one frozen record of everything a task is; OfflineProblem, what a learner may see of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from torch import Tensor

from ..common.errors import UserError, unknown
from .data.dataset import OfflineDataset
from .rewards import Reward, relabel
from .terminations import never

Termination = Callable[[Tensor, Tensor, Tensor], Tensor]
Regenerate = Callable[["Task", int, int], OfflineDataset]


@dataclass(frozen=True)
class Problem:
    """The rules of a task: all that an algorithm may know of it beside data.

    Actions are in [-1, 1] whatever the environment's box. `termination(s, a, s')` works on batches of tensors, (..., obs),
    (..., act), (..., obs) to booleans (...). `discount` is per step, `max_episode_steps` where the environment stops.
    """

    observation_size: int
    action_size: int
    termination: Termination
    discount: float
    max_episode_steps: int


@dataclass(frozen=True)
class OfflineProblem(Problem):
    """The rules and the batch, never an environment."""

    dataset: OfflineDataset


@dataclass(frozen=True)
class ActionBox:
    """The environment's action box, mapped to [-1, 1] for everything that learns."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def is_unit(self) -> bool:
        return set(self.low) == {-1.0} and set(self.high) == {1.0}

    def to_unit(self, actions: np.ndarray) -> np.ndarray:
        if self.is_unit:
            return actions
        low, high = np.asarray(self.low, actions.dtype), np.asarray(self.high, actions.dtype)
        return np.clip(2 * (actions - low) / (high - low) - 1, -1, 1)

    def from_unit(self, actions: np.ndarray) -> np.ndarray:
        if self.is_unit:
            return actions
        low, high = np.asarray(self.low, actions.dtype), np.asarray(self.high, actions.dtype)
        return low + (actions + 1) / 2 * (high - low)


@dataclass(frozen=True)
class DataFile:
    """One file of D4RL: where it is and what it must be."""

    version: str  # v0 is the paper's
    url: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Task:
    """Everything a task is. Variants are `parameters`, keyword arguments of the environment and part of a run's identity.

    reference_returns: (min, max) of the normalised score, 100 (R - min) / (max - min); None where the field has none.
    collected_under: parameters of the environment that were others when the batch was logged; `recorded`: entries of the
    environment's `info` that a batch must store besides; `reward`: computes the task's own rewards from those. protocol: the
    parts of which D4RL's protocol makes the batch, in order, see `harness/collect.py`. files: D4RL's files by version.
    regenerate: makes a batch of about that many rows from what the package bundles, `(task, rows, seed)`; its attribute
    `version`, if it has one, is raised where it makes another one, or the cache keeps the old.
    paper_table: the table of the paper in which this task stands, numbers in `results/paper/`.
    """

    name: str
    environment: str  # Gymnasium id
    observation_size: int
    action_size: int
    termination: Termination = never
    parameters: Mapping[str, Any] = field(default_factory=dict)
    follows: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None  # fields that the parameters decide
    collected_under: Mapping[str, Any] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    reward: Reward | None = None
    kinematics: str | None = None  # of `continuity.KINEMATICS`: finds where episodes end in logs that do not say
    protocol: tuple[str, ...] = ()
    action_low: float = -1.0
    action_high: float = 1.0
    max_episode_steps: int = 1000
    discount: float = 0.99
    reference_returns: tuple[float, float] | None = None
    files: tuple[DataFile, ...] = ()
    regenerate: Regenerate | None = None
    regenerated_rows: int = 100_000
    regenerated_from: str = ""  # whose policy: shown in tables
    regenerated_as: str = "regenerated"  # task@this wherever the batch is shown; "lite" stands for a replay buffer
    paper_table: str = ""
    steps: int = 1_000_000  # gradient steps of the paper's budget
    evaluate_every: int = 1_000
    evaluation_episodes: int = 10
    origin: str = "mopo_bench"

    @property
    def action_box(self) -> ActionBox:
        return ActionBox((self.action_low,) * self.action_size, (self.action_high,) * self.action_size)

    def score(self, episode_return: float) -> float | None:
        """The normalised score of a mean return; a standard deviation scales by 1 / (max - min) alone, see `score_std`."""
        if self.reference_returns is None:
            return None
        low, high = self.reference_returns
        return 100 * (episode_return - low) / (high - low)

    def score_std(self, std: float) -> float | None:
        if self.reference_returns is None:
            return None
        low, high = self.reference_returns
        return 100 * std / (high - low)

    def with_parameters(self, **parameters: Any) -> Task:
        """A variant; what follows from its parameters (termination, sizes) is changed with them."""
        for name in parameters:
            if name not in self.parameters:
                raise unknown(f"parameter of {self.name}", name, self.parameters, "mopo-bench list tasks --json")
        parameters = {**self.parameters, **parameters}
        return replace(self, parameters=parameters, **(self.follows(parameters) if self.follows else {}))

    def as_collected(self) -> Task:
        """The task in whose environment its batch is logged: the same, unless the batch is of another reward."""
        return replace(self, parameters={**self.parameters, **self.collected_under}, collected_under={})

    def relabelled(self, batch: OfflineDataset) -> OfflineDataset:
        """The batch with the task's own rewards, where it was logged under others."""
        if self.reward is None:
            return batch
        known = list(signature(self.reward).parameters)
        return relabel(batch, self.reward, {key: value for key, value in self.parameters.items() if key in known}, self.name)

    def identity(self) -> dict[str, Any]:
        """What of a task decides the numbers of a run beside its data."""
        return {
            "task": self.name,
            "environment": self.environment,
            "parameters": dict(self.parameters),
            "termination": name_of(self.termination),
            "max_episode_steps": self.max_episode_steps,
            "discount": self.discount,
        }

    @property
    def problem(self) -> Problem:
        return Problem(self.observation_size, self.action_size, self.termination, self.discount, self.max_episode_steps)

    def offline_problem(self, batch: OfflineDataset) -> OfflineProblem:
        """The learner's view, with the batch's actions mapped to [-1, 1]."""
        if not self.action_box.is_unit:
            batch = replace(batch, actions=self.action_box.to_unit(batch.actions))
        return OfflineProblem(**vars(self.problem), dataset=batch)


def name_of(function: Any) -> str:
    """The name of a function, or of a function with arguments fixed and which they are; it stands in a run's identity.

    Raises UserError for what has no name of its own: two lambdas, or two closures of one factory, would be taken as one.
    """
    if isinstance(function, partial):
        fixed = ", ".join(f"{key}={value!r}" for key, value in function.keywords.items())
        return f"{name_of(function.func)}({fixed})"
    name = getattr(function, "__qualname__", "<object>")
    if "<" in name:
        raise UserError(f"{name} cannot tell one run from another: give a function of a module, or functools.partial of one")
    return name
