"""Networks as functions with their weights in a list, every weight with leading axes: seeds first, then ensemble members.

A network is called on tensors (..., batch, features). `with_weights` gives the same function with other weights, which is
how a loss is differentiated with respect to exactly one network while everything else in it stays constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from ...common.settings import Choice

LOG_2 = math.log(2.0)
HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)

# How the layers of an MLP begin: "glorot" is Keras' default (Glorot and Bengio 2010), "torch" that of PyTorch's Linear.
Initialisation = Annotated[str, Choice("glorot", "torch")]


class Initialiser:
    """Draws the first weights of each seed from that seed's own generator, so that a seed is the same alone and in a group."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        dtype: torch.dtype,
        device: torch.device | str,
        initialisation: str = "torch",
    ):
        self.generators, self.dtype, self.device, self.initialisation = list(generators), dtype, device, initialisation

    def draw(self, sample: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Stacks one draw per seed: (S, *shape). Drawn in float64, so that both precisions start from the same numbers."""
        return torch.stack([sample(generator) for generator in self.generators]).to(self.device, self.dtype)

    def linear(self, size_in: int, size_out: int, ensemble: Sequence[int] = ()) -> list[Tensor]:
        """Weight (S, *ensemble, in, out) and bias (S, *ensemble, 1, out) of a layer of an MLP.

        "glorot": weights uniform within +-sqrt(6 / (in + out)), biases 0. "torch": both uniform within +-1/sqrt(in).
        """
        shape, bias = (*ensemble, size_in, size_out), (*ensemble, 1, size_out)
        if self.initialisation == "glorot":
            return [self.uniform(shape, math.sqrt(6 / (size_in + size_out))), self.constant(bias, 0.0)]
        return [self.uniform(each, 1 / math.sqrt(size_in)) for each in (shape, bias)]

    def uniform(self, shape: Sequence[int], bound: float) -> Tensor:
        return self.draw(lambda g: (torch.rand(*shape, generator=g, dtype=torch.float64) * 2 - 1) * bound)

    def truncated_normal(self, shape: Sequence[int], std: float) -> Tensor:
        """Normal(0, std) cut at two standard deviations, by the inverse distribution function."""
        edge = math.erf(2 / math.sqrt(2))
        return self.draw(
            lambda g: torch.erfinv((torch.rand(*shape, generator=g, dtype=torch.float64) * 2 - 1) * edge) * math.sqrt(2) * std
        )

    def constant(self, shape: Sequence[int], value: float) -> Tensor:
        return self.draw(lambda _: torch.full(tuple(shape), value, dtype=torch.float64))


class Network:
    """Weights and the function they define. Subclasses take `weights` first in `__init__` and keep their shape facts beside."""

    optimiser: Any = None  # set on the networks that a learner trains
    source: Network | None = None  # set on target networks: the one that is followed

    def __init__(self, weights: list[Tensor]):
        self.weights = weights

    def with_weights(self, weights: list[Tensor]) -> Self:
        """The same function with other weights; a subclass with more than weights says how it is rebuilt."""
        return type(self)(weights)

    def copy(self) -> Self:
        return self.with_weights([weight.clone() for weight in self.weights])


class Scalar(Network):
    """One number per seed, shape (S, 1): a log temperature, a Lagrange multiplier."""

    @classmethod
    def create(cls, initialiser: Initialiser, value: float) -> Scalar:
        """Of this value for every seed."""
        return cls([initialiser.constant((1,), value)])

    def __call__(self) -> Tensor:
        return self.weights[0]


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """inputs (*lead, B, in) @ weight (*lead, in, out) + bias (*lead, 1, out), as one batched product."""
    lead, (size_in, size_out) = weight.shape[:-2], weight.shape[-2:]
    batch = inputs.shape[-2]
    count = math.prod(lead)
    flat = inputs.expand(*lead, batch, size_in).reshape(count, batch, size_in)
    if count == 1:
        return torch.addmm(bias.view(1, size_out), flat[0], weight.view(size_in, size_out)).view(*lead, batch, size_out)
    return torch.baddbmm(bias.view(count, 1, size_out), flat, weight.view(count, size_in, size_out)).view(
        *lead, batch, size_out
    )


class MLP(Network):
    """A stack of linear layers with ReLU between. weights: [W1, b1, W2, b2, ...], W (*lead, in, out), b (*lead, 1, out)."""

    @classmethod
    def create(cls, initialiser: Initialiser, sizes: Sequence[int], ensemble: Sequence[int] = ()) -> MLP:
        """`sizes` from input to output."""
        layers = zip(sizes[:-1], sizes[1:], strict=True)
        return cls([each for size_in, size_out in layers for each in initialiser.linear(size_in, size_out, ensemble)])

    def __call__(self, inputs: Tensor) -> Tensor:
        last = len(self.weights) - 2
        for layer in range(0, last + 1, 2):
            inputs = linear(inputs, self.weights[layer], self.weights[layer + 1])
            if layer < last:
                inputs = torch.relu(inputs)
        return inputs


class Critics(Network):
    """E independent critics Q(s, a): (S, B, obs) and (S, B, act) to (S, E, B)."""

    @classmethod
    def create(
        cls, initialiser: Initialiser, observation_size: int, action_size: int, hidden: Sequence[int], count: int = 2
    ) -> Critics:
        """`count` of them, with first weights by a learner's `self.initialise`."""
        return cls(MLP.create(initialiser, (observation_size + action_size, *hidden, 1), (count,)).weights)

    def __call__(self, observations: Tensor, actions: Tensor) -> Tensor:
        return MLP(self.weights)(torch.cat((observations, actions), -1)[:, None]).squeeze(-1)

    def of_several(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q_e(s, a_k), (S, E, N, B), of N actions (S, N, B, act) at each state (S, B, obs)."""
        return self(*each_with(observations, actions)).unflatten(-1, actions.shape[1:3])


class DeterministicActor(Network):
    """tanh(MLP(s)): (S, B, obs) to (S, B, act)."""

    @classmethod
    def create(
        cls, initialiser: Initialiser, observation_size: int, action_size: int, hidden: Sequence[int]
    ) -> DeterministicActor:
        """With first weights by a learner's `self.initialise`."""
        return cls(MLP.create(initialiser, (observation_size, *hidden, action_size)).weights)

    def __call__(self, observations: Tensor) -> Tensor:
        return torch.tanh(MLP(self.weights)(observations))


class GaussianActor(Network):
    """A tanh-squashed Gaussian policy: a = tanh(u), u ~ N(mu(s), sigma(s)^2), with log sigma inside `log_std_range`.

    Clipped to it, or with `smooth_log_std` brought into it by tanh, as BRAC's authors do.
    """

    def __init__(self, weights: list[Tensor], log_std_range: tuple[float, float], smooth_log_std: bool = False):
        self.weights, self.log_std_range, self.smooth_log_std = weights, log_std_range, smooth_log_std

    @classmethod
    def create(
        cls,
        initialiser: Initialiser,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        log_std_range: tuple[float, float],
        smooth_log_std: bool = False,
    ) -> GaussianActor:
        """With first weights by a learner's `self.initialise`."""
        weights = MLP.create(initialiser, (observation_size, *hidden, 2 * action_size)).weights
        return cls(weights, log_std_range, smooth_log_std)

    def with_weights(self, weights: list[Tensor]) -> Self:
        return type(self)(weights, self.log_std_range, self.smooth_log_std)

    def gaussian(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma of the action before tanh, each (S, B, act)."""
        mean, log_std = MLP(self.weights)(observations).chunk(2, dim=-1)
        low, high = self.log_std_range
        if self.smooth_log_std:
            return mean, low + 0.5 * (high - low) * (1 + torch.tanh(log_std))
        return mean, log_std.clamp(low, high)

    def mode(self, observations: Tensor) -> Tensor:
        """tanh(mu(s)), (S, B, act)."""
        return torch.tanh(self.gaussian(observations)[0])

    def __call__(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparametrised sample from standard normal `noise` (S, B, act): actions (S, B, act), log-probabilities (S, B)."""
        mean, log_std = self.gaussian(observations)
        before = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - HALF_LOG_2_PI - log_tanh_slope(before)
        return torch.tanh(before), log_prob.sum(-1)

    def several(self, observations: Tensor, noise: Tensor) -> Tensor:
        """N samples at each state, before tanh: (S, B, obs) and noise (S, N, B, act) to (S, N, B, act)."""
        mean, log_std = self.gaussian(observations)
        return mean[:, None] + log_std.exp()[:, None] * noise

    def best_of(self, critics: Critics, observations: Tensor, noise: Tensor) -> Tensor:
        """Of N samples at each state the one that the first critic values most: noise (S, N, B or 1, act) to (S, B, act)."""
        actions = torch.tanh(self.several(observations, noise))
        best = critics.of_several(observations, actions)[:, 0].argmax(1)
        return actions.gather(1, best[:, None, :, None].expand(-1, 1, -1, actions.shape[-1]))[:, 0]

    def log_prob(self, observations: Tensor, actions: Tensor, margin: float = 1e-6) -> Tensor:
        """log pi(a | s), (S, B), of given actions; those at the edge of the box are moved inside by `margin`."""
        before = torch.atanh(actions.clamp(-1 + margin, 1 - margin))
        return squashed_log_prob(before, *self.gaussian(observations))


def squashed_log_prob(before: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of a = tanh(u) where u ~ N(mean, std^2), at u = `before`: (..., act) to (...)."""
    noise = (before - mean) * torch.exp(-log_std)
    return (-0.5 * noise.square() - log_std - HALF_LOG_2_PI - log_tanh_slope(before)).sum(-1)


def log_tanh_slope(before: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), without the cancellation at large |u|."""
    return 2 * (LOG_2 - before - functional.softplus(-2 * before))


class VariationalAutoencoder(Network):
    """q(z | s, a) and a(s, z), a model of the dataset's actions (Sohn et al. 2015); both halves are MLPs of the same depth.

    log_std_range: to which the encoder's log standard deviation is clipped.
    """

    log_std_range = (-4.0, 15.0)

    @classmethod
    def create(
        cls, initialiser: Initialiser, observation_size: int, action_size: int, latent_size: int, hidden: Sequence[int]
    ) -> VariationalAutoencoder:
        encoder = MLP.create(initialiser, (observation_size + action_size, *hidden, 2 * latent_size))
        decoder = MLP.create(initialiser, (observation_size + latent_size, *hidden, action_size))
        return cls(encoder.weights + decoder.weights)

    def encode(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | s, a): (S, B, obs), (S, B, act) to (S, B, latent) each."""
        encoder = MLP(self.weights[: len(self.weights) // 2])
        mean, log_std = encoder(torch.cat((observations, actions), -1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*self.log_std_range)

    def decode(self, observations: Tensor, latents: Tensor) -> Tensor:
        """The action before tanh: (S, B, obs), (S, B, latent) to (S, B, act)."""
        return MLP(self.weights[len(self.weights) // 2 :])(torch.cat((observations, latents), -1))


def each_with(rows: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (S, B, x) beside their samples (S, N, B, y), both as one long batch: (S, N * B, x) and (S, N * B, y)."""
    repeated = rows[:, None].expand(-1, samples.shape[1], -1, -1)
    return repeated.flatten(1, 2), samples.flatten(1, 2)
