"""Numbers that compare what a model says with what was: pure functions of arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from .model import Answers


def errors(answers: Answers, truth: np.ndarray) -> np.ndarray:
    """(n,): the L2 distance of the elites' mean prediction from the real (reward, s') (n, 1 + obs), in raw units."""
    return np.linalg.norm(answers.means.mean(0) - truth, axis=-1)


def rank_correlation(values: np.ndarray, others: np.ndarray) -> float | None:
    """Spearman's, of two arrays (n,); None where one of them does not vary, or fewer than three are finite in both."""
    sound = np.isfinite(values) & np.isfinite(others)
    values, others = values[sound], others[sound]
    if len(values) < 3 or np.ptp(values) == 0 or np.ptp(others) == 0:
        return None
    return float(stats.spearmanr(values, others).statistic)


def calibration(answers: Answers, truth: np.ndarray) -> dict[str, Any]:
    """How right the elites' spread is about the real (reward, s') (n, 1 + obs), in the mean over elites and rows.

    z_scores: by dimension, the root mean square of (real - mean) / std; 1 where the spread is right, more where it is too
    small. z_score: over all dimensions. nll: the negative log-likelihood of a row, in nats.
    """
    scaled = np.square((truth - answers.means) / answers.stds)
    nll = (0.5 * scaled + np.log(answers.stds) + 0.5 * math.log(2 * math.pi)).sum(-1)
    return {
        "z_scores": [number(each) for each in np.sqrt(scaled.mean((0, 1)))],
        "z_score": number(np.sqrt(scaled.mean())),
        "nll": number(nll.mean()),
    }


def occupancy_mean(values: np.ndarray, steps: np.ndarray, discount: float, length: float) -> float | None:
    """(1 - discount) times the sum of discount^step times a value along an episode, of values (n,) at these steps (n,) of some.

    length: how many steps an episode has on average. What lies after an end counts as 0. It is the paper's expectation over an
    occupancy (arXiv 2005.13239, eq. 8), times 1 - discount; None at a discount of 1.
    """
    if discount >= 1 or not len(values):
        return None
    return number((1 - discount) * length * np.mean(values * discount ** steps.astype(np.float64)))


def number(value: Any) -> float | None:
    """A number as JSON has it, six digits; None where it is not finite."""
    return float(f"{float(value):.6g}") if np.isfinite(value) else None
