"""What is asked of a learner at its first step: that it acts, and gives losses and metrics, as the contract says.

The learner is any `Learner`; its file imports this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...common.errors import UserError


def check_actions(learner: Any, observations: Tensor, sampled: bool) -> None:
    """UserError where `act`, if `sampled` with noise, too, gives no finite actions (S, n, act) in [-1, 1] for (S, n, obs).

    Of a learner that has diverged only the shape is asked.
    """
    where, size = f"{type(learner).__name__}.act", learner.problem.action_size
    wanted = (*observations.shape[:2], size)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(wanted, generator=generator, dtype=torch.float64).to(observations)
    sound = all(bool(weight.isfinite().all()) for network in learner.networks().values() for weight in network.weights)
    for given in (None, noise) if sampled else (None,):
        actions = learner.act(observations, given)
        if not isinstance(actions, Tensor) or tuple(actions.shape) != wanted:
            seen = tuple(observations.shape)
            raise UserError(f"{where}: expected actions of shape {wanted} for observations {seen}, got {named(actions)}")
        if actions.requires_grad:
            raise UserError(f"{where}: its actions keep the graph of their gradients; detach them")
        if sound and not bool(actions.isfinite().all()):
            raise UserError(f"{where}: expected finite actions, got some that are not")
        if sound and float(actions.abs().max()) > 1 + 1e-6:
            raise UserError(f"{where}: expected actions in [-1, 1], got one of size {float(actions.abs().max()):.6g}")


def check_acting(learner: Any, observations: Tensor) -> None:
    """UserError where `act` gives other actions the second time, or for the same observations in other company.

    observations (S, n, obs), n even. Where an algorithm acts by the best of several samples rounding may decide between two,
    so that a few may differ.
    """
    where, first = f"{type(learner).__name__}.act", learner.act(observations)
    if not bool(first.isfinite().all()):
        return  # it has diverged
    if not torch.equal(first, learner.act(observations)):
        raise UserError(f"{where}: acts otherwise when it is asked again: what it returns must depend on observations alone")
    halves = torch.cat([learner.act(half) for half in observations.chunk(2, 1)], 1)
    if not float((halves - first).abs().amax(-1).median()) <= 1e-4:  # nor is NaN
        raise UserError(
            f"{where}: acts by which other observations are in the batch, as a layer in training mode does; a state's action "
            "must not depend on them"
        )


def check_metrics(learner: Any, metrics: Any) -> None:
    """UserError where `update` gives no metrics, or one that is not a number per seed."""
    where, seeds = f"{type(learner).__name__}.update", len(learner.seeds)
    wanted = f"expected a dict of metrics, each a tensor of shape ({seeds},), a number per seed"
    if not isinstance(metrics, dict) or not metrics:
        raise UserError(f"{where}: {wanted}, got {named(metrics)}")
    for name, values in metrics.items():
        if not isinstance(name, str):
            raise UserError(f"{where}: {wanted}, got the name {name!r}")
        if not isinstance(values, Tensor) or tuple(values.shape) != (seeds,):
            raise UserError(f"{where}: {wanted}, got {name} as {named(values)}; reduce with per_seed")
        if values.requires_grad:
            raise UserError(f"{where}: {name} keeps the graph of its gradient; detach it")


def checked_loss(learner: Any, loss: Callable[[Any], Any], network: Any) -> Any:
    """What `loss(network)` gives; UserError where that is no number per seed, nor a pair of one and tensors."""
    result = loss(network)
    values = result[0] if isinstance(result, tuple) and len(result) == 2 else result
    if not isinstance(values, Tensor) or values.shape != (len(learner.seeds),):
        wanted = f"a loss of shape ({len(learner.seeds)},), a number per seed, or a pair of one and tensors"
        where = f"{type(learner).__name__}.update: {getattr(loss, '__name__', 'a loss').strip('<>')}"
        raise UserError(f"{where}: expected {wanted}, got {named(values)}; reduce with per_seed")
    return result


def fill(own: Tensor, saved: Any, where: str) -> None:
    """Copies a saved tensor into one of a learner's. UserError where it has another shape or type: nothing is broadcast."""
    if not isinstance(saved, Tensor) or saved.shape != own.shape or saved.dtype != own.dtype:
        kind = f"{named(saved)} and {saved.dtype}" if isinstance(saved, Tensor) else named(saved)
        raise UserError(f"{where}: expected a tensor of shape {tuple(own.shape)} and {own.dtype}, got {kind}")
    own.copy_(saved)


def fill_all(own: Sequence[Tensor], saved: Any, where: str) -> None:
    """The same for a list of tensors. UserError where it is of another length."""
    if not isinstance(saved, list | tuple) or len(saved) != len(own):
        got = f"{len(saved)}" if isinstance(saved, list | tuple) else named(saved)
        raise UserError(f"{where}: expected {len(own)} tensors, got {got}")
    for index, (mine, theirs) in enumerate(zip(own, saved, strict=True)):
        fill(mine, theirs, f"{where}[{index}]")


def named(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "nothing" if value is None else repr(value) if value == {} else f"a {type(value).__name__}"
