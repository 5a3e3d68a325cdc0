"""The probabilistic ensemble T_i(r, s' | s, a) = N(mu_i, Sigma_i): fitted on the dataset, sampled in rollouts.

Settings are those of the authors' code (MOPO, arXiv 2005.13239, which takes them from MBPO, arXiv 1906.08253): inputs are
z-scored, targets are (reward, s' - s) in raw units, each network has its own bootstrap sample and its own best weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...common.settings import Count, Fraction, NonNegative, Positive, ProperFraction
from ...common.streams import torch_stream
from ...tasks.task import OfflineProblem
from .networks import Initialiser, Network, linear
from .optimisation import Adam, AdamForm, gradient
from .spectral import SpectralBound
from .stage import FitKeeper, Stage

# Of so many states a network's activations stay in a core's own cache: a fifth faster than of 1 000.
CACHED_STATES = 256
# Of a fit, which stops by itself: 45 to 114 on point-angle, 72 in the median; more on 100 000 rows of MuJoCo's.
USUAL_EPOCHS = 70


class EnsembleNetwork(Network):
    """E networks with swish layers, a mean head and a log-variance head.

    weights: [W1, b1, ..., W_mean, b_mean, W_log_variance, b_log_variance, max_log_variance, min_log_variance]; the bounds,
    (S, 1, 1, targets), are learned and shared by the E networks.
    """

    @classmethod
    def create(
        cls, initialiser: Initialiser, size_in: int, size_out: int, hidden: Sequence[int], networks: int
    ) -> EnsembleNetwork:
        weights, layers = [], [*zip((size_in, *hidden[:-1]), hidden, strict=True), *[(hidden[-1], size_out)] * 2]
        for fan_in, fan_out in layers:
            weights.append(initialiser.truncated_normal((networks, fan_in, fan_out), 1 / (2 * math.sqrt(fan_in))))
            weights.append(initialiser.constant((networks, 1, fan_out), 0.0))
        weights += [initialiser.constant((1, 1, size_out), bound) for bound in (0.5, -10.0)]
        return cls(weights)

    @property
    def matrices(self) -> list[Tensor]:
        """The weights of all layers, heads included, without biases and bounds."""
        return self.weights[:-2:2]

    def member(self, seed: int, network: int) -> EnsembleNetwork:
        """One network of one seed: the same function with S = E = 1."""
        layers = [weight[seed : seed + 1, network : network + 1] for weight in self.weights[:-2]]
        return EnsembleNetwork(layers + [bound[seed : seed + 1] for bound in self.weights[-2:]])

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (S, E, B, in) or (S, 1, B, in) to means and log variances, each (S, E, B, targets)."""
        *layers, maximum, minimum = self.weights
        for index in range(0, len(layers) - 4, 2):
            inputs = functional.silu(linear(inputs, layers[index], layers[index + 1]))
        mean = linear(inputs, *layers[-4:-2])
        log_variance = linear(inputs, *layers[-2:])
        log_variance = maximum - functional.softplus(maximum - log_variance)
        log_variance = minimum + functional.softplus(log_variance - minimum)
        return mean, log_variance

    def decays(self, by_layer: Sequence[float], variance_head: float) -> list[float]:
        """Weight decay per weight: none on biases and bounds."""
        factors = (*by_layer, variance_head)
        return [factor for decay in factors for factor in (decay, 0.0)] + [0.0, 0.0]


def likelihood_loss(network: EnsembleNetwork, inputs: Tensor, targets: Tensor) -> Tensor:
    """(S,): sum over networks of mean(error^2 exp(-logvar) + logvar), plus 0.01 (sum max - sum min) of the bounds.

    Twice the Gaussian negative log-likelihood, less its constant. inputs (S, E, B, in), targets (S, E, B, targets).
    """
    mean, log_variance = network(inputs)
    fit = (mean - targets).square() * torch.exp(-log_variance) + log_variance
    bounds = network.weights[-2].flatten(1).sum(1) - network.weights[-1].flatten(1).sum(1)
    return fit.mean((2, 3)).sum(1) + 0.01 * bounds


