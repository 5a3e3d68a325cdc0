"""An experience: where a learner's batches come from, by default the dataset itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...common.errors import UserError
from ...tasks.data.dataset import OfflineDataset
from ...tasks.task import OfflineProblem, TrueStep
from .held import Held
from .learner import Learner
from .replay import Batch, Layout
from .stage import Stage


class Experience:
    """Where a learner's batches come from; by default the dataset itself.

    `table` is the dataset, a transition a row, and `usable` says which rows may be drawn, see `pack_dataset`; `draw_real` draws
    from them.
    """

    @dataclass(frozen=True)
    class Config:
        pass

    version: ClassVar[int] = 1
    worse: ClassVar[Mapping[str, str]] = MappingProxyType({})  # as a learner's, of `vitals`
    stages: ClassVar[Mapping[str, type[Stage]]] = MappingProxyType({})

    def __init__(
        self,
        problem: OfflineProblem,
        config: Any,
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        stages: Mapping[str, Any] | None = None,
        true_step: TrueStep | None = None,
    ):
        if self.needs_simulator(config) and true_step is None:
            raise UserError(f"{type(self).__name__} needs the real simulator for what it is asked: give it a true_step")
        self.true_step = true_step if self.needs_simulator(config) else None
        self.problem, self.config, self.seeds = problem, config, list(seeds)
        self.dtype, self.device = dtype, torch.device(device)
        self.layout = Layout(problem.observation_size, problem.action_size)
        self.fitted = dict(stages or {})
        self.table, self.usable = pack_dataset(problem.dataset, dtype, device)
        self.build()
        self._held = Held(self, self.derived, in_place=frozenset({"table", "usable"}), networks=True)

    # attributes that are made again and not saved
    derived: ClassVar[frozenset[str]] = frozenset(
        {"problem", "config", "seeds", "dtype", "device", "fitted", "layout", "vitals", "_held", "true_step"}
    )
    vitals: Mapping[str, Tensor] = MappingProxyType({})  # (S, ...) each, stored with every evaluation

    def build(self) -> None:
        """For subclasses: whatever else they keep."""

    @classmethod
    def needs_simulator(cls, config: Any) -> bool:
        """Whether it asks what the real simulator does, and so is no offline algorithm: `true_step` is then given, else None.

        Tables say so of its numbers, and a task whose state cannot be set from an observation is refused.
        """
        return False

    def refresh(self, step: int, learner: Learner) -> None:
        """Called before step `step` (from 0), outside anything compiled: the place for model rollouts."""

    def draw(self, uniform: Tensor) -> Batch:
        """B transitions per seed at `uniform` in [0, 1), (S, B), from tensors that keep their place: see `update`."""
        return self.layout.batch(self.draw_real(uniform))

    def draw_real(self, uniform: Tensor) -> Tensor:
        count = len(self.table if self.usable is None else self.usable)
        index = (uniform * count).long().flatten()
        if self.usable is not None:
            index = self.usable.index_select(0, index)
        return self.table.index_select(0, index).view(*uniform.shape, self.table.shape[-1])

    def warnings(self) -> list[str | None]:
        """By seed, what makes the rewards that it gives doubtful, for the reader of a run; asked once it is built."""
        return [None] * len(self.seeds)

    def state(self, index: int) -> dict[str, Any]:
        """What a checkpoint must hold of seed number `index`: what has changed since `build`, see `held.py`."""
        held = self._held.state(index)
        return {"held": held} if held else {}

    def load_states(self, states: Sequence[Mapping[str, Any]], learner: Learner) -> None:
        """Takes one state per seed, in order. `learner` is loaded already and may be used to replay rollouts."""
        self._held.load_states([state.get("held", {}) for state in states])

    # For estimates of time. A refresh in small is measured, and multiplied.
    assumes: ClassVar[str] = ""  # what that takes for granted, as in "no rollout ended early"

    @classmethod
    def refresh_every(cls, config: Any) -> int | None:
        """Steps from one refresh to the next; None: there are none, or every step has one and its time is that of the step."""
        return None

    @classmethod
    def short_refresh(cls, config: Any, device: str) -> tuple[Any, float]:
        """A config whose refresh is a small one, at step 0 alone; and how many times longer a real refresh takes."""
        return config, 1.0


def pack_dataset(dataset: OfflineDataset, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """All rows packed, (N, width), and the indices of those that critics may use, or None where that is all of them.

    A critic may use rows whose next observation is valid, and terminal ones, where it does not count. float32 on the CPU is
    the dataset's own memory, or the file it is mapped from: writing to it is an error, and may end the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        table = torch.from_numpy(dataset.table()).to(device, dtype)
    usable = dataset.critic_rows
    return table, None if usable.all() else torch.from_numpy(np.flatnonzero(usable)).to(device)
