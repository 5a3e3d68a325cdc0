"""Termination functions of transitions (s, a, s'): what a learner may know of a task in addition to its dataset.

Every function takes `observations` (..., obs), `actions` (..., act) and `next_observations` (..., obs), torch tensors
of any leading axes with the features last, and returns one truth value per leading index (...), on the same
device. They use methods of tensors alone, so that tasks can be listed without importing torch.

Whether a transition is terminal follows from its next state alone, as in the authors' code of MOPO
(arXiv 2005.13239), from which the thresholds are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..common.errors import FOREIGN, UserError
from .points import SIDEWAYS_LIMIT

if TYPE_CHECKING:
    from torch import Tensor

Termination = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]


def said_by(rule: Termination, name: str, observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """What the rule of the task `name` says of these transitions, (...) booleans.

    Raises UserError where it fails on them, or gives something else: a learner would fail in mid-run, or take it wrongly.
    """
    wanted, whose = tuple(observations.shape[:-1]), f"{name}: its termination {getattr(rule, '__qualname__', rule)}"
    try:
        found: Any = rule(observations, actions, next_observations)
        kind = f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
        kind = kind if isinstance(found, type(observations)) else f"a {type(found).__name__}"
    except FOREIGN as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{whose} fails on tensors of shape {tuple(observations.shape)}, features last ({why}): see docs/your-own-task.md"
        ) from None
    if kind != f"bool of shape {wanted}":
        raise UserError(f"{whose} gives {kind}, expected bool of shape {wanted}: one truth value for each transition")
    return found


def never(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """Says that no state is terminal, as in halfcheetah, halfcheetah-jump and pendulum."""
    return next_observations.new_zeros(next_observations.shape[:-1]).bool()


def hopper(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """Healthy: all finite, |obs[1:]| < 100, height obs[0] > 0.7 m and |angle obs[1]| < 0.2 rad."""
    return _hopper(next_observations, next_observations[..., 1:].abs())


def hopper_released(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """The rule of `hopper` with the misplaced abs of the authors' code, which bounds obs[1:] from above only."""
    return _hopper(next_observations, next_observations[..., 1:])


def _hopper(next_observations: Tensor, bounded: Tensor) -> Tensor:
    height, angle = next_observations[..., 0], next_observations[..., 1]
    healthy = next_observations.isfinite().all(-1) & (bounded < 100.0).all(-1) & (height > 0.7) & (angle.abs() < 0.2)
    return ~healthy


def walker2d(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """Healthy: 0.8 m < height obs[0] < 2 m and -1 rad < angle obs[1] < 1 rad; the other features have no part in it."""
    height, angle = next_observations[..., 0], next_observations[..., 1]
    # "Not healthy" and never "beyond a limit": comparisons with NaN are false.
    return ~((height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0))


def ant(healthy_z_range: tuple[float, float] | None = (0.2, 1.0)) -> Termination:
    """The ant's termination. Healthy: all finite and the torso's height obs[0] within the range, its ends included.

    Args:
        healthy_z_range: lowest and highest healthy height in metres; None: no height is unhealthy.
    """
    low, high = healthy_z_range or (-float("inf"), float("inf"))
    return partial(_ant, low=low, high=high)


def _ant(observations: Tensor, actions: Tensor, next_observations: Tensor, *, low: float, high: float) -> Tensor:
    height = next_observations[..., 0]
    return ~(next_observations.isfinite().all(-1) & (height >= low) & (height <= high))


def point_angle(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """Terminal where |vy'| > 1.4, or vy' is not a number: of point-angle and of point-edge."""
    return ~(next_observations[..., 1].abs() <= SIDEWAYS_LIMIT)


TERMINATIONS: dict[str, Termination] = {
    "never": never,
    "hopper": hopper,
    "hopper-released": hopper_released,
    "walker2d": walker2d,
    "ant": ant(),
    "point-angle": point_angle,
}
