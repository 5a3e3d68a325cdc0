"""Uncertainty estimators u(s, a) of a sampled model step, each (S, n); MOPO subtracts a multiple of one from the reward.

Those of `PENALTIES` see the model alone. Those of `SIMULATED` are given the real simulator, which no offline algorithm has:
they say how good a penalty could be, and are no way to learn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...tasks.task import TrueStep
from .dynamics import Prediction


def max_std(prediction: Prediction) -> Tensor:
    """max over all E networks of the L2 norm of the predicted standard deviation, reward and observation, raw units.

    What the authors' code does, and the paper in words (arXiv 2005.13239, section 4.3: the maximum standard deviation).
    """
    return _norm(_every(prediction.stds)).amax(1)


def max_std_elites(prediction: Prediction) -> Tensor:
    """As `max_std`, but over the elites alone, the networks that rollouts sample."""
    norms, elites = _norm(_every(prediction.stds)), _every(prediction.elites)
    return norms.gather(1, elites[..., None].expand(-1, -1, norms.shape[2])).amax(1)


def mean_std(prediction: Prediction) -> Tensor:
    """As `max_std`, but the mean over all E networks: what the ensemble says of the noise, not what its boldest member does."""
    return _norm(_every(prediction.stds)).mean(1)


def max_variance(prediction: Prediction) -> Tensor:
    """max over all E networks of the total predicted variance, the trace of the covariance: the square of `max_std`."""
    return _every(prediction.stds).square().sum(-1).amax(1)


def max_covariance(prediction: Prediction) -> Tensor:
    """max over all E networks of ||Sigma_i||_F with Sigma_i the predicted covariance: the paper's formula taken literally."""
    return _every(prediction.stds).pow(4).sum(-1).sqrt().amax(1)


def ensemble(prediction: Prediction) -> Tensor:
    """max over networks of the L2 distance of the predicted next observation from the ensemble's mean (appendix D)."""
    successors = _every(prediction.means)[..., 1:]
    return _norm(successors - successors.mean(1, keepdim=True)).amax(1)


def none(prediction: Prediction) -> Tensor:
    """0: rewards stay as the model draws them, as MBPO's do (appendix D)."""
    return torch.zeros_like(prediction.rewards)


def true_error(prediction: Prediction, true_step: TrueStep) -> Tensor:
    """max over all E networks of the L2 distance of the predicted mean from the real step, reward and observation, raw units.

    The error that an ideal estimator would bound (arXiv 2005.13239, definition 4.1). It needs the simulator by design.
    """
    means, observations = _every(prediction.means), _every(prediction.observations)
    asked = (each.flatten(0, 1).double().cpu().numpy() for each in (observations, _every(prediction.actions)))
    successors, rewards = true_step(*asked)
    truth = torch.as_tensor(np.concatenate((rewards[:, None], successors), 1), dtype=means.dtype, device=means.device)
    return _norm(means - truth.view(len(means), 1, *means.shape[2:])).amax(1)


def _norm(values: Tensor) -> Tensor:
    """The L2 norm over the last axis."""
    return values.square().sum(-1).sqrt()


def _every(values: Tensor | None) -> Tensor:
    if values is None:
        raise ValueError("this penalty needs the predictions of all networks")
    return values


PENALTIES: dict[str, Callable[[Prediction], Tensor]] = {
    each.__name__: each for each in (max_std, max_std_elites, mean_std, max_variance, max_covariance, ensemble, none)
}
SIMULATED: dict[str, Callable[[Prediction, TrueStep], Tensor]] = {"true_error": true_error}
