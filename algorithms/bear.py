"""BEAR: Kumar et al. 2019, arXiv 1906.00949, as D4RL ran it (arXiv 2004.07219).

behaviour = mean (tanh decode(s, z) - a)^2 + 1/2 mean KL(q(z | s, a) || N(0, 1)),                     z ~ q(z | s, a)
y         = r + gamma * alive * max_k (w min_e Qbar_e(s', a_k) + (1 - w) max_e Qbar_e(s', a_k)),       a_k ~ pi(. | s')
actor     = mean -min_e Q_e(s, a) + exp(nu) * (MMD(s) - threshold),  a ~ pi(. | s);  in the warm-up the second term alone
critic    = mean 1/2 (Q_e(s, a) - y)^2
nu        = mean -exp(nu) * (MMD(s) - threshold), clipped after the step

MMD is taken between actions before tanh, of the policy and of the decoder at z ~ N(0, 1) clipped to +-1/2. The critic that the
actor sees is that of the step before. The policy that acts is the best of many samples by the first critic.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..common.settings import Choice, Count, Fraction, Interval, NonNegative, Positive, StepCount
from .learning.divergences import KERNELS, squared_mmd
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import Critics, GaussianActor, Initialisation, Scalar, VariationalAutoencoder, each_with
from .learning.optimisation import AdamForm
from .learning.registry import register_algorithm


class BEAR(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (256, 256)
        behaviour_hidden: tuple[Count, ...] = (750, 750)
        actor_learning_rate: Positive = 1e-4
        critic_learning_rate: Positive = 3e-4
        behaviour_learning_rate: Positive = 3e-4
        multiplier_learning_rate: Positive = 1e-3
        tau: Fraction = 0.005
        log_std_range: Interval = (-5.0, 2.0)
        kernel: Annotated[str, Choice(*KERNELS)] = "laplacian"
        kernel_width: Positive = 20.0
        matched_samples: Count = 4  # of the policy and of the behaviour, at each state
        threshold: NonNegative = 0.05
        log_multiplier_range: Interval = (-5.0, 10.0)
        target_samples: Count = 10
        minimum_weight: Fraction = 0.75
        warmup_steps: StepCount = 40_000  # 8 % of D4RL's 500 000
        acting_samples: Count = 100
        initialisation: Initialisation = "torch"  # BEAR's code is written in PyTorch
        adam: AdamForm = "torch"

    version = 1
    warmup_fraction = 0.08
    acting = ("actor", "critic")
    candidates: Tensor

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        self.latent_size = 2 * sizes[1]
        actor = GaussianActor.create(self.initialise, *sizes, config.hidden, config.log_std_range)
        self.actor = self.trainable(actor, config.actor_learning_rate)
        self.critic = self.trainable(Critics.create(self.initialise, *sizes, config.hidden), config.critic_learning_rate)
        self.target = self.slow_copy(self.critic)
        behaviour = VariationalAutoencoder.create(self.initialise, *sizes, self.latent_size, config.behaviour_hidden)
        self.behaviour = self.trainable(behaviour, config.behaviour_learning_rate)
        self.log_multiplier = self.trainable(Scalar.create(self.initialise, 0.0), config.multiplier_learning_rate)
        self.candidates = self.acting_noise(config.acting_samples)

    def noise(self) -> dict[str, tuple[int, ...]]:
        config, rows, actions = self.config, self.config.batch_size, self.problem.action_size
        return {
            "encoded": (rows, self.latent_size),
            "next": (config.target_samples, rows, actions),
            "decoded": (config.matched_samples, rows, self.latent_size),
            "now": (config.matched_samples, rows, actions),
        }

    @classmethod
    def warmup_steps(cls, config: Config) -> int:
        return config.warmup_steps

    def phase(self, step: int) -> Hashable:
        return "warm-up" if step < self.config.warmup_steps else None

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        config = self.config

        def behaviour_loss(behaviour: VariationalAutoencoder) -> Tensor:
            mean, log_std = behaviour.encode(batch.observations, batch.actions)
            decoded = torch.tanh(behaviour.decode(batch.observations, mean + log_std.exp() * noise["encoded"]))
            divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
            return per_seed((decoded - batch.actions).square()) + 0.5 * per_seed(divergence)

        behaviour_value = self.minimise(self.behaviour, behaviour_loss)
        next_actions = torch.tanh(self.actor.several(batch.next_observations, noise["next"]))
        next_values = self.target.of_several(batch.next_observations, next_actions)
        weighted = config.minimum_weight * next_values.amin(1) + (1 - config.minimum_weight) * next_values.amax(1)
        target = batch.rewards + self.problem.discount * batch.alive * weighted.amax(1)
        states, latents = each_with(batch.observations, noise["decoded"].clamp(-0.5, 0.5))
        matched = self.behaviour.decode(states, latents).view_as(noise["now"])
        multiplier = self.log_multiplier().exp()

        def actor_loss(actor: GaussianActor) -> tuple[Tensor, Tensor]:
            before = actor.several(batch.observations, noise["now"])
            discrepancy = (squared_mmd(matched, before, config.kernel, config.kernel_width) + 1e-6).sqrt()
            loss = multiplier * (discrepancy - config.threshold)
            if phase is None:
                loss = loss - self.critic(batch.observations, torch.tanh(before[:, 0])).amin(1)
            return per_seed(loss), discrepancy

        def critic_loss(critic: Critics) -> tuple[Tensor, Tensor]:
            values = critic(batch.observations, batch.actions)
            return per_seed(0.5 * (values - target[:, None]).square().sum(1)), per_seed(values)

        actor_value, discrepancy = self.minimise(self.actor, actor_loss)
        critic_value, mean_value = self.minimise(self.critic, critic_loss)
        excess = per_seed(discrepancy) - config.threshold
        self.minimise(
            self.log_multiplier, lambda log_multiplier: -log_multiplier().exp()[:, 0] * excess, config.log_multiplier_range
        )
        self.follow(self.target, self.critic, config.tau)
        return {
            "critic_loss": critic_value,
            "actor_loss": actor_value,
            "critic_value": mean_value,
            "behaviour_loss": behaviour_value,
            "discrepancy": per_seed(discrepancy),
            "multiplier": multiplier[:, 0],
        }

    def action_value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.critic(observations, actions).amin(1)

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            return self.actor(observations, noise)[0]
        return self.actor.best_of(self.critic, observations, self.candidates)


register_algorithm("bear", BEAR, title="BEAR", about="actor-critic whose policy keeps within an MMD threshold of the behaviour")
# as D4RL's paper words it: Lagrange threshold 10 (the upper end of log_multiplier_range, as in BEAR's own code), 5 samples
register_algorithm(
    "bear-2020",
    BEAR,
    variant_of="bear",
    matched_samples=5,
    title="BEAR (2020)",
    about="BEAR with five matched samples, as D4RL's paper words it",
)
