"""The policies that come with the package, and datasets rolled out from them, with the same numbers every time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ...common.errors import UserError
from ...common.files import replace_file
from ...common.notices import LOG
from ...common.streams import numpy_stream
from ..environments import make_environment, recorded_step
from ..task import Task
from . import BUNDLED
from .dataset import OfflineDataset

LONG = 100_000  # rows that take a minute or more
EPISODES_AT_ONCE = 10
ACTION_STEPS = 2**16  # between actions 0 and 1: so coarse that how a processor rounds a product does not show


@dataclass(frozen=True)
class BehaviourPolicy:
    """A tanh-Gaussian policy in numpy: weights [W1, b1, W2, b2, ...], W (in, out), b (1, out), ReLU between layers.

    `about` says where it comes from: task, seed, environment steps, return, versions, command.
    """

    weights: list[np.ndarray]
    about: dict[str, Any]

    def __call__(self, observations: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions (n, act) in [-1, 1] for observations (n, obs): sampled with standard normal `noise`, else the mode.

        They are multiples of 2^-16, float64, whatever the order in which a processor sums a product.
        """
        hidden = observations.astype(np.float64)
        last = len(self.weights) - 2
        for layer in range(0, last + 1, 2):
            hidden = hidden @ self.weights[layer] + self.weights[layer + 1]
            if layer < last:
                hidden = np.maximum(hidden, 0)
        mean, log_std = np.split(hidden, 2, axis=-1)
        actions = np.tanh(mean if noise is None else mean + np.exp(np.clip(log_std, -20, 2)) * noise)
        return np.round(actions * ACTION_STEPS) / ACTION_STEPS

    def save(self, path: Path) -> None:
        """Writes the policy to a file, which appears whole or not at all: a resumed collection relies on the files it finds."""
        arrays = {f"weight_{index}": weight for index, weight in enumerate(self.weights)}

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, about=json.dumps(self.about), **arrays)  # type: ignore[arg-type]

        replace_file(path, write)

    @classmethod
    def load(cls, path: Path) -> BehaviourPolicy:
        """The policy that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            weights = [file[f"weight_{index}"] for index in range(len(file.files) - 1)]
            return cls(weights, json.loads(str(file["about"])))

    @classmethod
    def random(cls, task: Task, seed: int, hidden: tuple[int, ...] = (256, 256)) -> BehaviourPolicy:
        """A policy with PyTorch's default initialisation and no training, as D4RL v0's *random*."""
        generator = numpy_stream(seed, task.environment, "random policy")
        sizes = (task.problem.observation_size, *hidden, 2 * task.problem.action_size)
        weights = []
        for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
            for shape in ((size_in, size_out), (1, size_out)):
                weights.append((generator.uniform(-1, 1, shape) / np.sqrt(size_in)).astype(np.float32))
        return cls(weights, {"policy": "randomly initialised", "seed": seed})


def bundled_policy(name: str) -> BehaviourPolicy:
    """The policy of that name that comes with the package."""
    with resources.as_file(BUNDLED / f"{name}.npz") as path:
        return BehaviourPolicy.load(path)


@threadpool_limits.wrap(limits=1)
def roll_out(
    task: Task, policies: BehaviourPolicy | Sequence[tuple[BehaviourPolicy, float]], rows: int, seed: int
) -> OfflineDataset:
    """Rolls out a dataset of `rows` steps of the stochastic policy in the task's environment, episodes one after another.

    Of several policies, each with its share of the rows, whole episodes of one follow whole episodes of the other; one whose
    share others ran over has fewer rows, or none: `provenance` says how many. Episode k draws its start and its noise from
    streams named by k, so that its content does not depend on the others. The last episode is cut where the rows end: its last
    row is neither terminal nor a timeout, as in D4RL's files. Besides, the dataset stores what `recorded_step` gives.

    Linux machines whose x86 processor has AVX2 and FMA give the same numbers, since the policies' actions are rounded:
    unrounded, in single precision, a product's last bit decided how an episode went on.
    """
    if rows < 1:
        raise UserError(f"cannot roll out {rows} rows of {task.name}: ask for at least 1")
    if rows >= LONG:
        LOG.info("%s: rolling out %s rows in the simulator, which takes minutes", task.name, f"{rows:,}")
    parts = [(policies, 1.0)] if isinstance(policies, BehaviourPolicy) else list(policies)
    ends = rows * np.cumsum([share for _, share in parts]) / sum(share for _, share in parts)
    finished: list[_Columns] = []
    made = [0]  # rows before each policy, and after the last
    for (policy, _), end in zip(parts, ends, strict=True):
        finished += (episodes := _episodes(task, policy, round(end) - made[-1], seed, len(finished)))
        made.append(made[-1] + sum(len(episode["rewards"]) for episode in episodes))
    kept = np.diff(np.minimum(made, rows)).tolist()
    columns = {name: np.concatenate([episode[name] for episode in finished])[:rows] for name in finished[0]}
    return OfflineDataset(
        **{name: columns.pop(name) for name in _Episode.columns},
        valid_next=np.ones(rows, bool),
        extras=columns,
        provenance={"source": "regenerated", "task": task.name, "seed": seed, **_origin([policy for policy, _ in parts], kept)},
    )


def _origin(policies: Sequence[BehaviourPolicy], rows: Sequence[int]) -> dict[str, Any]:
    """Which policies made a dataset, and of several how many of its rows each."""
    if len(policies) == 1:
        return {"policy": policies[0].about}
    abouts = [{key: value for key, value in each.about.items() if key != "machine"} for each in policies]
    return {"policies": [about | {"rows": count} for about, count in zip(abouts, rows, strict=True)]}


_Columns = dict[str, np.ndarray]  # of an episode, a row per step


def _episodes(task: Task, policy: BehaviourPolicy, rows: int, seed: int, first: int) -> list[_Columns]:
    """Whole episodes, numbered from `first`, of at least `rows` rows in all; none where `rows` is below 1."""
    box = task.problem.action_box
    slots: list[_Episode] = []
    finished: dict[int, _Columns] = {}
    rows_ready, started, next_in_order = 0, first, first
    environments = [make_environment(task.environment, **task.parameters) for _ in range(EPISODES_AT_ONCE if rows > 0 else 0)]
    while rows_ready < rows:
        while environments:
            slots.append(_Episode(started, environments.pop(), task, seed))
            started += 1
        noise = np.stack([slot.noise[len(slot.steps)] for slot in slots])
        actions = policy(np.stack([slot.observation for slot in slots]), noise).astype(np.float32)
        for slot, action in zip(list(slots), actions, strict=True):
            if slot.step(box.from_unit(action)):
                finished[slot.number] = {name: np.array([step[name] for step in slot.steps]) for name in slot.steps[0]}
                environments.append(slot.environment)
                slots.remove(slot)
        while next_in_order in finished and rows_ready < rows:
            rows_ready += len(finished[next_in_order]["rewards"])
            next_in_order += 1
    return [finished[number] for number in range(first, next_in_order)]


class _Episode:
    columns = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")

    def __init__(self, number: int, environment: Any, task: Task, seed: int):
        self.number, self.environment, self.task = number, environment, task
        generator = numpy_stream(seed, task.environment, "episode", number)
        self.noise = generator.standard_normal((task.problem.max_episode_steps, task.problem.action_size)).astype(np.float32)
        self.observation, _ = environment.reset(seed=int(generator.integers(2**31)))
        self.steps: list[dict[str, Any]] = []

    def step(self, action: np.ndarray) -> bool:
        task = self.task
        successor, reward, terminated, stored = recorded_step(self.environment, action, task.recipe.recorded)
        timeout = not terminated and len(self.steps) + 1 == task.problem.max_episode_steps
        row = (np.float32(self.observation), action, np.float32(reward), np.float32(successor), terminated, timeout)
        self.steps.append({**dict(zip(self.columns, row, strict=True)), **stored})
        self.observation = successor
        return terminated or timeout
