"""Transitions packed one a row, so that drawing a batch is one `index_select`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...tasks.data.dataset import Packing


class Batch(NamedTuple):
    """B transitions for each of S seeds, as `Learner.update` gets them.

    observations, next_observations: (S, B, obs). actions: (S, B, act), in [-1, 1]. rewards, alive: (S, B); `alive` is
    1 - terminal. real_rows: how many are of the dataset, where a model made the others; these stand first. None: all.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    alive: Tensor
    next_observations: Tensor
    real_rows: int | None = None


class Layout(Packing):
    """How a row is packed, for tensors."""

    def pack(self, observations: Tensor, actions: Tensor, rewards: Tensor, alive: Tensor, next_observations: Tensor) -> Tensor:
        """(..., obs), (..., act), (...), (...), (..., obs) to rows (..., width)."""
        rows = observations.new_empty(*rewards.shape, self.width)
        return self.fill(rows, observations, actions, rewards, alive, next_observations)

    def batch(self, rows: Tensor) -> Batch:
        """Views on rows (S, B, width), by `narrow` and `select`: a seventh of the time of indexing with slices."""
        observations, actions = self.observation_size, self.action_size
        return Batch(
            rows.narrow(-1, 0, observations),
            rows.narrow(-1, observations, actions),
            rows.select(-1, self.rewards),
            rows.select(-1, self.alive),
            rows.narrow(-1, self.alive + 1, observations),
        )


class Ring:
    """A ring of rows per seed, (S, capacity, width); seeds fill at their own pace, because rollouts end raggedly."""

    def __init__(self, seeds: int, capacity: int, width: int, dtype: torch.dtype, device: torch.device | str):
        self.rows = torch.zeros(seeds, capacity, width, dtype=dtype, device=device)
        self.capacity = capacity
        self.position = [0] * seeds  # where the next row goes
        self.size = [0] * seeds
        self._flat = self.rows.flatten(0, 1)
        self._sizes = torch.zeros(seeds, 1, dtype=torch.float64, device=device)
        self._starts = torch.arange(seeds, device=device)[:, None] * capacity

    def write(self, seed: int, rows: Tensor) -> None:
        """Appends rows (n, width) to one seed's ring, over the oldest; of more than `capacity` only the last stay."""
        written = len(rows)
        rows = rows[-self.capacity :]
        start = (self.position[seed] + written - len(rows)) % self.capacity
        first = min(len(rows), self.capacity - start)
        self.rows[seed, start : start + first] = rows[:first]
        self.rows[seed, : len(rows) - first] = rows[first:]
        self.position[seed] = (self.position[seed] + written) % self.capacity
        self.size[seed] = min(self.size[seed] + written, self.capacity)
        self._sizes[seed] = self.size[seed]

    def draw(self, uniform: Tensor) -> Tensor:
        """Rows (S, B, width) at `uniform` in [0, 1), (S, B): each seed from the part it has filled."""
        index = (uniform * self._sizes).long()
        if len(self.size) > 1:
            index += self._starts
        return self._flat.index_select(0, index.flatten()).view(*index.shape, self.rows.shape[-1])
