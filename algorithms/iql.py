"""IQL, implicit Q-learning: Kostrikov, Nair and Levine 2021, arXiv 2110.06169, as its authors' code runs it on MuJoCo.

value  = mean |tau - 1[u < 0]| u^2,  u = min_e Qbar_e(s, a) - V(s)
actor  = mean -min(exp(beta (min_e Qbar_e(s, a) - V(s))), 100) * log pi(a | s)
critic = mean (Q_e(s, a) - y)^2,  y = r + gamma * alive * V(s')

All (s, a) are the dataset's: no value is ever asked of another action. V, the tau-expectile of Q over the dataset's actions,
steps first, and the other two see it as it is then. pi is a Gaussian whose mean is a tanh and whose standard deviation is the
same at every state. Rewards are scaled so that the returns of the best and the worst episode are as far apart as an episode
has steps.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import Count, Fraction, Interval, NonNegative, Positive, ProperFraction
from .learning.experience import Experience
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import HALF_LOG_2_PI, MLP, Critics, Initialisation, Initialiser, Network
from .learning.optimisation import AdamForm
from .learning.registry import register_algorithm


class BoundedMeanActor(Network):
    """N(tanh(MLP(s)), sigma^2), sigma the same at every state: weights [W1, b1, ..., log sigma], the last (S, 1, act).

    Samples are cut to [-1, 1], densities are those before the cut.
    """

    def __init__(self, weights: list[Tensor], log_std_range: tuple[float, float]):
        self.weights, self.log_std_range = weights, log_std_range

    @classmethod
    def create(
        cls,
        initialiser: Initialiser,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        log_std_range: tuple[float, float],
    ) -> BoundedMeanActor:
        weights = MLP.create(initialiser, (observation_size, *hidden, action_size)).weights
        return cls([*weights, initialiser.constant((1, action_size), 0.0)], log_std_range)

    def with_weights(self, weights: list[Tensor]) -> Self:
        return type(self)(weights, self.log_std_range)

    def mode(self, observations: Tensor) -> Tensor:
        return torch.tanh(MLP(self.weights[:-1])(observations))

    def log_std(self) -> Tensor:
        return self.weights[-1].clamp(*self.log_std_range)

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions (S, B, act) for standard normal `noise` (S, B, act)."""
        return (self.mode(observations) + self.log_std().exp() * noise).clamp(-1, 1)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s), (S, B)."""
        log_std = self.log_std()
        noise = (actions - self.mode(observations)) * torch.exp(-log_std)
        return (-0.5 * noise.square() - log_std - HALF_LOG_2_PI).sum(-1)


class IQL(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (256, 256)
        actor_learning_rate: Positive = 3e-4
        critic_learning_rate: Positive = 3e-4
        value_learning_rate: Positive = 3e-4
        tau: Fraction = 0.005
        expectile: ProperFraction = 0.7  # tau of the equations; the setting of that name is the target networks' pace
        inverse_temperature: NonNegative = 3.0  # beta; at 0 the actor clones
        weight_limit: Positive = 100.0
        log_std_range: Interval = (-5.0, 2.0)
        initialisation: Initialisation = "glorot"
        adam: AdamForm = "torch"  # as optax has it

    version = 1

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        actor = BoundedMeanActor.create(self.initialise, *sizes, config.hidden, config.log_std_range)
        self.actor = self.trainable(actor, config.actor_learning_rate)
        self.critic = self.trainable(Critics.create(self.initialise, *sizes, config.hidden), config.critic_learning_rate)
        self.target = self.slow_copy(self.critic)
        self.value = self.trainable(MLP.create(self.initialise, (sizes[0], *config.hidden, 1)), config.value_learning_rate)

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        config = self.config
        action_value = self.target(batch.observations, batch.actions).amin(1)

        def value_loss(value: MLP) -> Tensor:
            above = action_value - value(batch.observations)[..., 0]
            side = (config.expectile - (above < 0).to(self.dtype)).abs()
            return per_seed(side * above.square())

        value_value = self.minimise(self.value, value_loss)
        advantage = action_value - self.value(batch.observations)[..., 0]
        weight = torch.exp(config.inverse_temperature * advantage).clamp(max=config.weight_limit)
        target = batch.rewards + self.problem.discount * batch.alive * self.value(batch.next_observations)[..., 0]

        def actor_loss(actor: BoundedMeanActor) -> Tensor:
            return per_seed(-weight * actor.log_prob(batch.observations, batch.actions))

        def critic_loss(critic: Critics) -> tuple[Tensor, Tensor]:
            values = critic(batch.observations, batch.actions)
            return per_seed((values - target[:, None]).square().sum(1)), per_seed(values)

        actor_value = self.minimise(self.actor, actor_loss)
        critic_value, mean_value = self.minimise(self.critic, critic_loss)
        self.follow(self.target, self.critic, config.tau)
        return {
            "critic_loss": critic_value,
            "value_loss": value_value,
            "actor_loss": actor_value,
            "critic_value": mean_value,
            "advantage": per_seed(advantage),
            "weight": per_seed(weight),
        }

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.actor.mode(observations) if noise is None else self.actor.sample(observations, noise)


class ScaledRewards(Experience):
    """The dataset with rewards times H / (best - worst return of its episodes), H the most steps of an episode."""

    @dataclass(frozen=True)
    class Config:
        scaled_rewards: bool = True

    version = 1

    def build(self) -> None:
        if not self.config.scaled_rewards:
            return
        returns = self.problem.dataset.episode_returns()  # of all, even of one cut where the rows end, as in the authors' code
        if not (spread := float(returns.max() - returns.min())) > 0:
            raise UserError(
                f"all {len(returns)} episodes of the dataset return {returns.max():.6g}, which gives rewards no scale; set "
                "scaled_rewards=false"
            )
        self.table = self.table.clone()
        self.table[:, self.layout.rewards] *= self.problem.max_episode_steps / spread


register_algorithm(
    "iql",
    IQL,
    ScaledRewards,
    title="IQL",
    about="cloning weighted by the advantage over an upper expectile of the values of the dataset's own actions",
)
