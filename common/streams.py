"""Randomness is derived, never saved: each stream of numbers has a name, and its generator is seeded by that name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the random stream `name` of run `seed`: the same on every machine, and independent between names."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def torch_stream(seed: int, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of torch for the stream `name` of run `seed`, on that device."""
    import torch  # takes seconds, and who lists tasks or reads records draws no number

    return torch.Generator(device).manual_seed(derived_seed(seed, *name))


def numpy_stream(seed: int, *name: str | int) -> np.random.Generator:
    """A generator of numpy for the stream `name` of run `seed`."""
    return np.random.default_rng(derived_seed(seed, *name))
