"""Relabelling: the same transitions under another reward, one of `rewards.py` or the user's own."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError, in_words, unknown
from ..rewards import REWARDS, Reward, find_reward
from ..task import Task
from .dataset import OfflineDataset
from .hdf5 import copy_with_rewards, read_hdf5, write_hdf5


def with_own_rewards(dataset: OfflineDataset, task: Task) -> OfflineDataset:
    """The dataset with the task's own rewards, where it was logged under another reward."""
    reward = task.recipe.reward
    if reward is None:
        return dataset
    name = next((name for name, known in REWARDS.items() if known is reward), task.name)
    return relabel(dataset, reward, _parameters_of(task, reward), name)


def with_rewards_for(task: Task, dataset: OfflineDataset, file: Path) -> OfflineDataset:
    """The dataset of `file` as the task pays it: a task that has a reward of its own has it in the rows of any file.

    A file that says itself how it was relabelled is believed, and refused where the task pays otherwise, since whoever
    relabelled it meant another task. Without a reward of the task's own the rewards are the file's. `from` in the provenance
    says which rewards the rows have, if not those that were logged. Raises UserError, in one line.
    """
    reward, note = task.recipe.reward, _note(dataset)
    if reward is None:
        if note is None:
            return dataset
        return _from(dataset, f"rewards relabelled with {relabelled_with(dataset)}, which the environment does not pay")
    if note is not None:
        _refuse_contradiction(task, reward, note, file)
    else:
        try:
            dataset = with_own_rewards(dataset, task)
        except UserError as error:
            raise UserError(f"{file}: {task.name} has a reward of its own: {error}") from error
    return _from(dataset, f"rewards of {relabelled_with(dataset)}")


def relabelled_with(dataset: OfflineDataset) -> str:
    """The reward and the parameters with which a dataset says that it was relabelled, in words; empty where it says nothing."""
    note = _note(dataset)
    if note is None:
        return ""
    settings = ", ".join(f"{key}={value}" for key, value in note["parameters"].items())
    return note["reward"] + (f" ({settings})" if settings else "")


def _note(dataset: OfflineDataset) -> Mapping[str, Any] | None:
    """What a dataset's file says of how it was relabelled; None where it says nothing that can be read."""
    note = dataset.provenance.get("relabelled")
    told = isinstance(note, Mapping) and isinstance(note.get("parameters"), Mapping) and isinstance(note.get("reward"), str)
    return note if told else None


def _from(dataset: OfflineDataset, words: str) -> OfflineDataset:
    return dataset.noting(**{"from": f"{dataset.provenance['from']}, {words}"})


def _refuse_contradiction(task: Task, reward: Reward, note: Mapping[str, Any], file: Path) -> None:
    """Raises UserError where a file was relabelled with another reward than the task's, or with other parameters."""
    wanted = _defaults(reward) | _parameters_of(task, reward)
    names = [name for name, known in REWARDS.items() if known is reward]
    function = getattr(reward, "__qualname__", "")
    if function.isidentifier():  # neither a lambda, nor a closure, nor a partial
        names.append(f"{reward.__module__}:{function}")
    again = "name the file that it was made from, which has the task's reward when it is read"
    if names:
        settings = "".join(f" --set {key}={value}" for key, value in wanted.items())
        again = f"relabel it with `mopo-bench data relabel {file} --reward {names[0]}{settings} --out NEW.hdf5`"
    if note["reward"] not in (task.name, *names):
        raise UserError(f"{file} was relabelled with {note['reward']}, which is not the reward of {task.name}: {again}")
    has = {key: note["parameters"].get(key, value) for key, value in wanted.items()}
    other = [key for key in wanted if has[key] != wanted[key]]
    if other:
        found, asked = (in_words(f"{key}={values[key]}" for key in other) for values in (has, wanted))
        changed = " ".join(f"--task-set {task.name}.{key}={has[key]}" for key in other)
        either = f"add {changed}, or " if set(other) <= set(task.parameters) else ""
        raise UserError(f"{file} was relabelled with {found}, and {task.name} has {asked}: {either}{again}")


def _parameters_of(task: Task, reward: Reward) -> dict[str, Any]:
    """The task's parameters that its reward has, too."""
    known = inspect.signature(reward).parameters
    return {key: value for key, value in task.parameters.items() if key in known}


def _defaults(reward: Reward) -> dict[str, Any]:
    parameters = list(inspect.signature(reward).parameters.values())[1:]
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


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
            raise unknown(f"parameter of {name}", parameter, known)
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
    used = _defaults(reward) | parameters
    note = {"reward": name, "parameters": used, "return_mean_before": dataset.describe()["return_mean"]}
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
    if "layout" in dataset.provenance:  # not D4RL's
        write_hdf5(relabelled, out)
    else:
        copy_with_rewards(file, out, relabelled.rewards, relabelled.provenance)
    return float(dataset.rewards.mean(dtype=np.float64)), float(relabelled.rewards.mean(dtype=np.float64))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
