"""The real simulator as a function: what one step does from a given observation.

What learns never has it. It measures how wrong a model is, and is handed to a penalty that is the model's true error by design.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv
from gymnasium.envs.registration import EnvSpec

from ..common.errors import FOREIGN, UserError
from ..common.streams import numpy_stream
from .environments import HalfCheetahJump, quiet_model_loading
from .simulation import simulate
from .task import Task, TrueStep

Put = Callable[[np.ndarray], None]  # sets an environment's state to one in which it shows this observation
TRIED = 5  # steps of its own that an environment has to repeat
RUNNERS = (HalfCheetahEnv, HopperEnv, Walker2dEnv, AntEnv)  # observed: positions but for those of the way, then velocities


def true_step(task: Task, specification: EnvSpec | None = None) -> TrueStep:
    """One step of the task's environment from any observations, at actions in [-1, 1].

    Where an environment has a method `true_step(observations, actions)`, with actions in its own units, that is asked: the
    point tasks give the expected step, without noise. Else the state is set to each observation, one after another. Of what no
    observation holds, the way from the start is taken as 0, on which neither dynamics nor rewards depend; hopper and walker2d
    show velocities of at most 10, and faster ones start there.

    An environment's wrappers take part in the step. Raises UserError where the state cannot be set from an observation, or
    where steps from there lead elsewhere than the environment's own first steps.
    """
    environment, box = simulate(task, specification), task.problem.action_box
    if hasattr(environment, "true_step"):
        own: Any = environment
        return lambda observations, actions: own.true_step(observations, box.from_unit(actions))
    wrapped = environment is not environment.unwrapped
    put = _put(task, environment.unwrapped)
    whose = "its outermost wrapper" if wrapped else "the environment"
    refusal = UserError(
        f"{task.name}: the state of {task.environment} cannot be set from an observation, so its true step is not known; "
        f"give {whose} a method true_step(observations, actions)"
    )
    if put is None:
        raise refusal

    def step_each(observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        successors, rewards = np.empty(observations.shape), np.empty(len(observations))
        with quiet_model_loading():  # a state that no body can be in makes MuJoCo complain, and says enough by its error
            for row, (observation, action) in enumerate(zip(observations, box.from_unit(actions), strict=True)):
                if wrapped:
                    environment.reset(seed=0)  # what a wrapper counts or keeps begins anew
                put(observation)
                successors[row], rewards[row] = environment.step(action)[:2]
        return successors, rewards

    try:
        same = _repeats(environment, task, step_each)
    except FOREIGN:
        raise refusal from None
    if not same:
        raise refusal
    return step_each


def _repeats(environment: gymnasium.Env, task: Task, step_each: TrueStep) -> bool:
    """Whether the environment's own first steps come again one by one, in their order and in the other: nothing remembers."""
    size = task.problem.action_size
    actions = numpy_stream(0, "true step").uniform(-0.1, 0.1, (TRIED, size))  # gentle: faster than 10 is not shown
    shown, paid = [environment.reset(seed=0)[0]], list[float]()
    for action in task.problem.action_box.from_unit(actions):
        observation, reward, terminated, *_ = environment.step(action)
        shown.append(observation)
        paid.append(float(reward))
        if terminated:
            break
    before, own = np.stack(shown[:-1]), [np.stack(shown[1:]), np.array(paid)]
    again = [[each[::order] for each in step_each(before[::order], actions[: len(paid)][::order])] for order in (1, -1)]
    return all(np.allclose(*pair, atol=1e-5) for found in again for pair in zip(found, own, strict=True))


def place(environment: MujocoEnv, position: np.ndarray, velocity: np.ndarray) -> None:
    """Puts MuJoCo's simulator there, without the solver's memory of another state."""
    environment.data.qacc_warmstart[:] = 0
    environment.set_state(position, velocity)


def _put(task: Task, environment: gymnasium.Env) -> Put | None:
    """How an environment of Gymnasium's, or one of ours on it, is set to an observation; None for another."""
    if isinstance(environment, PendulumEnv):
        return lambda observation: setattr(
            environment, "state", np.array([np.arctan2(observation[1], observation[0]), observation[2]])
        )
    if not isinstance(environment, RUNNERS):
        return None
    if isinstance(environment, HalfCheetahJump) and environment.reward_needs_reset:
        raise UserError(
            f"{task.name}: its reward depends on the height at the reset, which no observation holds, so its true step is not "
            f"known; --task-set {task.name}.z_reference=nominal"
        )
    shown = environment.without_torso if isinstance(environment, HalfCheetahJump) else np.asarray
    positions, velocities = environment.model.nq, environment.model.nv
    hidden = positions + velocities - len(shown(np.zeros(task.problem.observation_size)))
    if hidden not in (0, 1, 2):
        return None

    def put(observation: np.ndarray) -> None:
        state = np.concatenate((np.zeros(hidden), shown(observation)))
        place(environment, state[:positions], state[positions:])

    return put
