"""BRAC: Wu, Tucker and Nachum 2019, arXiv 1911.11361, as D4RL ran it (arXiv 2004.07219).

y      = r + gamma * alive * (min_e Qbar_e(s', a') - alpha * D(pi, b)(s')),      a' ~ pi(. | s');  BRAC-p leaves D out here
critic = mean 1/2 (Q_e(s, a) - y)^2
actor  = mean alpha * D(pi, b)(s) - min_e Q_e(s, a),                             a ~ pi(. | s);  in the warm-up without Q

b is a behaviour policy fitted first, by BC. D is the KL divergence estimated from samples of pi, the MMD, or KL in its dual
form, for which a discriminator c is trained on
c      = mean -D(pi, b)(s) + slope coefficient * max(|dc / da| - 1, 0)^2,  a between an action of pi and one of the batch
With an entropy coefficient, y and the actor's loss have the terms of SAC at that fixed temperature.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..common.settings import Choice, Count, Fraction, Interval, NonNegative, Positive, ProperFraction, StepCount
from .bc import BC
from .learning.divergences import dual_kl, gradient_penalty, sampled_kl, squared_mmd
from .learning.experience import Experience
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import Critics, GaussianActor, Initialisation
from .learning.optimisation import AdamForm
from .learning.pretraining import PretrainedPolicy
from .learning.registry import register_algorithm

DIVERGENCES = ("kl", "mmd", "kl_dual")


class BehaviourPolicy(PretrainedPolicy):
    """The policy that made the dataset, fitted by BC: what BRAC stays close to."""

    @dataclass(frozen=True)
    class Config(BC.Config):
        steps: Count = 1_000_000  # D4RL's script; BRAC's authors took 300 000

    learner, version = BC, BC.version
    title, stream = "behaviour policy", "behaviour"
    worse = {"policy_loss": "high", "entropy": "both"}  # noqa: RUF012 - a class-level declaration
    actor: GaussianActor


class BRAC(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (200, 200)
        critic_hidden: tuple[Count, ...] = (300, 300)
        actor_learning_rate: Positive = 3e-5
        critic_learning_rate: Positive = 1e-3
        tau: Fraction = 0.005
        log_std_range: Interval = (-5.0, 0.0)
        value_penalty: bool = True  # BRAC-v; without it BRAC-p
        divergence: Annotated[str, Choice(*DIVERGENCES)] = "kl"
        divergence_coefficient: NonNegative = 1.0  # alpha; D4RL's own script has 0.3 for BRAC-v on walker2d
        divergence_samples: Count = 4
        action_margin: ProperFraction = 1e-3  # b is asked about actions this far inside the box
        kernel_width: Positive = 10.0  # of the MMD's Laplacian kernel, exp(-|d|_1 / (2 width))
        entropy_coefficient: NonNegative = 0.0
        warmup_steps: StepCount = 20_000  # 4 % of D4RL's 500 000
        discriminator_learning_rate: Positive = 1e-3
        discriminator_steps: Count = 3
        slope_coefficient: NonNegative = 5.0
        max_q_samples: Count | None = None  # none: acts by the mode; 10: by the best of ten, the authors' `max_q`
        initialisation: Initialisation = "glorot"  # BRAC's code is written in Keras
        adam: AdamForm = "keras"

    version = 2
    warmup_fraction = 0.04
    acting = ("actor", "critic")
    stages = {"behaviour": BehaviourPolicy}  # noqa: RUF012 - a class-level declaration

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        actor = GaussianActor.create(self.initialise, *sizes, config.hidden, config.log_std_range, smooth_log_std=True)
        self.actor = self.trainable(actor, config.actor_learning_rate)
        critic = Critics.create(self.initialise, *sizes, config.critic_hidden)
        self.critic = self.trainable(critic, config.critic_learning_rate)
        self.target = self.slow_copy(self.critic)
        self.behaviour: BehaviourPolicy = self.fitted["behaviour"]
        self.candidates = None if config.max_q_samples is None else self.acting_noise(config.max_q_samples)
        if config.divergence == "kl_dual":
            discriminator = Critics.create(self.initialise, *sizes, config.critic_hidden, count=1)
            self.discriminator = self.trainable(discriminator, config.discriminator_learning_rate)

    def noise(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        one: tuple[int, ...] = (config.batch_size, self.problem.action_size)
        several = (config.divergence_samples, *one)
        shapes = {"next": one, "now": one}
        for state in ("next", "now") if config.value_penalty else ("now",):
            if config.divergence != "kl_dual":
                shapes[f"{state} policy"] = several
            if config.divergence == "mmd":
                shapes[f"{state} behaviour"] = several
        if config.divergence == "kl_dual":
            if config.value_penalty:
                shapes["next behaviour"] = one
            shapes["discriminator"] = (config.discriminator_steps, *one)
            shapes["between"] = (config.discriminator_steps, config.batch_size, 1)
        return shapes

    @classmethod
    def warmup_steps(cls, config: Config) -> int:
        return config.warmup_steps

    def phase(self, step: int) -> Hashable:
        return "warm-up" if step < self.config.warmup_steps else None

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        config = self.config
        next_action, next_log_prob = self.actor(batch.next_observations, noise["next"])
        next_value = self.target(batch.next_observations, next_action).amin(1)
        next_value = next_value - config.entropy_coefficient * next_log_prob
        if config.value_penalty:
            divergence = self._divergence(self.actor, "next", batch, next_action, noise)
            next_value = next_value - config.divergence_coefficient * divergence
        target = batch.rewards + self.problem.discount * batch.alive * next_value

        def critic_loss(critic: Critics) -> tuple[Tensor, Tensor]:
            values = critic(batch.observations, batch.actions)
            return per_seed(0.5 * (values - target[:, None]).square().sum(1)), per_seed(values)

        def actor_loss(actor: GaussianActor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            action, log_prob = actor(batch.observations, noise["now"])
            divergence = self._divergence(actor, "now", batch, action, noise)
            loss = config.divergence_coefficient * divergence + config.entropy_coefficient * log_prob
            if phase is None:
                loss = loss - self.critic(batch.observations, action).amin(1)
            return per_seed(loss), (divergence, log_prob)

        critic_value, mean_value = self.minimise(self.critic, critic_loss)
        actor_value, (divergence, log_prob) = self.minimise(self.actor, actor_loss)
        metrics = {
            "critic_loss": critic_value,
            "actor_loss": actor_value,
            "critic_value": mean_value,
            "divergence": per_seed(divergence),
            "entropy": -per_seed(log_prob),
        }
        if config.divergence == "kl_dual":
            metrics["discriminator_loss"] = self._train_discriminator(batch, noise)
        self.follow(self.target, self.critic, config.tau)
        return metrics

    def _divergence(self, actor: GaussianActor, state: str, batch: Batch, action: Tensor, noise: Noise) -> Tensor:
        """D(pi, b), (S, B), at the "next" or the "now" of the batch; `action` is the policy's there."""
        config, behaviour = self.config, self.behaviour.actor
        observations = batch.next_observations if state == "next" else batch.observations
        if config.divergence == "kl":
            gaussians = actor.gaussian(observations), behaviour.gaussian(observations)
            return sampled_kl(*gaussians, noise[f"{state} policy"], config.action_margin)
        if config.divergence == "mmd":
            own = torch.tanh(actor.several(observations, noise[f"{state} policy"]))
            matched = torch.tanh(behaviour.several(observations, noise[f"{state} behaviour"]))
            return squared_mmd(own, matched, "laplacian", config.kernel_width)
        # the dataset's own action; that of the next state is not part of a transition, and drawn from the fitted policy
        other = batch.actions if state == "now" else behaviour(observations, noise["next behaviour"])[0]
        return dual_kl(*(self.discriminator(observations, each)[:, 0] for each in (action, other)))

    def _train_discriminator(self, batch: Batch, noise: Noise) -> Tensor:
        """The discriminator's steps, on the policy that has just been updated; gives the last loss (S,)."""
        for draw in range(self.config.discriminator_steps):
            action, _ = self.actor(batch.observations, noise["discriminator"][:, draw])
            share = torch.special.ndtr(noise["between"][:, draw])  # uniform in [0, 1]
            between = action + share * (batch.actions - action)

            def loss(discriminator: Critics, action: Tensor = action, between: Tensor = between) -> Tensor:
                logits = (discriminator(batch.observations, each)[:, 0] for each in (action, batch.actions))
                slope = gradient_penalty(discriminator, batch.observations, between)
                return per_seed(self.config.slope_coefficient * slope - dual_kl(*logits))

            value = self.minimise(self.discriminator, loss)
        return value

    def value_bonus(self) -> float:
        """The entropy coefficient times the highest entropy of actions in [-1, 1]; a divergence only takes away."""
        return self.config.entropy_coefficient * self.problem.action_size * math.log(2)

    def action_value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.critic(observations, actions).amin(1)

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            return self.actor(observations, noise)[0]
        if self.candidates is not None:
            return self.actor.best_of(self.critic, observations, self.candidates)
        return self.actor.mode(observations)


class D4RLLoader(Experience):
    """The dataset, or as an option the rows as D4RL's copy of BRAC's code read them: terminal rows left out, the row before
    each of them ending the episode instead, and successors taken from the next row even where an episode was cut."""

    @dataclass(frozen=True)
    class Config:
        d4rl_loader: bool = False

    version = 1

    def build(self) -> None:
        if not self.config.d4rl_loader:
            return
        rows, following = self.table[:-1].clone(), self.table[1:]
        self.usable = rows[:, self.layout.alive].nonzero()[:, 0]
        rows[:, self.layout.alive] = following[:, self.layout.alive]
        rows[:, self.layout.next_observations] = following[:, self.layout.observations]
        self.table = rows


register_algorithm(
    "brac-p",
    BRAC,
    D4RLLoader,
    value_penalty=False,
    title="BRAC-p",
    about="actor-critic whose policy's loss has a penalty on its divergence from the behaviour policy",
)
register_algorithm(
    "brac-v", BRAC, D4RLLoader, title="BRAC-v", about="BRAC-p with the same penalty in the value of the next state, too"
)
