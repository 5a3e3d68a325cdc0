"""RAMBO: a model that learns to disappoint the policy, as far as the data lets it (Rigter et al. 2022, arXiv 2204.12581).

Between two refreshes of the rollouts the model, which began as the shared fit, takes Adam steps of its own on
model  = likelihood loss of the dataset + lambda * mean A log T(r, s' | s, a),  (s, a) of the policy in the model, (r, s') ~ T
A      = (delta - mean delta) / std delta,  over the batch
delta  = r + gamma * alive * min_e Q_e(s', pi(s')) - min_e Q_e(s, a),  pi(s') the mode
log T  = log of the mean of the elites' densities
Its second term is the gradient of the policy's value in the model (proposition 2), lowered.

The rest is MBPO's, half of a batch real, on standardised observations, with a policy that begins as one cloned from the
dataset: maximum likelihood, by the same network.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import Count, Interval, NonNegative, Positive, ProperFraction
from ..common.streams import torch_stream
from ..tasks.data.dataset import OfflineDataset
from ..tasks.task import OfflineProblem
from .learning.contract import fill, fill_all
from .learning.dynamics import EnsembleNetwork, Prediction, likelihood_loss
from .learning.learner import Batch, Learner, Noise, per_seed
from .learning.networks import HALF_LOG_2_PI, GaussianActor, Initialisation
from .learning.optimisation import Adam, AdamForm, gradient
from .learning.pretraining import PretrainedPolicy
from .learning.registry import register_algorithm
from .learning.rollouts import ModelRollouts
from .sac import SAC


class Cloning(Learner):
    """Maximum likelihood of the dataset's actions under SAC's policy."""

    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (256, 256)
        learning_rate: Positive = 1e-4
        log_std_range: Interval = (-20.0, 2.0)
        action_margin: ProperFraction = 1e-3  # actions of the dataset are moved inside the box by this much
        initialisation: Initialisation = "glorot"
        adam: AdamForm = "tensorflow"

    version = 1

    def build(self) -> None:
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        actor = GaussianActor.create(self.initialise, *sizes, config.hidden, config.log_std_range)
        self.actor = self.trainable(actor, config.learning_rate)

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        def policy_loss(actor: GaussianActor) -> Tensor:
            return -per_seed(actor.log_prob(batch.observations, batch.actions, self.config.action_margin))

        return {"policy_loss": self.minimise(self.actor, policy_loss)}

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.actor.mode(observations) if noise is None else self.actor(observations, noise)[0]


class ClonedPolicy(PretrainedPolicy):
    """The policy with which RAMBO begins, cloned from standardised observations, and their mean and standard deviation."""

    @dataclass(frozen=True)
    class Config(Cloning.Config):
        steps: Count = 200_000  # the authors' 50 epochs, of a million rows

    learner, version = Cloning, Cloning.version
    title, stream = "cloned policy", "cloned"
    worse = {"policy_loss": "high"}  # noqa: RUF012 - a class-level declaration
    actor: GaussianActor

    def __init__(self, problem: OfflineProblem, config: Any, states: Sequence[Mapping[str, Any]]):
        super().__init__(problem, config, states)
        self.mean = torch.stack([state["mean"] for state in states])[:, None]  # (S, 1, obs)
        self.std = torch.stack([state["std"] for state in states])[:, None]

    @classmethod
    def fit(cls, problem: OfflineProblem, config: Any, seed: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As that of any pretrained policy, on standardised observations."""
        dataset, mean, std = standardised(problem.dataset)
        state, record = super().fit(replace(problem, dataset=dataset), config, seed, **options)
        scale = {name: torch.as_tensor(each).to(state["weights"][0]) for name, each in (("mean", mean), ("std", std))}
        return state | scale, record

    def standardised(self, observations: Tensor) -> Tensor:
        return (observations - self.mean) / self.std


def standardised(dataset: OfflineDataset) -> tuple[OfflineDataset, np.ndarray, np.ndarray]:
    """The dataset with its observations at mean 0 and standard deviation 1, and both as they were, (obs,); a constant stays."""
    mean = dataset.observations.mean(0, dtype=np.float64)
    std = dataset.observations.std(0, dtype=np.float64)
    std = np.where(std < 1e-6, 1.0, std)
    seen = {name: ((getattr(dataset, name) - mean) / std).astype(np.float32) for name in ("observations", "next_observations")}
    return replace(dataset, **seen), mean, std


