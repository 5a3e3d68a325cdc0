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

from .dataset import OfflineDataset
from .errors import UserError, unknown
from .hdf5 import read_hdf5, write_hdf5

Reward = Callable[..., np.ndarray]


def halfcheetah_jump(batch: OfflineDataset, height_weight: float = 15.0, z_reference: str = "reset") -> np.ndarray:
    """min(v_x, 3) - 0.1 |a|^2 + height_weight (z - z_init), see `environments.HalfCheetahJump`; 0 is the behaviour reward."""
    z_init = stored(batch, "z_init") if z_reference == "reset" else 0.7
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
    known = list(inspect.signature(reward).parameters)[1:]
    for parameter in parameters:
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, known, "they are the function's own")
    rewards = np.asarray(reward(batch, **parameters))
    if rewards.shape != (len(batch),) or rewards.dtype.kind not in "fiub":
        raise UserError(
            f"{name} gave {rewards.dtype} of shape {rewards.shape}: expected a number for each of {len(batch)} rows"
        )
    if not np.isfinite(rewards).all():
        raise UserError(
            f"{name} is not finite in {int((~np.isfinite(rewards)).sum())} rows, first in row {np.argmin(np.isfinite(rewards))}"
        )
    note = {"reward": name, "parameters": parameters, "return_mean_before": float(batch.episode_returns().mean())}
    return replace(batch, rewards=rewards.astype(np.float32), provenance={**batch.provenance, "relabelled": note})


def relabel_file(file: Path, name: str, settings: Sequence[tuple[str, str]], out: Path) -> tuple[float, float]:
    """Relabels `file` into `out`; the mean episode return before and after. Settings are texts: numbers where they look so."""
    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"{out} is the file to be read: name another one with --out")
    parameters = {key.strip(): _parsed(value) for key, value in settings}
    reward = find_reward(name)
    # the actions are kept as they are, whatever their box
    batch = read_hdf5(file, action_low=-math.inf, action_high=math.inf)
    relabelled = relabel(batch, reward, parameters, name)
    write_hdf5(relabelled, out)
    return float(batch.episode_returns().mean()), float(relabelled.episode_returns().mean())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
