"""Behaviour cloning weighted by advantages, as in MARWIL (Wang et al. 2018), with a value function fitted first, in a stage.

G(t)   = r(t) + gamma * G(t + 1), to the end of the logged episode; one that was cut is taken to end there
value  = mean (V(s) - G)^2, a stage: fitted once for each seed, kept beside the runs
policy = mean w (pi(s) - a)^2,  w = min(exp(sharpness * (G - V(s)) / std(G - V)), largest weight)
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from mopo_bench import Experience, Learner, Stage, per_seed, register_algorithm
from mopo_bench.algorithms.learning.networks import MLP, DeterministicActor, Initialiser
from mopo_bench.algorithms.learning.optimisation import Adam, gradient
from mopo_bench.algorithms.learning.stage import FitKeeper
from mopo_bench.common.settings import Count, NonNegative, Positive
from mopo_bench.common.streams import torch_stream


def returns_to_go(problem):
    """G (N,) of each row of the dataset."""
    dataset = problem.dataset
    ends, found, following = dataset.terminals | dataset.timeouts, np.empty(len(dataset)), 0.0
    for row in reversed(range(len(dataset))):
        following = dataset.rewards[row] + problem.discount * following * (not ends[row])
        found[row] = following
    return found


class ReturnsToGo(Experience):
    """The dataset with returns-to-go in the place of rewards."""

    version = 1

    def build(self):
        self.table = self.table.clone()
        self.table[:, self.layout.rewards] = torch.from_numpy(returns_to_go(self.problem)).to(self.table)


class Value(Stage):
    """V(s) in units of the returns' spread, and the spread of G - V: `Value(problem, config, states)` holds a group's."""

    @dataclass(frozen=True)
    class Config:
        hidden: tuple[Count, ...] = (64, 64)
        learning_rate: Positive = 1e-3
        batch_size: Count = 256
        epochs: Count = 50

    version, title = 1, "value function"
    worse = {"explained_variance": "low"}  # noqa: RUF012 - what the regression check looks at, and which side is worse

    def __init__(self, problem, config, states):
        self.network = MLP([torch.stack(weights) for weights in zip(*(state["weights"] for state in states), strict=True)])
        self.mean, self.std, self.spread = torch.stack([state["numbers"] for state in states], 1)[..., None]  # (S, 1) each

    def advantages(self, observations, returns):
        """(G - V) / std(G - V): (S, B, obs) and (S, B) to (S, B)."""
        return (returns - self.mean - self.std * self.network(observations)[..., 0]) / self.spread

    @classmethod
    def fit(
        cls,
        problem,
        config,
        seed,
        *,
        dtype=torch.float32,
        device="cpu",
        report=lambda row: None,
        keeper=FitKeeper(),  # noqa: B008
    ):
        started, begun = time.monotonic(), 0
        observations = torch.tensor(problem.dataset.observations, dtype=dtype, device=device)
        returns = torch.from_numpy(returns_to_go(problem)).to(device, dtype)
        mean, std = returns.mean(), returns.std(correction=0) + 1e-6
        initialiser = Initialiser([torch_stream(seed, "value weights")], dtype, device)
        network = MLP.create(initialiser, (problem.observation_size, *config.hidden, 1))
        adam = Adam(network.weights, config.learning_rate)
        tensors = [*network.weights, *adam.first, *adam.second, adam.count]
        if kept := keeper.load():  # a fit that was stopped goes on where it was kept
            begun, started = kept["epochs"], started - kept["seconds"]
            for tensor, saved in zip(tensors, kept["tensors"], strict=True):
                tensor.copy_(saved)
        for epoch in range(begun, config.epochs):
            order = torch.randperm(len(returns), generator=torch_stream(seed, "value rows", epoch)).to(device)
            for rows in order.split(config.batch_size):
                wanted = (returns[rows] - mean) / std

                def loss(network, rows=rows, wanted=wanted):
                    return per_seed((network(observations[rows][None])[..., 0] - wanted).square())

                gradients, value, _ = gradient(network, loss)
                adam.step(network.weights, gradients)
            if not value.isfinite().all():
                raise FloatingPointError(f"the value function diverged in epoch {epoch + 1}")  # a result, and kept as one
            report({"epoch": epoch + 1, "loss": float(value)})
            if epoch + 1 < config.epochs:
                so_far = {"tensors": tensors, "epochs": epoch + 1, "seconds": time.monotonic() - started}
                keeper.offer(lambda so_far=so_far: so_far)
        spread = (returns - mean - std * network(observations[None])[0, :, 0]).std(correction=0) + 1e-6
        record = {"epochs": config.epochs, "explained_variance": 1 - float(spread / std) ** 2}
        state = {"weights": [weight[0] for weight in network.weights], "numbers": torch.stack([mean, std, spread])}
        return state, record | {"seconds": round(time.monotonic() - started, 1)}

    @classmethod
    def fit_units(cls, config, data):
        return config.epochs * data["rows"]  # how long a fit is, in any unit: a short one is timed for an estimate

    @classmethod
    def short_fit(cls, config):
        return replace(config, epochs=min(config.epochs, 3))


class WeightedCloning(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256
        hidden: tuple[Count, ...] = (256, 256)
        learning_rate: Positive = 3e-4
        sharpness: NonNegative = 1.0  # 0: plain cloning
        largest_weight: Positive = 20.0

    version = 1
    stages = {"value": Value}  # noqa: RUF012 - found in `self.fitted`, its settings are value.epochs and so on
    worse = {"policy_loss": "high", "effective_share": "low"}  # noqa: RUF012

    def build(self):
        sizes = (self.problem.observation_size, self.problem.action_size)
        actor = DeterministicActor.create(self.initialise, *sizes, self.config.hidden)
        self.actor = self.trainable(actor, self.config.learning_rate)
        self.value = self.fitted["value"]

    def update(self, batch, noise, phase):
        advantages = self.value.advantages(batch.observations, batch.rewards)  # of ReturnsToGo, which has them there
        weights = (self.config.sharpness * advantages).exp().clamp(max=self.config.largest_weight)

        def policy_loss(actor):
            return per_seed(weights * (actor(batch.observations) - batch.actions).square().sum(-1))

        share = per_seed(weights).square() / per_seed(weights.square())  # 1: all rows count alike; small: a few count
        return {"policy_loss": self.minimise(self.actor, policy_loss), "effective_share": share}

    def act(self, observations, noise=None):
        return self.actor(observations)


register_algorithm(
    "weighted-cloning",
    WeightedCloning,
    ReturnsToGo,
    title="Weighted BC",
    about="behaviour cloning of each row as much as its return-to-go exceeds a fitted value",
)