class RAMBO(SAC):
    """SAC that sees standardised observations and goes on from the cloned policy."""

    @dataclass(frozen=True)
    class Config(SAC.Config):
        actor_learning_rate: Positive = 1e-4
        temperature_learning_rate: Positive = 1e-4

    version = 1
    stages = {"cloned": ClonedPolicy}  # noqa: RUF012 - a class-level declaration

    def build(self) -> None:
        super().build()
        self.cloned: ClonedPolicy = self.fitted["cloned"]
        if self.actor.log_std_range != self.cloned.actor.log_std_range:
            raise UserError(
                "the policy of rambo begins as the cloned one: give log_std_range and cloned.log_std_range one value"
            )
        for own, other in zip(self.actor.weights, self.cloned.actor.weights, strict=False):
            if own.shape != other.shape:
                raise UserError("the policy of rambo begins as the cloned one: give hidden and cloned.hidden the same sizes")
            own.copy_(other)

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        now, following = (self.cloned.standardised(each) for each in (batch.observations, batch.next_observations))
        return super().update(batch._replace(observations=now, next_observations=following), noise, phase)

    def action_value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return super().action_value(self.cloned.standardised(observations), actions)

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().act(self.cloned.standardised(observations), noise)


class AdversarialRollouts(ModelRollouts):
    """Rollouts of a model of their own, which is trained against the policy before each refresh but the first."""

    @dataclass(frozen=True)
    class Config(ModelRollouts.Config):
        adversarial_weight: NonNegative = 3e-4  # lambda; at 0 the model stays as it was fitted
        adversarial_ratio: NonNegative = 1.0  # steps of the model to each of the learner
        adversarial_batch_size: Count = 256
        adversarial_learning_rate: Positive = 3e-4

    version = 1
    derived = ModelRollouts.derived | {"optimiser", "regression"}
    worse = {"model_loss": "high", "adversarial_loss": "neither"}  # noqa: RUF012 - a class-level declaration

    def build(self) -> None:
        super().build()
        fit = self.dynamics.config
        if fit.spectral_norm is not None:
            raise UserError("rambo trains its model on, without a bound on its layers: leave dynamics.spectral_norm out")
        self.dynamics = copy(self.dynamics)  # the fit is shared, and stays as it is
        self.dynamics.network = self.dynamics.network.copy()
        self.weights = self.dynamics.network.weights  # what is saved of the model, and of each refresh, to replay it
        decays = self.dynamics.network.decays(fit.weight_decays, fit.variance_weight_decay)
        self.optimiser = Adam(self.weights, self.config.adversarial_learning_rate, decays, fit.adam)
        self.regression = torch.from_numpy(np.flatnonzero(self.problem.dataset.dynamics_rows)).to(self.device)
        # of the last training of the model, the mean likelihood loss and the mean of A log T
        self.losses = torch.full((len(self.seeds), 2), math.nan, dtype=self.dtype, device=self.device)

    def refresh(self, step: int, learner: Learner) -> None:
        if step and step % self.config.rollout_every == 0 and steps_of_model(self.config):
            self.train_model(step, learner)
        super().refresh(step, learner)

    def roll_out(self, step: int, learner: Learner, write: Sequence[bool]) -> list[int]:
        vars(self).pop("dataset_vitals", None)  # they were those of the model before
        written = super().roll_out(step, learner, write)
        self.vitals = {**self.vitals, "model_loss": self.losses[:, 0], "adversarial_loss": self.losses[:, 1]}
        return written

    def train_model(self, step: int, learner: Learner) -> None:
        """Rolls the policy out from states of the dataset, again and again, with a step of the model at each of its steps."""
        config, sums = self.config, torch.zeros_like(self.losses)
        steps = steps_of_model(config)
        streams = [torch_stream(seed, "adversary", step, device=self.device) for seed in self.seeds]
        for number in range(steps):
            if number % config.rollout_length == 0:
                uniform = self._stack(streams, partial(torch.rand, config.adversarial_batch_size, dtype=torch.float64))
                observations = starts = self.draw_real(uniform)[..., : self.layout.observation_size]
            happened, losses = self._adversarial_step(observations, streams, learner)
            sums += losses
            # one that has ended begins again where it began
            observations = torch.where(happened.terminals[..., None], starts, happened.next_observations)
        self.losses.copy_(sums / steps)

    def _adversarial_step(
        self, observations: Tensor, streams: list[torch.Generator], learner: Learner
    ) -> tuple[Prediction, Tensor]:
        """One step of Adam at states (S, n, obs): what the model answered there, and both losses, (S, 2)."""
        uniform, noise = self._draw_noise(streams, observations.shape[1])
        actions = learner.act(observations, noise[..., : self.layout.action_size])
        everyone = self.device.type != "cpu"  # as in a rollout
        happened = self.dynamics.sample(observations, actions, uniform, noise[..., self.layout.action_size :], everyone)
        advantages = self.advantages(happened, learner)
        asked = self.dynamics.inputs(observations, actions)[:, None]
        answered = torch.cat((happened.rewards[..., None], happened.next_observations - observations), -1)
        inputs, targets = self._regression_batch(streams, observations.shape[1])

        def loss(network: EnsembleNetwork) -> tuple[Tensor, Tensor]:
            likelihood = likelihood_loss(network, inputs, targets)
            adversarial = per_seed(advantages * log_density(network, asked, answered, self.dynamics.elites))
            return likelihood + self.config.adversarial_weight * adversarial, torch.stack((likelihood, adversarial), 1)

        gradients, _, losses = gradient(self.dynamics.network, loss)
        self.optimiser.step(self.weights, gradients)
        return happened, losses

    def advantages(self, happened: Prediction, learner: Learner) -> Tensor:
        """By how much the critics value what happened above what they expected, (S, n), at mean 0 and standard deviation 1."""
        assert happened.observations is not None and happened.actions is not None
        successors = happened.next_observations
        following = learner.action_value(successors, learner.act(successors))
        expected = learner.action_value(happened.observations, happened.actions)
        if following is None or expected is None:
            raise UserError(f"adversarial rollouts ask what actions are worth, and {type(learner).__name__} has no critics")
        # what follows an end never counts, but 0 times infinity is not 0
        following = torch.where(happened.terminals, 0, following)
        surprise = happened.rewards + self.problem.discount * following - expected
        centred = surprise - surprise.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-6)

    def _regression_batch(self, streams: list[torch.Generator], count: int) -> tuple[Tensor, Tensor]:
        """Inputs (S, E, count, in) and targets (S, E, count, 1 + obs) of rows of the dataset, each network's own."""
        networks = self.dynamics.config.networks
        uniform = self._stack(streams, partial(torch.rand, networks * count, dtype=torch.float64))
        rows = self.regression.index_select(0, (uniform * len(self.regression)).long().flatten())
        batch = self.layout.batch(self.table.index_select(0, rows).view(*uniform.shape, -1))
        inputs = self.dynamics.inputs(batch.observations, batch.actions)
        targets = torch.cat((batch.rewards[..., None], batch.next_observations - batch.observations), -1)
        return inputs.unflatten(1, (networks, count)), targets.unflatten(1, (networks, count))

    def state(self, index: int) -> dict[str, Any]:
        """The optimiser of the model beside all that is held; not for each refresh, since nothing is trained in a replay."""
        adam = self.optimiser
        moments = {name: [each[index].clone() for each in getattr(adam, name)] for name in ("first", "second")}
        return {**super().state(index), "adversary": {**moments, "count": adam.count.clone()}}

    def load_states(self, states: Sequence[Mapping[str, Any]], learner: Learner) -> None:
        super().load_states(states, learner)
        for index, state in enumerate(states):
            saved, where = state["adversary"], f"{type(self).__name__}.optimiser"
            for name in ("first", "second"):
                fill_all([each[index] for each in getattr(self.optimiser, name)], saved[name], f"{where}.{name}")
            fill(self.optimiser.count, saved["count"], f"{where}.count")

    assumes = f"{ModelRollouts.assumes}, and an adversarial step of 256 states takes as long as a chunk of rollouts"

    @classmethod
    def short_refresh(cls, config: Any, device: str) -> tuple[Any, float]:
        """A step of the model counts as a chunk of rollouts: on a CPU it took 0.8 to 1.2 of one, small networks or large."""
        short, chunks = super().short_refresh(config, device)
        return short, chunks + steps_of_model(config) * config.adversarial_batch_size / 256


def steps_of_model(config: AdversarialRollouts.Config) -> int:
    """How many the model takes before a refresh: none where the adversary has no weight, as in the authors' code."""
    return int(config.adversarial_ratio * config.rollout_every) if config.adversarial_weight else 0


def log_density(network: EnsembleNetwork, inputs: Tensor, outcomes: Tensor, elites: Tensor) -> Tensor:
    """log of the mean of the elites' densities, (S, n), at outcomes (S, n, 1 + obs): a rollout samples each as often.

    inputs (S, 1, n, in), elites (S, elites).
    """
    parts = network(inputs)
    index = elites[:, :, None, None].expand(-1, -1, *outcomes.shape[1:])
    mean, log_variance = (part.gather(1, index) for part in parts)
    squares = (outcomes[:, None] - mean).square() * torch.exp(-log_variance)
    densities = (-0.5 * (squares + log_variance) - HALF_LOG_2_PI).sum(-1)
    return densities.logsumexp(1) - math.log(elites.shape[1])


register_algorithm(
    "rambo",
    RAMBO,
    AdversarialRollouts,
    real_fraction=0.5,
    title="RAMBO",
    about="SAC from a cloned policy on rollouts of a model that goes on learning, from the dataset and against the policy",
)
