"""SAC, soft actor-critic: Haarnoja et al. 2018, arXiv 1801.01290 and 1812.05905, with twin critics and automatic temperature.

y      = r + gamma * alive * (min_e Qbar_e(s', a') - alpha * log pi(a' | s')),  a' ~ pi(. | s')
critic = mean 1/2 (Q_e(s, a) - y)^2
actor  = mean alpha * log pi(a | s) - min_e Q_e(s, a),                           a ~ pi(. | s)
alpha  = mean -log alpha * (log pi(a | s) + target entropy)
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from ..common.settings import Count, Fraction, Interval, Positive
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import Critics, GaussianActor, Initialisation, Scalar
from .learning.optimisation import AdamForm
from .learning.registry import register_algorithm


class SAC(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (256, 256)
        actor_learning_rate: Positive = 3e-4
        critic_learning_rate: Positive = 3e-4
        temperature_learning_rate: Positive = 3e-4
        tau: Fraction = 0.005
        target_entropy: float | None = None  # None: minus the number of action dimensions
        initial_temperature: Positive = 1.0
        log_std_range: Interval = (-20.0, 2.0)
        initialisation: Initialisation = "glorot"  # MOPO's code is written in Keras and TensorFlow 1
        adam: AdamForm = "tensorflow"

    version = 2

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        actor = GaussianActor.create(self.initialise, *sizes, config.hidden, config.log_std_range)
        self.actor = self.trainable(actor, config.actor_learning_rate)
        self.critic = self.trainable(Critics.create(self.initialise, *sizes, config.hidden), config.critic_learning_rate)
        self.target = self.slow_copy(self.critic)
        log_temperature = Scalar.create(self.initialise, math.log(config.initial_temperature))
        self.log_temperature = self.trainable(log_temperature, config.temperature_learning_rate)
        self.target_entropy = -float(sizes[1]) if config.target_entropy is None else config.target_entropy

    def noise(self) -> dict[str, tuple[int, ...]]:
        shape = (self.config.batch_size, self.problem.action_size)
        return {"next": shape, "now": shape}

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        temperature = self.log_temperature().exp()
        next_action, next_log_prob = self.actor(batch.next_observations, noise["next"])
        next_value = self.target(batch.next_observations, next_action).amin(1) - temperature * next_log_prob
        target = batch.rewards + self.problem.discount * batch.alive * next_value

        def critic_loss(critic: Critics) -> tuple[Tensor, Tensor]:
            values = critic(batch.observations, batch.actions)
            return per_seed(0.5 * (values - target[:, None]).square().sum(1)), per_seed(values)

        def actor_loss(actor: GaussianActor) -> tuple[Tensor, Tensor]:
            action, log_prob = actor(batch.observations, noise["now"])
            value = self.critic(batch.observations, action).amin(1)
            return per_seed(temperature * log_prob - value), log_prob

        critic_value, mean_value = self.minimise(self.critic, critic_loss)
        actor_value, log_prob = self.minimise(self.actor, actor_loss)
        excess = per_seed(log_prob) + self.target_entropy
        self.minimise(self.log_temperature, lambda log_temperature: -log_temperature()[:, 0] * excess)
        self.follow(self.target, self.critic, self.config.tau)
        return {
            "critic_loss": critic_value,
            "actor_loss": actor_value,
            "critic_value": mean_value,
            "temperature": temperature[:, 0],
            "entropy": -per_seed(log_prob),
        }

    def value_bonus(self) -> Tensor:
        """alpha times the highest entropy of actions in [-1, 1]."""
        return self.log_temperature()[:, 0].exp() * self.problem.action_size * math.log(2)

    def action_value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.critic(observations, actions).amin(1)

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.actor.mode(observations) if noise is None else self.actor(observations, noise)[0]


register_algorithm(
    "sac", SAC, title="SAC", about="soft actor-critic with twin critics and automatic temperature, on the dataset"
)
