"""The environments of the out-of-distribution tasks and of their small counterpart, registered with Gymnasium.

The two MuJoCo tasks build on Gymnasium's v4 classes, the nearest to the `*-v2` of the paper. At every step `info` holds
the quantities from which either reward is computed and both rewards, so that a dataset collected under one is relabelled
with the other. Velocities are finite differences of the torso's joint position over one environment step (0.05 s), not
of `xpos`, which MuJoCo leaves a substep behind: a torso height read there would be up to 0.03 m off.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle

from ..common.errors import UserError
from .points import HORIZON, POINT_ANGLE, POINT_EDGE, PointTask

RewardName = Literal["task", "behaviour"]


@contextmanager
def quiet_model_loading() -> Iterator[None]:
    """Drops MuJoCo's warnings about deprecated attributes of Gymnasium's models while one is loaded.

    MuJoCo 4 prints one for half_cheetah.xml and writes it to MUJOCO_LOG.TXT in the working directory.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


class HalfCheetahJump(HalfCheetahEnv):
    """halfcheetah-jump: run and jump, learned from a dataset of plain runs (MOPO, arXiv 2005.13239, Table 2).

        behaviour  min(v_x, 3) - 0.1 |a|^2
        task       min(v_x, 3) - 0.1 |a|^2 + height_weight (z - z_0)

    with v_x in m/s and z the height of the torso body in metres, 0.7 + qpos[1]. The paper prints max(v_x, 3); a
    co-author's code has min. Episodes never terminate; 1000 steps.

    The paper writes z_init for z_0, the height right after the episode's reset. That is drawn within 0.1 m, moves a return
    by up to 1500, and no observation holds it: returns of one policy have a standard deviation of 937 and a maximum of 2993,
    where against the model's own height they have 32 and 1730. The paper's best episode, 1808.6, fits the latter, and an
    independent public implementation computes the reward from the observation, as the latter is: so that is the default.

    Args:
        reward: which of the two rewards `step` returns.
        height_weight: 15 in the paper.
        observation: "torso": 18 numbers, qpos[1:] (8), z, qvel (9), as in a co-author's code; "plain": the usual 17.
        z_reference: z_0. "nominal": 0.7 m, the torso's height in the model; "reset": z_init, as the paper writes.
        kwargs: of Gymnasium's HalfCheetahEnv, such as `render_mode`.

    `info` holds x_velocity, z, z_init (the height after the reset, whatever `z_reference` is), reward_behaviour and
    reward_task.

    Raises:
        UserError: for an unknown `reward`, `observation` or `z_reference`.
    """

    def __init__(
        self,
        reward: RewardName = "task",
        height_weight: float = 15.0,
        observation: Literal["torso", "plain"] = "torso",
        z_reference: Literal["nominal", "reset"] = "nominal",
        **kwargs: Any,
    ):
        self._reward = _one_of("reward", reward, ("task", "behaviour"))
        self._height_weight = height_weight
        self._with_torso = _one_of("observation", observation, ("torso", "plain")) == "torso"
        self._z_reference = _one_of("z_reference", z_reference, ("nominal", "reset"))
        with quiet_model_loading():
            super().__init__(**kwargs)
        EzPickle.__init__(self, reward, height_weight, observation, z_reference, **kwargs)
        if self._with_torso:
            unbounded = np.full(self.model.nq + self.model.nv, np.inf)
            self.observation_space = Box(-unbounded, unbounded, dtype=np.float64)
        self._z_nominal = self._z_init = float(self.model.body("torso").pos[2] + self.init_qpos[1])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        z = self._torso_height()
        behaviour = min(info["x_velocity"], 3.0) - 0.1 * _squared_norm(action)
        reference = self._z_init if self._z_reference == "reset" else self._z_nominal
        rewards = {"behaviour": behaviour, "task": behaviour + self._height_weight * (z - reference)}
        info = {"x_velocity": info["x_velocity"], "z": z, "z_init": self._z_init, **_reward_info(rewards)}
        return observation, rewards[self._reward], terminated, truncated, info

    def reset_model(self) -> np.ndarray:
        observation = super().reset_model()
        self._z_init = self._torso_height()
        return observation

    def _get_obs(self) -> np.ndarray:
        observation = super()._get_obs()
        return np.insert(observation, -self.model.nv, self._torso_height()) if self._with_torso else observation

    @property
    def reward_needs_reset(self) -> bool:
        """Whether its reward depends on the height after the reset, which no observation holds."""
        return self._z_reference == "reset" and self._reward == "task"

    def without_torso(self, observation: np.ndarray) -> np.ndarray:
        """The usual 17 numbers of one of its observations."""
        return np.delete(observation, -self.model.nv - 1) if self._with_torso else np.asarray(observation)

    def _torso_height(self) -> float:
        return float(self.model.body("torso").pos[2] + self.data.qpos[1])


