"""Uncertainty estimators u(s, a) of a sampled model step, each (S, n); MOPO subtracts a multiple of one from the reward."""

from __future__ import annotations

from torch import Tensor

from .dynamics import Prediction


def max_std(prediction: Prediction) -> Tensor:
    """max over all E networks of the L2 norm of the predicted standard deviation, reward and observation, raw units.

    What the authors' code does, and the paper in words (arXiv 2005.13239, section 4.3: the maximum standard deviation).
    """
    return _every(prediction.stds).square().sum(-1).sqrt().amax(1)


def max_covariance(prediction: Prediction) -> Tensor:
    """max over all E networks of ||Sigma_i||_F with Sigma_i the predicted covariance: the paper's formula taken literally."""
    return _every(prediction.stds).pow(4).sum(-1).sqrt().amax(1)


def ensemble(prediction: Prediction) -> Tensor:
    """max over networks of the L2 distance of the predicted next observation from the ensemble's mean (appendix D)."""
    successors = _every(prediction.means)[..., 1:]
    return (successors - successors.mean(1, keepdim=True)).square().sum(-1).sqrt().amax(1)


def _every(values: Tensor | None) -> Tensor:
    if values is None:
        raise ValueError("this penalty needs the predictions of all networks")
    return values


PENALTIES = {"max_std": max_std, "max_covariance": max_covariance, "ensemble": ensemble}