class Prediction(NamedTuple):
    """One sampled model step of n states per seed. means and stds are those of (reward, s') under all E networks, raw
    units, (S, E, n, 1 + obs); None where only the chosen network was asked. What was asked: observations (S, n, obs) and
    actions (S, n, act); elites (S, elites) says which of the networks rollouts sample."""

    rewards: Tensor  # (S, n), sampled
    next_observations: Tensor  # (S, n, obs), sampled
    terminals: Tensor  # (S, n) bool, of the sampled next state
    mean_rewards: Tensor  # (S, n), the chosen network's mean
    means: Tensor | None
    stds: Tensor | None
    observations: Tensor | None = None
    actions: Tensor | None = None
    elites: Tensor | None = None


class Dynamics(Stage):
    """The fitted ensemble of each seed of a group, stacked."""

    @dataclass(frozen=True)
    class Config:
        networks: Count = 7
        elites: Count = 5
        hidden: tuple[Count, ...] = (200, 200, 200, 200)
        learning_rate: Positive = 1e-3
        batch_size: Count = 256
        weight_decays: tuple[NonNegative, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # by layer, the mean head last
        variance_weight_decay: NonNegative = 1e-4
        holdout_fraction: ProperFraction = 0.2
        holdout_rows: Count = 1000  # at most
        improvement: Fraction = 0.01  # a network's holdout error must fall by this fraction to count
        patience: Count = 5  # epochs without any network improving
        max_epochs: Count | None = None
        adam: AdamForm = "tensorflow"  # the authors' code is written in TensorFlow 1
        spectral_norm: Positive | None = None  # of every layer's matrix, at most; the paper's appendix, never its code

        def __post_init__(self) -> None:
            if len(self.weight_decays) != len(self.hidden) + 1:
                wanted = f"{len(self.hidden) + 1} numbers, one per layer of dynamics.hidden and one for the mean head"
                raise ValueError(f"dynamics.weight_decays has {len(self.weight_decays)} numbers, expected {wanted}")
            if not 1 <= self.elites <= self.networks:
                raise ValueError(f"elites={self.elites} must be between 1 and networks={self.networks}")

    version = 2
    title = "dynamics ensemble"
    models_environment = True
    worse = {  # noqa: RUF012 - a class-level declaration
        "holdout_reward_r2": "low",
        "elite_error_ratio": "high",
        "holdout_nll": "high",
        "holdout_z_score": "both",
    }

    def __init__(self, problem: OfflineProblem, config: Config, states: Sequence[Mapping[str, Any]]):
        self.problem, self.config = problem, config
        stacked = [torch.stack(tensors) for tensors in zip(*(state["weights"] for state in states), strict=True)]
        self.network = EnsembleNetwork(stacked)
        self.input_mean = torch.stack([state["input_mean"] for state in states])[:, None]  # (S, 1, in)
        self.input_std = torch.stack([state["input_std"] for state in states])[:, None]
        self.elites = torch.stack([state["elites"] for state in states])  # (S, elites)

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
        """Maximum likelihood on the dataset's valid rows; gives the state of one seed and what is to be recorded of the fit.

        Holdout: min(holdout_fraction, holdout_rows) rows. Training stops when for more than `patience` epochs no network
        improved its own best holdout error (mean squared error of the mean) by more than `improvement`; each network returns
        to its own best weights, and the `elites` best of them are the ones rollouts sample. The bounds are not restored.
        """
        started = time.monotonic()
        size_in = problem.observation_size + problem.action_size
        train_rows, held_rows = split_rows(regression_rows(problem, dtype, device), config, seed)
        mean, std = standardise(size_in, train_rows, held_rows)
        initialiser = Initialiser([torch_stream(seed, "dynamics", "weights")], dtype, device)
        sizes = size_in, problem.observation_size + 1, config.hidden, config.networks
        network = EnsembleNetwork.create(initialiser, *sizes)
        training = EnsembleTraining(network, config, train_rows, size_in, seed)
        stopping = EarlyStopping(network, config)
        if begun := keeper.load():
            training.load(begun["training"])
            stopping.load(begun)
            started -= begun["seconds"]

        def so_far() -> dict[str, Any]:
            return {"training": training.state(), **stopping.state(), "seconds": time.monotonic() - started}

        while not stopping.over:
            training.epoch(stopping.epoch)
            stopping.add((predicted_targets(network, held_rows, size_in) - held_rows[:, size_in:]).square().mean((1, 2)))
            report({"epoch": stopping.epoch, "holdout_error": float(stopping.best_error.mean())})
            keeper.offer(so_far)
        stopping.restore()
        elites = stopping.best_error.argsort()[: config.elites]
        reward_means = predicted_targets(network, held_rows, size_in)[elites, :, 0].mean(0)
        cut_off = stopping.since_improvement <= config.patience
        record = {
            "epochs": stopping.epoch,
            "rows": len(train_rows),
            "holdout_rows": len(held_rows),
            "holdout_error": [float(value) if value.isfinite() else None for value in stopping.best_error],
            "elites": elites.tolist(),
            "elite_error_ratio": elite_error_ratio(stopping.best_error, elites),
            "holdout_reward_r2": r_squared(reward_means, held_rows[:, size_in]),
            **calibration(network, elites, held_rows, size_in),
            "learning_curve": stopping.curve,
            "cut_off": cut_off,
            "warning": f"the fit of the {cls.title} was cut off at {stopping.epoch} epochs while it still improved" * cut_off,
            "seconds": round(time.monotonic() - started, 1),
        }
        weights = [weight[0] for weight in network.weights]
        return {"weights": weights, "input_mean": mean, "input_std": std, "elites": elites}, record

    assumes = f"a dynamics model took {USUAL_EPOCHS} epochs"

    @classmethod
    def fit_units(cls, config: Config, data: Mapping[str, Any]) -> float:
        """Epochs times rows."""
        rows = data["dynamics_rows"]
        return min(USUAL_EPOCHS, config.max_epochs or USUAL_EPOCHS) * (rows - holdout_size(rows, config))

    @classmethod
    def short_fit(cls, config: Config) -> Config:
        return replace(config, max_epochs=2)

    def predict(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of (reward, s') under every network: (S, E, n, 1 + obs) each, raw units."""
        inputs = self.inputs(observations, actions)[:, None]
        at_once = CACHED_STATES if inputs.device.type == "cpu" else inputs.shape[2]
        parts = [self.network(part) for part in inputs.split(at_once, 2)]
        mean, log_variance = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        mean = torch.cat((mean[..., :1], mean[..., 1:] + observations[:, None]), -1)
        return mean, (0.5 * log_variance).exp()

    def sample(
        self, observations: Tensor, actions: Tensor, uniform: Tensor, noise: Tensor, all_networks: bool = True
    ) -> Prediction:
        """One step of n states per seed: an elite per state by `uniform` (S, n), its Gaussian by `noise` (S, n, 1 + obs).

        Without `all_networks` only the chosen elite of each state is computed: a seventh of the arithmetic, the same sample.
        """
        choice = self.elites.gather(1, (uniform * self.elites.shape[1]).long())
        means = stds = None
        if all_networks:
            means, stds = self.predict(observations, actions)
            index = choice[:, None, :, None].expand(-1, 1, -1, means.shape[-1])
            mean, std = means.gather(1, index)[:, 0], stds.gather(1, index)[:, 0]
        else:
            mean, std = self._predict_chosen(observations, actions, choice)
        drawn = mean + std * noise
        rewards, successors = drawn[..., 0], drawn[..., 1:]
        terminals = self.problem.termination(observations, actions, successors)
        asked = (observations, actions, self.elites)
        return Prediction(rewards, successors, terminals, mean[..., 0], means, stds, *asked)

    def inputs(self, observations: Tensor, actions: Tensor) -> Tensor:
        return (torch.cat((observations, actions), -1) - self.input_mean) / self.input_std

    def _predict_chosen(self, observations: Tensor, actions: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.inputs(observations, actions)
        mean = torch.empty(*choice.shape, observations.shape[-1] + 1, dtype=inputs.dtype, device=inputs.device)
        std = torch.empty_like(mean)
        for seed, elites in enumerate(self.elites.tolist()):
            for network in elites:
                rows = (choice[seed] == network).nonzero()[:, 0]
                part, log_variance = self.network.member(seed, network)(inputs[seed, rows][None, None])
                mean[seed, rows], std[seed, rows] = part[0, 0], (0.5 * log_variance[0, 0]).exp()
        mean[..., 1:] += observations
        return mean, std


class EnsembleTraining:
    """Epochs of maximum likelihood on rows (N, in + targets), each network on its own bootstrap sample of them."""

    def __init__(self, network: EnsembleNetwork, config: Dynamics.Config, rows: Tensor, size_in: int, seed: int):
        self.network, self.rows, self.size_in, self.seed = network, rows, size_in, seed
        decays = network.decays(config.weight_decays, config.variance_weight_decay)
        self.optimiser = Adam(network.weights, config.learning_rate, decays, config.adam)
        stream = torch_stream(seed, "dynamics", "bootstrap", device=rows.device)
        # whole numbers of seven times the rows: in 32 bits, or they take more memory than the rows
        size = (config.networks, len(rows))
        self.bootstrap = torch.randint(len(rows), size, generator=stream, device=rows.device).int()
        self.batch_size = config.batch_size
        self.spectral: SpectralBound | None = None
        if config.spectral_norm is not None:
            self.spectral = SpectralBound(network.matrices, config.spectral_norm, torch_stream(seed, "dynamics", "spectral"))

    def epoch(self, number: int) -> None:
        """All rows of the samples once, in an order of this epoch's own."""
        stream = torch_stream(self.seed, "dynamics", "epoch", number, device=self.rows.device)
        keys = torch.rand(self.bootstrap.shape, generator=stream, dtype=torch.float32, device=self.rows.device)
        shuffle = torch.stack([each.argsort().int() for each in keys])
        for positions in shuffle.split(self.batch_size, dim=1):
            self.step(positions.long())
        if self.spectral is not None:
            self.spectral.settle()

    def state(self) -> dict[str, Any]:
        optimiser = self.optimiser
        lists = {"weights": self.network.weights, "first": optimiser.first, "second": optimiser.second}
        lists |= {} if self.spectral is None else {"spectral": self.spectral.vectors}
        return {**lists, "count": optimiser.count}

    def load(self, state: Mapping[str, Any]) -> None:
        mine = self.state()
        mine["count"].copy_(state["count"])
        for name in mine.keys() - {"count"}:
            for own, saved in zip(mine[name], state[name], strict=True):
                own.copy_(saved)

    def step(self, positions: Tensor) -> None:
        """One of Adam, on those positions (E, B) of the bootstrap samples."""
        batch = self.rows[self.bootstrap.gather(1, positions).long()][None]
        inputs, targets = batch[..., : self.size_in], batch[..., self.size_in :]
        gradients, _, _ = gradient(self.network, partial(likelihood_loss, inputs=inputs, targets=targets))
        self.optimiser.step(self.network.weights, gradients)
        if self.spectral is not None:
            self.spectral.apply()


class EarlyStopping:
    """The best weights of each network so far, by its holdout error, and for how many epochs no network has improved."""

    def __init__(self, network: EnsembleNetwork, config: Dynamics.Config):
        self.network, self.config = network, config
        self.best = network.copy().weights
        weight = network.weights[0]
        self.best_error = torch.full((config.networks,), math.inf, dtype=weight.dtype, device=weight.device)
        self.epoch = self.since_improvement = 0
        self.curve: list[float | None] = []  # the mean of the networks' holdout errors, by epoch

    @property
    def over(self) -> bool:
        config = self.config
        return self.since_improvement > config.patience or self.epoch == config.max_epochs

    def add(self, error: Tensor) -> None:
        """The holdout errors (E,) after another epoch."""
        improved = (self.best_error - error) / self.best_error > self.config.improvement
        improved |= self.best_error.isinf() & error.isfinite()
        self.best_error = torch.where(improved, error, self.best_error)
        for kept, weight in zip(self.best[:-2], self.network.weights[:-2], strict=True):
            kept[0, improved] = weight[0, improved]
        self.since_improvement = 0 if bool(improved.any()) else self.since_improvement + 1
        self.epoch += 1
        self.curve.append(number(error.mean()))

    def restore(self) -> None:
        """Each network returns to its own best weights; not so the bounds, which the networks share."""
        self.network.weights[:-2] = self.best[:-2]
        sound, config = int(self.best_error.isfinite().sum()), self.config
        if sound < config.elites:
            raise FloatingPointError(
                f"{sound} of {config.networks} networks of the dynamics ensemble ever had a finite holdout error, in "
                f"{self.epoch} epochs: fewer than its {config.elites} elites"
            )

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("best", "best_error", "epoch", "since_improvement", "curve")}

    def load(self, state: Mapping[str, Any]) -> None:
        for name in self.state():
            setattr(self, name, state.get(name, []))  # a fit that was begun before curves were kept has none


def split_rows(rows: Tensor, config: Dynamics.Config, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows held out, at random, whichever episode they are of, as in the authors' code."""
    order = torch.randperm(len(rows), generator=torch_stream(seed, "dynamics", "holdout")).to(rows.device)
    holdout = holdout_size(len(rows), config)
    return rows[order[holdout:]], rows[order[:holdout]]


def holdout_size(rows: int, config: Dynamics.Config) -> int:
    return max(1, min(int(rows * config.holdout_fraction), config.holdout_rows))


def standardise(size_in: int, train_rows: Tensor, held_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of both are z-scored in place, by the mean and standard deviation of those to train on, which it gives."""
    inputs = train_rows[:, :size_in]
    mean, std = inputs.mean(0), inputs.std(0, correction=0)
    std = torch.where(std < 1e-12, torch.ones_like(std), std)
    for rows in (train_rows, held_rows):
        rows[:, :size_in].sub_(mean).div_(std)
    return mean, std


def predicted_targets(network: EnsembleNetwork, rows: Tensor, size_in: int) -> Tensor:
    """The means (E, N, targets) of one seed's networks at the inputs of rows (N, in + targets)."""
    return network(rows[None, None, :, :size_in])[0][0]


def regression_rows(problem: OfflineProblem, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Inputs (s, a) and targets (r, s' - s) side by side, of the rows whose next observation is the true successor."""
    dataset, keep = problem.dataset, problem.dataset.dynamics_rows
    observations, actions = problem.observation_size, problem.action_size
    rows = torch.empty(int(keep.sum()), 2 * observations + actions + 1, dtype=dtype, device=device)
    columns = (dataset.observations, dataset.actions, dataset.rewards[:, None], dataset.next_observations)
    for column, part in zip(columns, rows.split((observations, actions, 1, observations), -1), strict=True):
        part.copy_(torch.as_tensor(column[keep]))
    rows[:, -observations:] -= rows[:, :observations]
    return rows


def elite_error_ratio(errors: Tensor, elites: Tensor) -> float | None:
    """The elites' mean error, of holdout errors (E,), by the others'; None where there is no other, or one is infinite."""
    chosen = torch.zeros_like(errors, dtype=torch.bool).index_fill(0, elites, True)
    ratio = errors[chosen].mean() / errors[~chosen].mean()
    return float(ratio) if ratio.isfinite() else None


def calibration(network: EnsembleNetwork, elites: Tensor, rows: Tensor, size_in: int) -> dict[str, Any]:
    """How right the elites are about rows (N, in + targets), in the mean over them; targets are the reward and s' - s.

    errors: the root mean square error of each target. z_scores: the root mean square of (target - mean) / std, likewise; 1
    where the predicted spread is right, more where it is too small. nll: the negative log-likelihood of a row, in nats.
    """
    means, log_variances = (part[0, elites] for part in network(rows[None, None, :, :size_in]))
    squares = (rows[:, size_in:] - means).square()
    scaled = squares * torch.exp(-log_variances)
    nll = 0.5 * (scaled + log_variances + math.log(2 * math.pi)).sum(-1)
    return {
        "holdout_errors": list(map(number, squares.mean(1).sqrt().mean(0))),
        "holdout_z_scores": list(map(number, scaled.mean(1).sqrt().mean(0))),
        "holdout_z_score": number(scaled.mean().sqrt()),
        "holdout_nll": number(nll.mean()),
    }


def number(value: Tensor) -> float | None:
    """Six digits of it, for a record; None where it is not finite."""
    return float(f"{float(value):.6g}") if bool(value.isfinite()) else None


def r_squared(predicted: Tensor, target: Tensor) -> float:
    """Share of the target's variance that is predicted; 0 where there is none to predict."""
    variance = float(target.var(correction=0))
    return 1 - float((predicted - target).square().mean()) / variance if variance > 0 else 0.0
