"""Rewards computed from what a dataset stores; `data/relabelling.py` gives logs another reward with them.

A reward is a function of a dataset, `(dataset, **parameters) -> (N,)`, so that it may use what was recorded in addition to
the transitions (`extras`), such as world velocities that no observation holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np

from ..common.errors import UserError, unknown
from .data.dataset import OfflineDataset

Reward = Callable[..., np.ndarray]
TORSO_HEIGHT = 0.7  # m, of the halfcheetah's model at rest


def halfcheetah_jump(dataset: OfflineDataset, height_weight: float = 15.0, z_reference: str = "nominal") -> np.ndarray:
    """min(v_x, 3) - 0.1 |a|^2 + height_weight (z - z_0), see `environments.HalfCheetahJump`.

    A weight of 0 gives the behaviour reward.
    """
    if z_reference not in ("nominal", "reset"):
        raise UserError(f"z_reference={z_reference}: choose nominal or reset")
    z_0 = stored(dataset, "z_init") if z_reference == "reset" else TORSO_HEIGHT
    control = 0.1 * np.square(dataset.actions.astype(np.float64)).sum(1)
    return np.minimum(stored(dataset, "x_velocity"), 3) - control + height_weight * (stored(dataset, "z") - z_0)


def ant_angle(dataset: OfflineDataset, angle: float = 30.0, survive_bonus: float = 1.0) -> np.ndarray:
    """v_x cos(angle) + v_y sin(angle) - 0.5 |a|^2 - contact + survive_bonus, see `environments.AntAngle`.

    The angle is in degrees, and 0 gives the behaviour reward.
    """
    radians = np.radians(angle)
    progress = np.cos(radians) * stored(dataset, "x_velocity") + np.sin(radians) * stored(dataset, "y_velocity")
    control = 0.5 * np.square(dataset.actions.astype(np.float64)).sum(1)
    return progress - control - stored(dataset, "contact_cost") + survive_bonus


REWARDS: dict[str, Reward] = {"halfcheetah-jump": halfcheetah_jump, "ant-angle": ant_angle}


def stored(dataset: OfflineDataset, name: str) -> np.ndarray:
    """What the dataset stores as infos/name, in float64; raises UserError where it stores no such thing."""
    if f"infos/{name}" not in dataset.extras:
        found = ", ".join(sorted(dataset.extras)) or "nothing"
        raise UserError(f"the dataset stores no infos/{name}, which the reward needs (it stores {found}); collect it again")
    return dataset.extras[f"infos/{name}"].astype(np.float64)


def find_reward(name: str) -> Reward:
    """The reward registered under `name`, or the user's own for "module:function". Raises UserError where there is none."""
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise unknown("reward", name, REWARDS, "or name your own as module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--reward {name}: {error}; expected module:function that can be imported from here") from None
    if not callable(found):
        raise UserError(f"--reward {name}: {function} is not a function")
    return found
