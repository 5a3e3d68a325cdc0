"""Transitions packed one a row, so that drawing a batch is one `index_select` and the critics' input needs no copy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..tasks.dataset import Packing


class Batch(NamedTuple):
    """B transitions per seed. `observation_actions` is s and a side by side, the critics' input; `alive` is 1 - terminal."""

    observations: Tensor  # (S, B, obs)
    actions: Tensor  # (S, B, act)
    observation_actions: Tensor  # (S, B, obs + act)
    rewards: Tensor  # (S, B)
    alive: Tensor  # (S, B)
    next_observations: Tensor  # (S, B, obs)


class Layout(Packing):
    """How a row is packed, for tensors."""

    def pack(self, observations: Tensor, actions: Tensor, rewards: Tensor, alive: Tensor, next_observations: Tensor) -> Tensor:
        """(..., obs), (..., act), (...), (...), (..., obs) to rows (..., width)."""
        rows = observations.new_empty(*rewards.shape, self.width)
        return self.fill(rows, observations, actions, rewards, alive, next_observations)

    def batch(self, rows: Tensor) -> Batch:
        """Views on rows (S, B, width)."""
        return Batch(
            rows[..., self.observations],
            rows[..., self.actions],
            rows[..., self.observation_actions],
            rows[..., self.rewards],
            rows[..., self.alive],
            rows[..., self.next_observations],
        )


class Ring:
    """A ring of rows per seed, (S, capacity, width); seeds fill at their own pace, because rollouts end raggedly."""

    def __init__(self, seeds: int, capacity: int, width: int, dtype: torch.dtype, device: torch.device | str):
        self.rows = torch.zeros(seeds, capacity, width, dtype=dtype, device=device)
        self.capacity = capacity
        self.position = [0] * seeds  # where the next row goes
        self.size = [0] * seeds

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

    def draw(self, uniform: Tensor) -> Tensor:
        """Rows (S, B, width) at `uniform` in [0, 1), (S, B): each seed from the part it has filled."""
        sizes = torch.tensor(self.size, dtype=uniform.dtype, device=uniform.device)
        index = (uniform * sizes[:, None]).long()
        offset = torch.arange(len(self.size), device=index.device)[:, None] * self.capacity
        return self.rows.flatten(0, 1).index_select(0, (index + offset).flatten()).view(*index.shape, -1)
