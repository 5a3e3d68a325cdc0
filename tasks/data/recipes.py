"""How the bundled tasks' datasets are regenerated: `(task, rows, seed)` to a dataset, from what comes with the package.

A recipe is described here and carried out elsewhere: simulators and readers are imported when a dataset is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from ...common.errors import UserError
from ..points import POINT_TASKS
from ..task import Task
from . import BUNDLED
from .dataset import OfflineDataset, joined

RECIPE_VERSION = 4  # raised by hand when the same recipe gives another dataset, which the cache then regenerates


@dataclass(frozen=True)
class FromPolicies:
    """Rolls out bundled policies as the task's dataset was logged, and gives the rows the task's own reward.

    parts: name and share of the rows of each policy; their episodes follow one after another.
    """

    parts: tuple[tuple[str, float], ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the bundled files."""
        return tuple(f"{name}.npz" for name, _ in self.parts)

    def __call__(self, task: Task, rows: int, seed: int) -> OfflineDataset:
        from .behaviour_policies import bundled_policy, roll_out
        from .relabelling import with_own_rewards

        policies = [(bundled_policy(name), share) for name, share in self.parts]
        return with_own_rewards(roll_out(task.as_collected(), policies, rows, seed), task)


@dataclass(frozen=True)
class FromReplayBuffer:
    """A replay buffer that comes with the package, with the task's own reward: all of it, or whole episodes spread over it.

    names: of the training runs whose buffers there are; the dataset's seed chooses among them. Raises UserError for a seed for
        which there is none.
    """

    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the bundled files."""
        return tuple(f"{name}.hdf5" for name in self.names)

    def __call__(self, task: Task, rows: int, seed: int) -> OfflineDataset:
        from .compact import read_compact, thinned
        from .relabelling import with_own_rewards

        if seed >= len(self.files):
            found = "one replay buffer" if len(self.files) == 1 else f"{len(self.files)} replay buffers"
            raise UserError(f"{task.name}: the package has {found} of it: choose --data-seed below {len(self.files)}")
        box = task.problem.action_box
        with resources.as_file(BUNDLED / self.files[seed]) as path:
            dataset = read_compact(path, action_low=box.low, action_high=box.high)
        return thinned(with_own_rewards(dataset, task), rows)


@dataclass(frozen=True)
class OneAfterAnother:
    """Several recipes, each for its share of the rows; an episode ends where one dataset does."""

    parts: tuple[tuple[FromPolicies | FromReplayBuffer, int], ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the bundled files."""
        return tuple(name for recipe, _ in self.parts for name in recipe.files)

    def __call__(self, task: Task, rows: int, seed: int) -> OfflineDataset:
        whole = sum(share for _, share in self.parts)
        return joined([recipe(task, round(rows * share / whole), seed) for recipe, share in self.parts])


def from_random_policy(task: Task, rows: int, seed: int) -> OfflineDataset:
    """Rolls out a randomly initialised policy: D4RL v0's *random*."""
    from .behaviour_policies import BehaviourPolicy, roll_out

    return roll_out(task, BehaviourPolicy.random(task, seed), rows, seed)


@dataclass(frozen=True)
class FromScriptedRunner:
    """The 100 episodes of the scripted runner of one of `POINT_TASKS`, cut at `rows` where they are longer."""

    name: str

    def __call__(self, task: Task, rows: int, seed: int) -> OfflineDataset:
        arrays = POINT_TASKS[self.name].dataset(seed)
        valid = np.ones(len(arrays["rewards"]), bool)
        provenance = {"source": "regenerated", "task": task.name, "seed": seed, "policy": {"policy": "scripted runner"}}
        return OfflineDataset(**arrays, valid_next=valid, extras={}, provenance=provenance).head(rows)
