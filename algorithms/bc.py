"""Behaviour cloning, as D4RL ran it (the BC of BRAC's code): maximum likelihood with an entropy term.

policy = mean -log pi(a | s) + alpha * log pi(a~ | s),  (s, a) from the batch, a~ ~ pi(. | s)
alpha  = mean -log alpha * (log pi(a~ | s) + target entropy)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.settings import Count, Interval, Part, Positive
from ..common.streams import derived_seed
from ..tasks.task import OfflineProblem
from .learning.fast.stepping import Steps
from .learning.learner import Batch, Experience, FitKeeper, Learner, Noise, Stage, per_seed
from .learning.networks import GaussianActor, Scalar


class BC(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (200, 200)
        learning_rate: Positive = 5e-4
        temperature_learning_rate: Positive = 3e-4
        target_entropy: float | None = None  # None: minus the number of action dimensions
        initial_temperature: Positive = 1.0
        log_std_range: Interval = (-5.0, 0.0)
        action_margin: Part = 1e-3  # actions of the batch are moved inside the box by this much

    version = 2

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        actor = GaussianActor.create(self.initialise, *sizes, config.hidden, config.log_std_range, smooth_log_std=True)
        self.actor = self.trainable(actor, config.learning_rate)
        log_temperature = Scalar.create(self.initialise, math.log(config.initial_temperature))
        self.log_temperature = self.trainable(log_temperature, config.temperature_learning_rate)
        self.target_entropy = -float(sizes[1]) if config.target_entropy is None else config.target_entropy

    def noise(self) -> dict[str, tuple[int, ...]]:
        return {"now": (self.config.batch_size, self.problem.action_size)}

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        temperature = self.log_temperature().exp()

        def policy_loss(actor: GaussianActor) -> tuple[Tensor, Tensor]:
            likelihood = actor.log_prob(batch.observations, batch.actions, self.config.action_margin)
            _, log_prob = actor(batch.observations, noise["now"])
            return per_seed(temperature * log_prob - likelihood), log_prob

        policy_value, log_prob = self.minimise(self.actor, policy_loss)
        excess = per_seed(log_prob) + self.target_entropy
        self.minimise(self.log_temperature, lambda log_temperature: -log_temperature()[:, 0] * excess)
        return {"policy_loss": policy_value, "temperature": temperature[:, 0], "entropy": -per_seed(log_prob)}

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.actor.mode(observations) if noise is None else self.actor(observations, noise)[0]


class BehaviourClone(Stage):
    """The behaviour policy of the batch, fitted by BC once per seed: what BRAC stays close to."""

    @dataclass(frozen=True)
    class Config(BC.Config):
        steps: Count = 1_000_000  # D4RL's script; BRAC's authors took 300 000

    version = BC.version

    def __init__(self, problem: OfflineProblem, config: Config, states: Sequence[Mapping[str, Any]]):
        weights = [torch.stack(tensors) for tensors in zip(*(state["weights"] for state in states), strict=True)]
        self.actor = GaussianActor(weights, config.log_std_range, smooth_log_std=True)

    @classmethod
    def fit(
        cls,
        problem: OfflineProblem,
        config: Config,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        report: Callable[[dict[str, Any]], None] = lambda row: None,
        keeper: FitKeeper = FitKeeper(),  # noqa: B008 - it holds nothing
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """`config.steps` steps of BC; the record holds what was measured over the last hundredth of them."""
        started = time.monotonic()
        seeds = [derived_seed(seed, "behaviour")]  # streams of its own, not those of a BC run of this seed
        learner = BC(problem, config, seeds, dtype=dtype, device=device)
        experience = Experience(problem, Experience.Config(), seeds, dtype=dtype, device=device)
        steps, every, done = Steps(learner, experience), max(1, config.steps // 100), 0
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
                    raise FloatingPointError(f"the behaviour policy diverged by step {step + 1}: {row}")
                report({"step": step + 1, **row})
                if step + 1 < config.steps:
                    keeper.offer(so_far)
        steps.forget_graphs()
        record = {"steps": config.steps, **row, "seconds": round(time.monotonic() - started, 1)}
        return {"weights": [weight[0] for weight in learner.actor.weights]}, record
