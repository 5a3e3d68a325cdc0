"""The same logs, another reward: rewards computed again from what a batch stores, and batches relabelled with them.

A reward is a function of a batch, `(batch, **parameters) -> (N,)`, so that it may use whatever was stored beside the
transitions (`extras`), such as world velocities that no observation holds.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError, unknown
from .data.dataset import OfflineDataset
from .data.hdf5 import copy_with_rewards, read_hdf5

Reward = Callable[..., np.ndarray]
TORSO_HEIGHT = 0.7  # m, of the halfcheetah's model at rest


def halfcheetah_jump(batch: OfflineDataset, height_weight: float = 15.0, z_reference: str = "reset") -> np.ndarray:
    """min(v_x, 3) - 0.1 |a|^2 + height_weight (z - z_init), see `environments.HalfCheetahJump`; 0 is the behaviour reward."""
    if z_reference not in ("reset", "nominal"):
        raise UserError(f"z_reference={z_reference}: choose reset or nominal")
    z_init = stored(batch, "z_init") if z_reference == "reset" else TORSO_HEIGHT
    control = 0.1 * np.square(batch.actions.astype(np.float64)).sum(1)
    return np.minimum(stored(batch, "x_velocity"), 3) - control + height_weight * (stored(batch, "z") - z_init)


def ant_angle(batch: OfflineDataset, angle: float = 30.0, survive_bonus: float = 1.0) -> np.ndarray:
    """v_x cos(angle) + v_y sin(angle) - 0.5 |a|^2 - contact + survive_bonus, see `environments.AntAngle`; angle in degrees,
    0 is the behaviour reward."""
    radians = np.radians(angle)
    progress = np.cos(radians) * stored(batch, "x_velocity") + np.sin(radians) * stored(batch, "y_velocity")
    control = 0.5 * np.square(batch.actions.astype(np.float64)).sum(1)
    return progress - control - stored(batch, "contact_cost") + survive_bonus


REWARDS: dict[str, Reward] = {"halfcheetah-jump": halfcheetah_jump, "ant-angle": ant_angle}


def stored(batch: OfflineDataset, name: str) -> np.ndarray:
    """infos/name of the batch, float64; UserError where it was not stored."""
    if f"infos/{name}" not in batch.extras:
        found = ", ".join(sorted(batch.extras)) or "nothing"
        raise UserError(f"the batch stores no infos/{name}, which the reward needs (it stores {found}); collect it again")
    return batch.extras[f"infos/{name}"].astype(np.float64)


def find_reward(name: str) -> Reward:
    """A registered reward by name, or "module:function" of the user's own."""
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


def relabel(batch: OfflineDataset, reward: Reward, parameters: dict[str, Any], name: str) -> OfflineDataset:
    """The batch with other rewards; `provenance` records which, and the mean return under the old ones."""
    try:
        known = dict(list(inspect.signature(reward).parameters.items())[1:])
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} does not say what parameters it takes ({error}): wrap it in a function of your own") from None
    for parameter in parameters:
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, known, "they are the function's own")
    try:
        rewards = np.asarray(reward(batch, **parameters))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{name} failed with {parameters or 'no parameters'} ({type(error).__name__}: {error}); correct it"
        ) from error
    if rewards.shape != (len(batch),) or rewards.dtype.kind not in "fiub":
        raise UserError(
            f"{name} gave {rewards.dtype} of shape {rewards.shape}: expected a number for each of {len(batch)} rows"
        )
    finite = np.isfinite(rewards.astype(np.float32))
    if not finite.all():
        raise UserError(f"{name} is not finite in {int((~finite).sum())} rows, first in row {finite.argmin()}")
    used = {key: each.default for key, each in known.items() if each.default is not inspect.Parameter.empty} | parameters
    note = {"reward": name, "parameters": used, "return_mean_before": float(batch.episode_returns().mean())}
    return replace(batch, rewards=rewards.astype(np.float32), provenance={**batch.provenance, "relabelled": note})


def relabel_file(file: Path, name: str, settings: Sequence[str], out: Path) -> tuple[float, float]:
    """Relabels `file` into `out`; the mean reward of a row before and after.

    All else in the file stays as it is, so that what it leaves open (timeouts, successors) is still found by whoever reads it
    with its task. settings: "parameter=value", numbers where they look so.
    """
    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"{out} is the file to be read: name another one with --out")
    parameters = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected parameter=value, such as angle=45")
        parameters[key.strip()] = _parsed(value)
    reward = find_reward(name)
    # the actions are kept as they are, whatever their box
    batch = read_hdf5(file, action_low=-math.inf, action_high=math.inf)
    relabelled = relabel(batch, reward, parameters, name)
    copy_with_rewards(file, out, relabelled.rewards, relabelled.provenance)
    return float(batch.rewards.mean(dtype=np.float64)), float(relabelled.rewards.mean(dtype=np.float64))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
