"""Policies that come with the package, and how a batch is rolled out from one: the same numbers every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .dataset import OfflineDataset, read_hdf5
from .environments import make_environment
from .errors import UserError
from .streams import numpy_stream
from .task import Task

RECIPE_VERSION = 1  # raised by hand when the same policy would give another batch; a batch in the cache is then made anew
EPISODES_AT_ONCE = 10  # of one batch; part of what it is, since a product of 10 rows may round differently from one of 1


@dataclass(frozen=True)
class BehaviourPolicy:
    """A tanh-Gaussian policy in numpy: weights [W1, b1, W2, b2, ...], W (in, out), b (1, out), ReLU between layers.

    `about` says where it comes from: task, seed, environment steps, return, versions, command.
    """

    weights: list[np.ndarray]
    about: dict[str, Any]

    def __call__(self, observations: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions (n, act) in [-1, 1] for observations (n, obs): sampled with standard normal `noise`, else the mode."""
        hidden = observations.astype(np.float32)
        last = len(self.weights) - 2
        for layer in range(0, last + 1, 2):
            hidden = hidden @ self.weights[layer] + self.weights[layer + 1]
            if layer < last:
                hidden = np.maximum(hidden, 0)
        mean, log_std = np.split(hidden, 2, axis=-1)
        return np.tanh(mean if noise is None else mean + np.exp(np.clip(log_std, -20, 2)) * noise)

    def save(self, path: Path) -> None:
        arrays = {f"weight_{index}": weight for index, weight in enumerate(self.weights)}
        np.savez(path, about=json.dumps(self.about), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> BehaviourPolicy:
        with np.load(path, allow_pickle=False) as file:
            weights = [file[f"weight_{index}"] for index in range(len(file.files) - 1)]
            return cls(weights, json.loads(str(file["about"])))

    @classmethod
    def bundled(cls, name: str) -> BehaviourPolicy:
        with resources.as_file(resources.files(__package__) / "bundled" / f"{name}.npz") as path:
            return cls.load(path)

    @classmethod
    def random(cls, task: Task, seed: int, hidden: tuple[int, ...] = (256, 256)) -> BehaviourPolicy:
        """A randomly initialised policy, PyTorch's default initialisation: D4RL v0's *random*."""
        generator = numpy_stream(seed, task.environment, "random policy")
        sizes = (task.observation_size, *hidden, 2 * task.action_size)
        weights = []
        for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
            for shape in ((size_in, size_out), (1, size_out)):
                weights.append((generator.uniform(-1, 1, shape) / np.sqrt(size_in)).astype(np.float32))
        return cls(weights, {"policy": "randomly initialised", "seed": seed})


@threadpool_limits.wrap(limits=1)  # the same products on any number of cores
def roll_out(task: Task, policy: BehaviourPolicy, rows: int, seed: int) -> OfflineDataset:
    """A batch of `rows` steps of the stochastic policy in the task's environment, episodes one after another.

    Episode k draws its start and its noise from streams named by k, so that its content does not depend on the others.
    The last episode is cut where the rows end: its last row is neither terminal nor a timeout, as in D4RL's files.
    """
    if rows < 1:
        raise UserError(f"cannot roll out {rows} rows of {task.name}: ask for at least 1")
    box = task.action_box
    slots: list[_Episode] = []
    finished: dict[int, list[tuple]] = {}
    started = rows_ready = next_in_order = 0
    environments = [make_environment(task.environment, **task.parameters) for _ in range(EPISODES_AT_ONCE)]
    while rows_ready < rows:
        while environments:
            slots.append(_Episode(started, environments.pop(), task, seed))
            started += 1
        noise = np.stack([slot.noise[len(slot.steps)] for slot in slots])
        actions = policy(np.stack([slot.observation for slot in slots]), noise).astype(np.float32)
        for slot, action in zip(list(slots), actions, strict=True):
            if slot.step(action, box.from_unit(action), task.max_episode_steps):
                finished[slot.number] = slot.steps
                environments.append(slot.environment)
                slots.remove(slot)
        while next_in_order in finished:
            rows_ready += len(finished[next_in_order])
            next_in_order += 1
    steps = [step for number in range(next_in_order) for step in finished[number]][:rows]
    observations, actions, rewards, successors, terminals, timeouts = (np.array(column) for column in zip(*steps, strict=True))
    return OfflineDataset(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        next_observations=successors.astype(np.float32),
        terminals=terminals.astype(bool),
        timeouts=timeouts.astype(bool),
        valid_next=np.ones(len(steps), bool),
        provenance={"source": "regenerated", "task": task.name, "seed": seed, "policy": policy.about},
    )


class _Episode:
    def __init__(self, number: int, environment: Any, task: Task, seed: int):
        self.number, self.environment = number, environment
        generator = numpy_stream(seed, task.environment, "episode", number)
        self.noise = generator.standard_normal((task.max_episode_steps, task.action_size)).astype(np.float32)
        self.observation, _ = environment.reset(seed=int(generator.integers(2**31)))
        self.steps: list[tuple] = []

    def step(self, unit_action: np.ndarray, action: np.ndarray, max_episode_steps: int) -> bool:
        successor, reward, terminated, _, _ = self.environment.step(action)
        timeout = not terminated and len(self.steps) + 1 == max_episode_steps
        self.steps.append((self.observation, action, reward, successor, terminated, timeout))
        self.observation = successor
        return terminated or timeout


def from_actor(name: str) -> Callable[[Task, int, int], OfflineDataset]:
    """A recipe: roll out the bundled actor of that name."""
    return lambda task, rows, seed: roll_out(task, BehaviourPolicy.bundled(name), rows, seed)


def from_random_policy(task: Task, rows: int, seed: int) -> OfflineDataset:
    """A recipe: D4RL v0's *random*."""
    return roll_out(task, BehaviourPolicy.random(task, seed), rows, seed)


def from_bundled_batch(task: Task, rows: int, seed: int) -> OfflineDataset:
    """A recipe for a small batch that comes whole with the package; the seed has no part in it."""
    with resources.as_file(resources.files(__package__) / "bundled" / f"{task.name}.hdf5") as path:
        batch = read_hdf5(path, action_low=task.action_low, action_high=task.action_high)
    return batch.head(rows)
