"""The point tasks, point-angle and point-edge: a point's velocity is all there is, so that a seed takes seconds.

The state is the velocity v = (vx, vy), the action (ax, ay, trim), each in [-1, 1]:

    v' = v + 0.3 (2 (ax, ay) - v) + sigma(vy) noise
    r  = v' . (cos angle, sin angle) - 0.1 |(ax, ay)|^2 - (trim - 0.8 cos(1.5 vx))^2

and an episode ends when |vy'| > 1.4. The trim never enters the state, so bootstrapping cannot hide a reward that is shifted by
one step. The dataset is of a runner that learned to run along x; the task is to run at an angle.

point-angle is ant-angle in small: 30 degrees, sigma = 0.02, but 0.35 where vy < -0.25. That noise is far from the dataset, so
the sign of an uncertainty penalty shows.

point-edge asks for the penalty: 60 degrees, so that running sideways tempts, sigma = 0.02, and where vy > 0.6, which hardly a
row of the dataset shows, the point is stuck: v' = sigma noise, and the reward is 1 lower. A model extrapolates over that edge.
What warns of it is a reward that rattles before the edge, r + max(vy - 0.25, 0) noise_x with the noise of vx', which a model
learns and extrapolates, too. On average that noise costs nothing: only an uncertainty penalty minds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..common.streams import numpy_stream

HORIZON = 100
EPISODES = 100  # of a dataset
SIDEWAYS_LIMIT = 1.4
RESET_SCALE = 0.05
Velocities = np.ndarray  # (..., 2), float32 where they are observed


@dataclass(frozen=True)
class PointTask:
    """What sets one point task apart from the other.

    name: part of its dataset's random streams. angle: in degrees, of the direction that pays. noise_scale: sigma by vy.
    swerve, drift, drift_limit: how the dataset's runner strays sideways, see `dataset`.
    edge: where vy is above it the point is stuck. stuck_cost: what a step there costs. rattle: the reward's noise by vy.
    """

    name: str
    angle: float
    noise_scale: Callable[[np.ndarray], np.ndarray]
    swerve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    drift: float
    drift_limit: float = math.inf
    edge: float = math.inf
    stuck_cost: float = 0.0
    rattle: Callable[[np.ndarray], np.ndarray] = np.zeros_like

    def reset(self, generator: np.random.Generator, *episodes: int) -> np.ndarray:
        """First velocities (*episodes, 2) as float32: N(0, 0.05) in each component."""
        return generator.normal(0.0, RESET_SCALE, (*episodes, 2)).astype(np.float32)

    def step(self, velocity: np.ndarray, action: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step.

        Args:
            velocity: (..., 2).
            action: (..., 3), clipped to [-1, 1].
            noise: (..., 2) standard normal numbers.

        Returns:
            The next velocity (..., 2) as float32, the reward (...) as float64 and whether the episode ended (...).
            Reward and end are those of the rounded velocity, so that they follow from what is observed alone.
        """
        velocity = np.asarray(velocity, np.float64)
        action = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        moved = self.expected(velocity, action) + self.noise_scale(velocity[..., 1:]) * noise
        next_velocity = moved.astype(np.float32)
        reward = self.reward(velocity, action, next_velocity)
        return next_velocity, reward, ~(np.abs(next_velocity[..., 1]) <= SIDEWAYS_LIMIT)

    def reward(self, velocity: np.ndarray, action: np.ndarray, next_velocity: np.ndarray) -> np.ndarray:
        """The reward (...) of a transition, for actions within [-1, 1]: as float64, whatever it is computed from."""
        velocity, action, next_velocity = (np.asarray(each, np.float64) for each in (velocity, action, next_velocity))
        push, trim = action[..., :2], action[..., 2]
        angle = math.radians(self.angle)
        noise = (next_velocity - self.expected(velocity, action))[..., 0] / self.noise_scale(velocity[..., 1])
        return (
            next_velocity @ np.array((math.cos(angle), math.sin(angle)))
            - 0.1 * np.square(push).sum(-1)
            - np.square(trim - trim_target(velocity[..., 0]))
            - self.stuck_cost * self.stuck(velocity)
            + self.rattle(velocity[..., 1]) * noise
        )

    def expected(self, velocity: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The next velocity (..., 2) but for its noise."""
        moved = velocity + 0.3 * (2.0 * action[..., :2] - velocity)
        return np.where(self.stuck(velocity)[..., None], 0.0, moved)

    def stuck(self, velocity: np.ndarray) -> np.ndarray:
        """Whether (...) the point is beyond the edge at these velocities (..., 2)."""
        return velocity[..., 1] > self.edge

    def dataset(self, seed: int) -> dict[str, np.ndarray]:
        """Rolls out the dataset: 100 episodes of a runner whose skill p = i / 100 grows, as a replay buffer's does.

        ax = p + (1 - p) U, ay = k + swerve(p, U', the U' before) + N(0, 0.05) and trim = its target + N(0, 0.2), with U and U'
        uniform in [-1, 1] at every step and k ~ N(0, drift), cut to +-drift_limit, once per episode; actions are clipped to
        [-1, 1] before they are taken. All is drawn from the seed: another seed gives another dataset from its first row on.

        Returns:
            observations (n, 2), actions (n, 3), rewards (n), next_observations (n, 2) as float32, and terminals (n) and
            timeouts (n) as bool, the episodes one after another. Over the seeds 0 to 99, point-angle's n is 8 475 on average
            (7 870 to 9 145) and the best episode's return 167 (154 to 183); point-edge's n is always 10 000, and its best
            return 90 (84 to 99).
        """
        generator = numpy_stream(seed, self.name, "batch")  # a stream's name is part of the numbers
        skill = np.arange(EPISODES) / EPISODES
        drift = generator.normal(0.0, self.drift, EPISODES).clip(-self.drift_limit, self.drift_limit)
        velocity = self.reset(generator, EPISODES)
        steps, whim = [], np.zeros((EPISODES, 2))
        for _ in range(HORIZON):
            before, whim = whim, generator.uniform(-1.0, 1.0, (EPISODES, 2))
            forward = skill + (1.0 - skill) * whim[:, 0]
            sideways = drift + self.swerve(skill, whim[:, 1], before[:, 1]) + generator.normal(0.0, 0.05, EPISODES)
            trim = trim_target(velocity[:, 0]) + generator.normal(0.0, 0.2, EPISODES)
            action = np.stack([forward, sideways, trim], axis=-1).clip(-1.0, 1.0).astype(np.float32)
            next_velocity, reward, ended = self.step(velocity, action, generator.standard_normal((EPISODES, 2)))
            steps.append((velocity, action, reward.astype(np.float32), next_velocity, ended))
            velocity = next_velocity
        columns = (np.stack(column, axis=1) for column in zip(*steps, strict=True))
        observations, actions, rewards, next_observations, terminals = columns
        # Every point was moved for the whole horizon; what came after its end never happened.
        happened = np.cumsum(terminals, axis=1) - terminals == 0
        timeouts = np.zeros_like(terminals)
        timeouts[:, -1] = ~terminals[:, -1]
        dataset = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "next_observations": next_observations,
            "terminals": terminals,
            "timeouts": timeouts,
        }
        return {name: column[happened] for name, column in dataset.items()}


def trim_target(forward_velocity: np.ndarray) -> np.ndarray:
    """The best trim at the velocity vx, of any shape."""
    return 0.8 * np.cos(1.5 * forward_velocity)


POINT_ANGLE = PointTask(
    "point-angle",
    angle=30.0,
    noise_scale=lambda vy: np.where(vy < -0.25, 0.35, 0.02),
    swerve=lambda skill, now, before: (1.0 - skill) * now,
    drift=0.12,
)
POINT_EDGE = PointTask(
    "point-edge",
    angle=60.0,
    noise_scale=lambda vy: np.full_like(vy, 0.02),
    # Back and forth: strong pushes of every skill without much speed, or the model guesses that the noise depends on the push.
    swerve=lambda skill, now, before: 0.4 * (now - before),
    drift=0.04,
    drift_limit=0.1,
    edge=0.6,
    stuck_cost=1.0,
    rattle=lambda vy: np.maximum(vy - 0.25, 0.0),
)
POINT_TASKS = {task.name: task for task in (POINT_ANGLE, POINT_EDGE)}
