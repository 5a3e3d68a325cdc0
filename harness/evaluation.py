"""Rollouts in the real environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..tasks.environments import make_environment
from ..tasks.streams import derived_seed
from ..tasks.task import Task

Act = Callable[[np.ndarray], np.ndarray]


class Evaluator:
    """Runs episodes side by side, with one policy call a step for all of them; environments are kept between calls."""

    def __init__(self, task: Task):
        self.task = task
        self.environments: list = []

    def returns(self, act: Act, seeds: Sequence[Sequence[int]]) -> np.ndarray:
        """Undiscounted returns (S, n) of `act`, observations (S, n, obs) to unit actions (S, n, act).

        `seeds` (S, n) are the resets'. An episode that has ended keeps its last observation until all have ended.
        """
        task, groups, episodes = self.task, len(seeds), len(seeds[0])
        while len(self.environments) < groups * episodes:
            self.environments.append(make_environment(task.environment, **task.parameters))
        flat = [int(seed) for row in seeds for seed in row]
        environments = self.environments[: len(flat)]
        first = [environment.reset(seed=seed)[0] for environment, seed in zip(environments, flat, strict=True)]
        observations = np.stack(first).astype(np.float32)
        returns, running = np.zeros(len(flat)), list(range(len(flat)))
        box = task.action_box
        for _ in range(task.max_episode_steps):
            actions = act(observations.reshape(groups, episodes, -1)).reshape(len(flat), -1)
            actions = box.from_unit(actions)
            for index in list(running):
                observation, reward, terminated, _, _ = environments[index].step(actions[index])
                observations[index] = observation
                returns[index] += reward
                if terminated:
                    running.remove(index)
            if not running:
                break
        return returns.reshape(groups, episodes)


def reset_seeds(seed: int, step: int, episodes: int) -> list[int]:
    """Reset seeds of an evaluation: by training seed and step, so that every algorithm meets the same starts."""
    return [derived_seed(seed, "evaluation", step, episode) % 2**31 for episode in range(episodes)]
