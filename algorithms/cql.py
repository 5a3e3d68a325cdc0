"""CQL(H), conservative Q-learning: Kumar et al. 2020, arXiv 2006.04779, as its authors' code runs it on D4RL.

y      = r + gamma * alive * min_e Qbar_e(s', a'),                               a' ~ pi(. | s')
gap_e  = mean log sum exp Q_e(s, .) - Q_e(s, a),                                 (s, a) from the dataset
critic = mean (Q_e(s, a) - y)^2 + weight * gap_e
actor  = mean alpha * log pi(a | s) - min_e Q_e(s, a),                           a ~ pi(. | s)
         in the warm-up mean alpha * log pi(a~ | s) - log pi(a | s),             a~ ~ pi(. | s), a from the dataset
alpha  = mean -log alpha * (log pi(a | s) + target entropy)

log sum exp Q(s, .), the logarithm of an integral over actions, is estimated from N uniform actions, N of pi(. | s) and N of
pi(. | s'), each term divided by the density that it was drawn from. With a gap threshold tau the weight is a multiplier:
weight = exp(nu),  nu: mean over e of -exp(nu) * (gap_e - tau)
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.settings import Count, NonNegative, Positive, StepCount
from .learning.learner import Batch, Noise, per_seed
from .learning.networks import Critics, GaussianActor, Initialisation, Scalar, each_with
from .learning.optimisation import AdamForm
from .learning.registry import register_algorithm
from .sac import SAC

LOG_MULTIPLIER_RANGE = (-20.0, math.log(1e6))  # the code's upper end; the lower keeps a multiplier that has fallen able to rise


class CQL(SAC):
    @dataclass(frozen=True)
    class Config(SAC.Config):
        hidden: tuple[Count, ...] = (256, 256, 256)
        actor_learning_rate: Positive = 1e-4
        temperature_learning_rate: Positive = 1e-4
        conservative_weight: NonNegative = 5.0
        conservative_samples: Count = 10  # N
        gap_threshold: NonNegative | None = None  # tau; none: the weight is fixed
        multiplier_learning_rate: Positive = 3e-4
        entropy_backup: bool = False  # whether y has the entropy term of SAC
        warmup_steps: StepCount = 40_000
        initialisation: Initialisation = "torch"  # CQL's code is written in PyTorch
        adam: AdamForm = "torch"

    version = 1
    warmup_fraction = 0.08

    def build(self) -> None:
        super().build()
        if self.config.gap_threshold is not None:
            log_multiplier = Scalar.create(self.initialise, 0.0)
            self.log_multiplier = self.trainable(log_multiplier, self.config.multiplier_learning_rate)

    def noise(self) -> dict[str, tuple[int, ...]]:
        several = (self.config.conservative_samples, self.config.batch_size, self.problem.action_size)
        return {**super().noise(), "several now": several, "several next": several}

    def uniforms(self) -> dict[str, tuple[int, ...]]:
        return {"anywhere": (self.config.conservative_samples, self.config.batch_size, self.problem.action_size)}

    @classmethod
    def warmup_steps(cls, config: Config) -> int:
        return config.warmup_steps

    def phase(self, step: int) -> Hashable:
        return "warm-up" if step < self.config.warmup_steps else None

    def lowered(self, batch: Batch) -> slice:
        """The rows at whose states values are pushed down."""
        return slice(None)

    def raised(self, batch: Batch) -> slice:
        """The rows whose own actions' values are pushed up."""
        return slice(None)

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        config, threshold = self.config, self.config.gap_threshold
        temperature = self.log_temperature().exp()
        next_action, next_log_prob = self.actor(batch.next_observations, noise["next"])
        next_value = self.target(batch.next_observations, next_action).amin(1)
        if config.entropy_backup:
            next_value = next_value - temperature * next_log_prob
        target = batch.rewards + self.problem.discount * batch.alive * next_value
        states, actions, log_densities = self._samples(batch, noise, self.lowered(batch))
        raised, shape = self.raised(batch), log_densities.shape[1:]
        multiplier = None if threshold is None else self.log_multiplier().exp()[:, 0]
        weight = config.conservative_weight if multiplier is None else multiplier

        def critic_loss(critic: Critics) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            values = critic(batch.observations, batch.actions)
            below = critic(states, actions).unflatten(-1, shape) - log_densities[:, None]
            gap = below.logsumexp(2).mean(2) - values[..., raised].mean(2)  # (S, E)
            loss = per_seed((values - target[:, None]).square().sum(1)) + weight * gap.sum(1)
            return loss, (per_seed(values), gap)

        def actor_loss(actor: GaussianActor) -> tuple[Tensor, Tensor]:
            action, log_prob = actor(batch.observations, noise["now"])
            if phase is None:
                value = self.critic(batch.observations, action).amin(1)
            else:
                value = actor.log_prob(batch.observations, batch.actions)
            return per_seed(temperature * log_prob - value), log_prob

        critic_value, (mean_value, gap) = self.minimise(self.critic, critic_loss)
        actor_value, log_prob = self.minimise(self.actor, actor_loss)
        excess = per_seed(log_prob) + self.target_entropy
        self.minimise(self.log_temperature, lambda log_temperature: -log_temperature()[:, 0] * excess)
        self.follow(self.target, self.critic, config.tau)
        metrics = {
            "critic_loss": critic_value,
            "actor_loss": actor_value,
            "critic_value": mean_value,
            "gap": gap.mean(1),
            "temperature": temperature[:, 0],
            "entropy": -per_seed(log_prob),
        }
        if threshold is None or multiplier is None:
            return metrics
        too_wide = gap.mean(1) - threshold
        self.minimise(
            self.log_multiplier, lambda log_multiplier: -log_multiplier().exp()[:, 0] * too_wide, LOG_MULTIPLIER_RANGE
        )
        return {**metrics, "multiplier": multiplier}

    def _samples(self, batch: Batch, noise: Noise, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The actions of which log sum exp Q is estimated, 3 N at each of the B states of those rows, and where from.

        States (S, 3 N B, obs) beside actions (S, 3 N B, act), as critics take them, and the log densities (S, 3 N, B).
        """
        observations = batch.observations[:, rows]
        drawn, densities = [2 * noise["anywhere"][:, :, rows] - 1], []
        densities.append(torch.full_like(drawn[0][..., 0], -self.problem.action_size * math.log(2)))
        for seen, name in ((observations, "several now"), (batch.next_observations[:, rows], "several next")):
            own = noise[name][:, :, rows]
            sampled, log_prob = self.actor(*each_with(seen, own))
            drawn.append(sampled.view_as(own))
            densities.append(log_prob.view_as(own[..., 0]))
        return *each_with(observations, torch.cat(drawn, 1)), torch.cat(densities, 1)

    def value_bonus(self) -> Tensor:
        """SAC's where the backup has the entropy term, else none."""
        return self.config.entropy_backup * super().value_bonus()


register_algorithm(
    "cql", CQL, title="CQL", about="SAC whose critics' loss pushes down the values of actions that are not the dataset's"
)