class AntAngle(AntEnv):
    """ant-angle: run at an angle to x, learned from a dataset of runs along x (MOPO, arXiv 2005.13239, Table 2).

        behaviour  v_x                               - 0.5 |a|^2 - contact + survive_bonus
        task       v_x cos(angle) + v_y sin(angle)   - 0.5 |a|^2 - contact + survive_bonus

    with velocities in m/s and contact = 0.5e-3 sum clip(cfrc_ext, -1, 1)^2. Under the paper's MuJoCo 2.0 that cost was
    0. Gymnasium 1.4 on MuJoCo 4.0 does compute cfrc_ext: the cost is 0.0014 per step on average under uniform random
    actions (never above 0.012 in 5000 steps) and 0.0059 at rest, some 1 to 10 of the return of an episode; with all 84
    entries at their clip it would be 42.

    Observation: 27 numbers, qpos[2:] (13, the torso's height first) and qvel (14). An episode ends when the state is
    not finite or the torso's height leaves `healthy_z_range`; otherwise after 1000 steps.

    Args:
        reward: which of the two rewards `step` returns.
        angle: degrees; 30 in the paper, 45 and 60 in its appendix E.
        survive_bonus: paid at every step, the last included. The paper is silent. The ant environment that the authors released
            beside their code has 1, heights of [0.2, 1.0] and a goal of 30 degrees, and so has a co-author's code; the table
            of environments in the released code names another one, with 0 and no heights.
        healthy_z_range: lowest and highest healthy torso height in metres; None: no height ends an episode.
        kwargs: of Gymnasium's AntEnv, such as `render_mode`.

    `info` holds x_velocity, y_velocity, contact_cost, reward_behaviour and reward_task.

    Raises:
        UserError: for an unknown `reward`.
    """

    def __init__(
        self,
        reward: RewardName = "task",
        angle: float = 30.0,
        survive_bonus: float = 1.0,
        healthy_z_range: tuple[float, float] | None = (0.2, 1.0),
        **kwargs: Any,
    ):
        self._reward = _one_of("reward", reward, ("task", "behaviour"))
        self._direction = (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
        self._survive_bonus = survive_bonus
        with quiet_model_loading():
            super().__init__(healthy_z_range=healthy_z_range or (-np.inf, np.inf), **kwargs)
        EzPickle.__init__(self, reward, angle, survive_bonus, healthy_z_range, **kwargs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        before = self.data.qpos[:2].copy()
        observation, _, terminated, truncated, _ = super().step(action)
        x_velocity, y_velocity = (float(v) for v in (self.data.qpos[:2] - before) / self.dt)
        contact = float(self.contact_cost)
        rest = self._survive_bonus - 0.5 * _squared_norm(action) - contact
        rewards = {
            "behaviour": x_velocity + rest,
            "task": x_velocity * self._direction[0] + y_velocity * self._direction[1] + rest,
        }
        info = {"x_velocity": x_velocity, "y_velocity": y_velocity, "contact_cost": contact, **_reward_info(rewards)}
        return observation, rewards[self._reward], bool(terminated), truncated, info


class PointEnvironment(gymnasium.Env):
    """A small task that needs no simulator; `points` states its dynamics. 100 steps.

    Observation: the velocity, 2 numbers of float32. Action: (ax, ay, trim) in [-1, 1]^3; what lies outside is clipped.
    Episodes start at v ~ N(0, 0.05) in each component.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form
    point: PointTask

    def __init__(self):
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (3,), np.float32)
        self._velocity = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._velocity = self.point.reset(self.np_random)
        return self._velocity.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        noise = self.np_random.standard_normal(2)
        self._velocity, reward, ended = self.point.step(self._velocity, action, noise)
        return self._velocity.copy(), float(reward), bool(ended), False, {}

    def true_step(self, observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A step without noise: next velocities (n, 2) and rewards (n) from velocities (n, 2) at actions (n, 3)."""
        successors, rewards, _ = self.point.step(observations, actions, np.zeros(np.shape(observations)))
        return successors, rewards


class PointAngle(PointEnvironment):
    """point-angle: run at 30 degrees, learned from runs along x."""

    point = POINT_ANGLE


class PointEdge(PointEnvironment):
    """point-edge: run at 60 degrees, short of the edge that the dataset hardly shows."""

    point = POINT_EDGE


def register() -> None:
    """Registers the environments with Gymnasium under mopo_bench/, unless they are registered already."""
    for environment, steps in ((HalfCheetahJump, 1000), (AntAngle, 1000), (PointAngle, HORIZON), (PointEdge, HORIZON)):
        name = f"mopo_bench/{environment.__name__}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, f"{__name__}:{environment.__name__}", max_episode_steps=steps)


def _squared_norm(action: np.ndarray) -> float:
    return float(np.square(np.asarray(action, np.float64)).sum())


def _reward_info(rewards: dict[str, float]) -> dict[str, float]:
    return {f"reward_{name}": reward for name, reward in rewards.items()}


def _one_of(parameter: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{parameter}={value!r} is none of {', '.join(choices)}{hint}")
    return value


register()


def make_environment(name: str, **parameters: Any) -> gymnasium.Env:
    """The environment registered with Gymnasium under `name`, without its wrappers: callers count steps themselves.

    Without wrappers a step takes about half the time. Datasets are logged in it; policies are evaluated in that of `simulate`,
    which keeps the wrappers that a stranger's environment may have: for our own both are the same. Gymnasium's warning that v4
    is out of date is dropped: of its versions, v4 is the nearest to the `*-v2` of the data.
    """
    register()
    with warnings.catch_warnings(), quiet_model_loading():
        warnings.filterwarnings("ignore", message=".*is out of date", category=DeprecationWarning)
        return gymnasium.make(name, disable_env_checker=True, **parameters).unwrapped


def recorded_step(
    environment: gymnasium.Env, action: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, float, bool, dict[str, np.ndarray]]:
    """Takes one step: returns the next observation, the reward, whether that is terminal, and what a dataset stores besides.

    The last is float32 under "infos/...": the simulator's positions and velocities before the step (qpos, qvel) where it is
    MuJoCo, as in D4RL's v2 files, and the entries `names` of the step's `info`.
    """
    stored = {}
    if isinstance(environment, MujocoEnv):
        stored = {"infos/qpos": environment.data.qpos.copy(), "infos/qvel": environment.data.qvel.copy()}
    successor, reward, terminated, _, info = environment.step(action)
    stored |= {f"infos/{name}": info[name] for name in names}
    return successor, float(reward), bool(terminated), {name: np.asarray(value, np.float32) for name, value in stored.items()}
