"""Relabelling: the same transitions under another reward, one of `rewards.py` or the user's own."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError, unknown
from ..rewards import Reward, find_reward
from ..task import Task
from .dataset import OfflineDataset
from .hdf5 import copy_with_rewards, read_hdf5


def with_own_rewards(dataset: OfflineDataset, task: Task) -> OfflineDataset:
    """The dataset with the task's own rewards, where it was logged under another reward."""
    reward = task.recipe.reward
    if reward is None:
        return dataset
    known = inspect.signature(reward).parameters
    return relabel(dataset, reward, {key: value for key, value in task.parameters.items() if key in known}, task.name)


def relabel(dataset: OfflineDataset, reward: Reward, parameters: dict[str, Any], name: str) -> OfflineDataset:
    """The dataset with other rewards; `provenance` records which, and the mean return under the old ones.

    name: what messages and provenance call the reward. Raises UserError where the reward fails, gives another shape than
    (N,) or numbers that are not finite, or does not have one of the parameters.
    """
    try:
        known = dict(list(inspect.signature(reward).parameters.items())[1:])
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} does not say what parameters it takes ({error}): wrap it in a function of your own") from None
    for parameter in parameters:
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, known, "they are the function's own")
    try:
        rewards = np.asarray(reward(dataset, **parameters))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{name} failed with {parameters or 'no parameters'} ({type(error).__name__}: {error}); correct it"
        ) from error
    if rewards.shape != (len(dataset),) or rewards.dtype.kind not in "fiub":
        raise UserError(
            f"{name} gave {rewards.dtype} of shape {rewards.shape}: expected a number for each of {len(dataset)} rows"
        )
    finite = np.isfinite(rewards.astype(np.float32))
    if not finite.all():
        raise UserError(f"{name} is not finite in {int((~finite).sum())} rows, first in row {finite.argmin()}")
    used = {key: each.default for key, each in known.items() if each.default is not inspect.Parameter.empty} | parameters
    note = {"reward": name, "parameters": used, "return_mean_before": float(dataset.episode_returns().mean())}
    return replace(dataset, rewards=rewards.astype(np.float32), provenance={**dataset.provenance, "relabelled": note})


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
    dataset = read_hdf5(file, action_low=-math.inf, action_high=math.inf)
    relabelled = relabel(dataset, reward, parameters, name)
    copy_with_rewards(file, out, relabelled.rewards, relabelled.provenance)
    return float(dataset.rewards.mean(dtype=np.float64)), float(relabelled.rewards.mean(dtype=np.float64))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
