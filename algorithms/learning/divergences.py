"""Divergences between a policy and the behaviour policy, state by state, from samples of both.

N samples of B states stand as (S, N, B, act); what comes out is (S, B), to be reduced by the caller.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .networks import Critics, squashed_log_prob

Gaussian = tuple[Tensor, Tensor]  # mean and log standard deviation before tanh, (S, B, act) each


def laplacian(difference: Tensor, width: float) -> Tensor:
    """exp(-|d|_1 / (2 width)) over the last axis."""
    return torch.exp(difference.abs().sum(-1) / (-2 * width))


def gaussian(difference: Tensor, width: float) -> Tensor:
    """exp(-|d|_2^2 / (2 width)) over the last axis."""
    return torch.exp(difference.square().sum(-1) / (-2 * width))


KERNELS = {"laplacian": laplacian, "gaussian": gaussian}


def squared_mmd(first: Tensor, second: Tensor, kernel: str, width: float) -> Tensor:
    """Squared maximum mean discrepancy of two sets of samples, all pairs: mean k(x, x') - 2 mean k(x, y) + mean k(y, y').

    first (S, N, B, act), second (S, M, B, act). The biased estimate: pairs of a sample with itself count, it is never negative.
    """

    def mean_kernel(one: Tensor, other: Tensor) -> Tensor:
        return KERNELS[kernel](one[:, :, None] - other[:, None], width).mean((1, 2))

    return mean_kernel(first, first) - 2 * mean_kernel(first, second) + mean_kernel(second, second)


def sampled_kl(policy: Gaussian, behaviour: Gaussian, noise: Tensor, action_margin: float) -> Tensor:
    """KL(pi || b) = E_pi[log pi(a | s) - log b(a | s)] of tanh-squashed Gaussians, from standard normal `noise` (S, N, B, act).

    As in BRAC's code, b is asked about actions that are moved inside the box by `action_margin`, pi about its own.
    """
    (mean, log_std), (behaviour_mean, behaviour_log_std) = policy, behaviour
    before = mean[:, None] + log_std[:, None].exp() * noise
    edge = math.atanh(1 - action_margin)
    own = squashed_log_prob(before, mean[:, None], log_std[:, None])
    other = squashed_log_prob(before.clamp(-edge, edge), behaviour_mean[:, None], behaviour_log_std[:, None])
    return (own - other).mean(1)


def dual_kl(policy_logits: Tensor, behaviour_logits: Tensor) -> Tensor:
    """A lower bound on KL(pi || b), E_pi[log g] - E_b[g] + 1 with g = softplus(logits); tight at g = pi / b."""
    return torch.log(functional.softplus(policy_logits) + 1e-8) - functional.softplus(behaviour_logits) + 1


def gradient_penalty(discriminator: Critics, observations: Tensor, actions: Tensor) -> Tensor:
    """max(|d logits / d a| - 1, 0)^2, (S, B): keeps the discriminator's slope in the actions near 1 (Gulrajani et al. 2017)."""

    def total(actions: Tensor) -> Tensor:
        return discriminator(observations, actions).sum()

    slope = (torch.func.grad(total)(actions).square().sum(-1) + 1e-8).sqrt()
    return (slope - 1).clamp(min=0).square()
