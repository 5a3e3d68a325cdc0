"""The contract of an algorithm: a Learner says how networks change; an Experience says where its batches come from.

A learner is written once and runs for one seed or a group of them, eager or compiled, in float32 or float64, because each
loss is a function of the network it trains: everything else in it is constant, so nothing is detached, frozen or zeroed.

Axes, in this order: seed S, ensemble E, samples, batch B, features. Scalars of a seed are (S, 1). A loss is reduced with
`per_seed` only, which keeps S: a mean over seeds would mix them silently.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.settings import Count
from ...common.streams import torch_stream
from ...tasks.task import Rules
from . import private_torch
from .contract import checked_loss, fill, fill_all
from .held import Held
from .networks import Initialiser, Network
from .optimisation import Adam, AnyNetwork, gradient
from .replay import Batch
from .stage import Stage

Noise = Mapping[str, Tensor]
CRITIC_VALUE = "critic_value"  # the metric that is held against what rewards allow, see `update`


def per_seed(values: Tensor) -> Tensor:
    """The mean over every axis but the first: (S, ...) to (S,)."""
    return values.flatten(1).mean(1)


def _squared_norms(weights: Sequence[Tensor]) -> Any:
    """By seed, over all weights (S, ...)."""
    return sum(weight.flatten(1).square().sum(1) for weight in weights)


class Learner:
    """Base of every algorithm. An author writes `Config`, `build`, `noise`, `update` and `act`; see `sac.py`.

    A Config may choose how its networks begin and whose Adam trains them, by `initialisation` and `adam`; else PyTorch's.

    problem: the rules of the task (sizes, termination, discount, horizon), never an environment.
    seeds: S training seeds; each draws its first weights from its own stream.
    """

    @dataclass(frozen=True)
    class Config:
        batch_size: Count = 256

    version: ClassVar[int] = 1  # raised by hand when the numbers change: it is part of a run's identity
    stages: ClassVar[Mapping[str, type[Stage]]] = MappingProxyType({})  # models fitted first, found in `self.fitted`
    # which side of a metric is worse, for the regression check: "low", "high", "both" (every metric not named) or "neither"
    worse: ClassVar[Mapping[str, str]] = MappingProxyType({})
    warmup_fraction: ClassVar[float] = 0.0  # of the steps of a run, which the warm-up takes as its authors ran it

    def __init__(
        self,
        problem: Rules,
        config: Any,
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        stages: Mapping[str, Any] | None = None,
    ):
        self.problem, self.config, self.seeds = problem, config, list(seeds)
        self.dtype, self.device = dtype, torch.device(device)
        self.fitted = dict(stages or {})
        generators = [torch_stream(seed, "weights") for seed in seeds]
        self.initialise = Initialiser(generators, dtype, device, getattr(config, "initialisation", "torch"))
        self._made: list[Network] = []
        self.build()
        kept = [id(network) for network in self.networks().values()]
        if any(id(network) not in kept for network in self._made):
            raise UserError(f"{type(self).__name__}: keep every network as an attribute of its own, or it is not saved")
        self._held = Held(self, self.derived)

    # what an author writes

    def build(self) -> None:
        """Makes the networks: `self.critic = self.trainable(Critics.create(self.initialise, ...), learning_rate)`."""
        raise NotImplementedError

    def noise(self) -> dict[str, tuple[int, ...]]:
        """The standard normals one update wants, per seed: name and shape without the seed axis."""
        return {}

    def uniforms(self) -> dict[str, tuple[int, ...]]:
        """The numbers uniform in [0, 1) that one update wants, likewise; it finds both in `noise`, by name."""
        return {}

    def phase(self, step: int) -> Hashable:
        """What distinguishes the kinds of step (a warm-up, a delayed actor): each value is one compiled graph."""
        return None

    def update(self, batch: Batch, noise: Noise, phase: Hashable) -> dict[str, Tensor]:
        """One gradient step of every network; gives metrics, each (S,).

        A metric "critic_value" is the critics' mean value Q(s, a) of the batch, in the unit of its rewards: a run is marked
        where it exceeds what the rewards allow, see `value_bonus`.

        What it changes are tensors, in place, and it reads no number back from them: on a GPU it is recorded once and replayed.
        """
        raise NotImplementedError

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions (S, n, act) in [-1, 1] for (S, n, obs); with standard normal `noise` (S, n, act) sampled, else the mode."""
        raise NotImplementedError

    def value_bonus(self) -> Tensor | float:
        """What critics add to the reward of each later step, at most, (S,): an entropy bonus, say."""
        return 0.0

    def action_value(self, observations: Tensor, actions: Tensor) -> Tensor | None:
        """The critics' value (S, n) of actions (S, n, act) in [-1, 1] at (S, n, obs); None of a learner without critics."""
        return None

    @classmethod
    def warmup_steps(cls, config: Any) -> int:
        """How many of its first steps are a warm-up: what a run is worth before their end says little of the algorithm."""
        return 0

    # what the base gives

    def trainable(self, network: AnyNetwork, learning_rate: float) -> AnyNetwork:
        network.optimiser = Adam(network.weights, learning_rate, form=getattr(self.config, "adam", "torch"))
        self._made.append(network)
        return network

    def slow_copy(self, network: AnyNetwork) -> AnyNetwork:
        """A target network: starts equal, then moves by `follow`."""
        copy = network.copy()
        copy.source = network
        self._made.append(copy)
        return copy

    def acting_noise(self, samples: int) -> Tensor:
        """Standard normals (S, samples, 1, act), of each seed's own and the same at every state.

        For a policy that acts by the best of some samples: without noise it is then a function of the state.
        """
        shape, streams = (samples, 1, self.problem.action_size), [torch_stream(seed, "acting") for seed in self.seeds]
        draws = [torch.randn(shape, generator=stream, dtype=torch.float32) for stream in streams]
        return torch.stack(draws).to(self.device, self.dtype)

    def minimise(
        self,
        network: AnyNetwork,
        loss: Callable[[AnyNetwork], Any],
        clamp: tuple[float, float] | None = None,
    ) -> Any:
        """One Adam step on `loss(network)`; gives the loss (S,), and what else the loss returned if it returned a pair."""
        gradients, values, extra = gradient(network, partial(checked_loss, self, loss))
        network.optimiser.step(network.weights, gradients)
        if clamp is not None:
            for weight in network.weights:
                weight.clamp_(*clamp)
        return values if isinstance(extra, tuple) and not extra else (values, extra)

    def follow(self, slow: Network, network: Network, tau: float) -> None:
        """slow <- (1 - tau) slow + tau network."""
        if private_torch.foreach_lerp is None or torch.compiler.is_compiling():
            for old, new in zip(slow.weights, network.weights, strict=True):
                old.lerp_(new, tau)
        else:
            private_torch.foreach_lerp(slow.weights, network.weights, tau)

    @property
    def vitals(self) -> dict[str, Tensor]:
        """Stored with every evaluation, (S,) each. target_lag: how far target networks are from those that they follow, the
        norm of the difference by that of the weights."""
        pairs = [(slow, slow.source) for slow in self.networks().values() if slow.source is not None]
        if not pairs:
            return {}
        apart = sum(_squared_norms([old - new for old, new in zip(a.weights, b.weights, strict=True)]) for a, b in pairs)
        return {"target_lag": (apart / sum(_squared_norms(b.weights) for _, b in pairs)).sqrt()}

    def networks(self) -> dict[str, Network]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Network)}

    acting: ClassVar[tuple[str, ...]] = ("actor",)  # the networks that `act` reads
    # attributes that are made again and not saved: of what a learner is given, and what its networks' own state holds
    derived: ClassVar[frozenset[str]] = frozenset({"problem", "config", "seeds", "dtype", "device", "fitted", "_made", "_held"})
    candidates: Tensor | None = None  # (S, N, 1, act): noise of the N actions of which the mode is the first critic's best

    def acting_states(self) -> list[dict[str, Any]]:
        """Copies of what `act` reads, one per seed: enough to act as now later on."""
        states: list[dict[str, Any]] = [
            {name: [weight[index].clone() for weight in getattr(self, name).weights] for name in self.acting}
            for index in range(len(self.seeds))
        ]
        for index, state in enumerate(states):
            if held := self._held.state(index):
                state["held"] = held
        return states

    def load_acting_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        self._held.load_states([state.get("held", {}) for state in states])
        for index, state in enumerate(states):
            for name in self.acting:
                own = [weight[index] for weight in getattr(self, name).weights]
                fill_all(own, state.get(name), f"{type(self).__name__}.{name}")

    def state(self, index: int) -> dict[str, Any]:
        """All that seed number `index` of the group has learned, ready to be saved: of each network, and whatever else has
        changed since `build`, see `held.py`."""
        state: dict[str, Any] = {}
        for name, network in self.networks().items():
            entry: dict[str, Any] = {"weights": [weight[index].clone() for weight in network.weights]}
            if (optimiser := network.optimiser) is not None:
                entry["first"] = [moment[index].clone() for moment in optimiser.first]
                entry["second"] = [moment[index].clone() for moment in optimiser.second]
                entry["count"] = optimiser.count.clone()
            state[name] = entry
        if held := self._held.state(index):
            state["held"] = held
        return state

    def load_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Takes one state per seed, in order; seeds may come from other groups, all at the same number of steps."""
        self._held.load_states([state.get("held", {}) for state in states])
        for name, network in self.networks().items():
            optimiser = network.optimiser
            for index, state in enumerate(states):
                where, entry = f"{type(self).__name__}.{name}", state.get(name)
                if not isinstance(entry, Mapping):
                    raise UserError(f"{where}: nothing of it was saved")
                parts = {"weights": network.weights}
                if optimiser is not None:
                    parts |= {"first": optimiser.first, "second": optimiser.second}
                    fill(optimiser.count, entry.get("count"), f"{where}.count")
                for key, tensors in parts.items():
                    fill_all([tensor[index] for tensor in tensors], entry.get(key), f"{where}.{key}")

    def finite(self) -> list[bool]:
        """By seed, whether every weight is finite."""
        sound = torch.ones(len(self.seeds), dtype=torch.bool, device=self.device)
        for network in self.networks().values():
            for weight in network.weights:
                sound &= weight.flatten(1).isfinite().all(1)
        return sound.tolist()
