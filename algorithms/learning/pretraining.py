"""A stage that trains a learner on the dataset: its policy is fitted before the algorithm that wants it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...common.streams import derived_seed
from ...tasks.task import OfflineProblem
from .experience import Experience
from .learner import Learner
from .stage import FitKeeper, Stage
from .steps import TrainingSteps


class PretrainedPolicy(Stage):
    """The networks with which a learner acts, after `config.steps` steps of it on the dataset.

    A subclass names the `learner` and the `stream`, and its Config is that learner's with `steps` beside. What was fitted is
    found under the learner's names: `self.fitted["behaviour"].actor`.
    """

    learner: ClassVar[type[Learner]]
    stream: ClassVar[str]  # a name by which its seeds are derived, or they were those of a run

    @classmethod
    def fit_units(cls, config: Any, data: Mapping[str, Any]) -> float:
        return config.steps

    @classmethod
    def short_fit(cls, config: Any) -> Any:
        return replace(config, steps=10)

    def __init__(self, problem: OfflineProblem, config: Any, states: Sequence[Mapping[str, Any]]):
        weights = [torch.stack(tensors) for tensors in zip(*(state["weights"] for state in states), strict=True)]
        untrained = self.learner(problem, config, range(len(states)), dtype=weights[0].dtype, device=weights[0].device)
        for name in self.learner.acting:
            network = getattr(untrained, name)
            mine, weights = weights[: len(network.weights)], weights[len(network.weights) :]
            setattr(self, name, network.with_weights(mine))

    @classmethod
    def fit(
        cls,
        problem: OfflineProblem,
        config: Any,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        report: Callable[[dict[str, Any]], None] = lambda row: None,
        keeper: FitKeeper = FitKeeper(),  # noqa: B008 - it holds nothing
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The record holds what was measured over the last hundredth of the steps."""
        started = time.monotonic()
        seeds = [derived_seed(seed, cls.stream)]
        learner = cls.learner(problem, config, seeds, dtype=dtype, device=device)
        experience = Experience(problem, Experience.Config(), seeds, dtype=dtype, device=device)
        steps, every, done = TrainingSteps(learner, experience), max(1, config.steps // 100), 0
        if begun := keeper.load():
            learner.load_states([begun["learner"]])
            done, started = begun["steps"], started - begun["seconds"]

        def so_far() -> dict[str, Any]:
            return {"learner": learner.state(0), "steps": step + 1, "seconds": time.monotonic() - started}

        for step in range(done, config.steps):
            steps.take(step)
            if (step + 1) % every == 0 or step + 1 == config.steps:
                row = {name: value for name, (value,) in steps.collect()[0].items()}
                if not all(map(math.isfinite, row.values())):
                    raise FloatingPointError(f"the {cls.title or cls.__name__} diverged by step {step + 1}: {row}")
                report({"step": step + 1, **row})
                if step + 1 < config.steps:
                    keeper.offer(so_far)
        record = {"steps": config.steps, **row, "seconds": round(time.monotonic() - started, 1)}
        weights: list[Tensor] = [weight[0] for name in learner.acting for weight in getattr(learner, name).weights]
        return {"weights": weights}, record
