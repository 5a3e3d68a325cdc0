"""How much today's simulator differs from the one that logged a dataset, by repeating logged steps from their stored states."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from ...common.errors import UserError
from ...common.streams import numpy_stream
from ..environments import make_environment
from ..task import Task
from ..true_step import place
from .dataset import OfflineDataset


def replay_physics(dataset: OfflineDataset, task: Task, rows: int = 5_000, seed: int = 0) -> dict[str, Any]:
    """Puts the simulator into `rows` stored states (infos/qpos, infos/qvel), takes the stored actions, and compares.

    Rows are drawn without replacement from the valid ones. Returns numbers over them: `rows`; `observation_error_*`, of the
    largest absolute difference of a next observation's features from the stored one's, in the observation's own units;
    `reward_error_*`, of the absolute difference of rewards (left out for relabelled datasets); `terminals_differ`, the rows
    that are terminal in one and not in the other.

    Raises UserError where the dataset does not store the states, or the task's environment is not MuJoCo's.
    """
    logged = task.as_collected()
    environment = make_environment(logged.environment, **logged.parameters)
    if not isinstance(environment, MujocoEnv):
        raise UserError(f"{task.name} runs without MuJoCo: there are no physics to check")
    for name, size in (("infos/qpos", environment.model.nq), ("infos/qvel", environment.model.nv)):
        if name not in dataset.extras:
            raise UserError(f"the dataset of {task.name} stores no {name}: only v2 files of D4RL and collected datasets do")
        if dataset.extras[name].shape[1:] != (size,):
            raise UserError(f"{name} has shape {dataset.extras[name].shape[1:]} where {task.environment} has ({size},)")
    usable = np.flatnonzero(dataset.valid_next)
    chosen = np.sort(numpy_stream(seed, "physics").permutation(usable)[:rows])
    environment.reset(seed=seed)
    errors = np.array([_step_again(dataset, environment, row) for row in chosen])
    facts: dict[str, Any] = {"rows": len(chosen)}
    for name, values in (("observation", errors[:, 0]), ("reward", errors[:, 1])):
        if name == "reward" and task.recipe.collected_under:
            continue
        facts |= {
            f"{name}_error_median": float(np.median(values)),
            f"{name}_error_99": float(np.quantile(values, 0.99)),
            f"{name}_error_max": float(values.max()),
        }
    return {**facts, "terminals_differ": int(errors[:, 2].sum())}


def _step_again(dataset: OfflineDataset, environment: MujocoEnv, row: int) -> tuple[float, float, bool]:
    position, velocity = (dataset.extras[name][row].astype(np.float64) for name in ("infos/qpos", "infos/qvel"))
    place(environment, position, velocity)
    successor, reward, terminated, _, _ = environment.step(dataset.actions[row])
    difference = np.abs(successor - dataset.next_observations[row]).max()
    return float(difference), abs(float(reward) - float(dataset.rewards[row])), bool(terminated) != bool(dataset.terminals[row])
