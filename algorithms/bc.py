"""BC, behaviour cloning, as D4RL ran it (the BC of BRAC's code): maximum likelihood with an entropy term.

policy = mean -log pi(a | s) + alpha * log pi(a~ | s),  (s, a) from the dataset, a~ ~ pi(. | s)
alpha  = mean -log alpha * (log pi(a~ | s) + target entropy)
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from ..common.settings import Count, Interval, Positive, ProperFraction
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import GaussianActor, Initialisation, Scalar
from .learning.optimisation import AdamForm
from .learning.registry import register_algorithm


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
        action_margin: ProperFraction = 1e-3  # actions of the dataset are moved inside the box by this much
        initialisation: Initialisation = "glorot"  # BRAC's code is written in Keras
        adam: AdamForm = "keras"

    version = 3

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


register_algorithm("bc", BC, title="BC", about="maximum likelihood of the dataset's actions, with an entropy term")
