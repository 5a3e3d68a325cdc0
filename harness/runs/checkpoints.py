"""Tensors on disk: checkpoints of runs and fitted stages, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...common.errors import UserError
from ...common.files import replace_file


def save_tensors(path: Path, value: dict[str, Any]) -> None:
    """Writes tensors and numbers for `load_tensors`. Raises WriteError where the system refuses."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # torch would not say why a file that it opens itself cannot be written
            torch.save(value, file)

    replace_file(path, write)


def load_tensors(path: Path, advice: str, device: str = "cpu") -> dict[str, Any]:
    """Reads what `save_tensors` wrote. Raises UserError, with `advice` on what to do, where it cannot be read."""
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); {advice}") from None


def save_checkpoint(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Keeps all that one seed needs to resume: step, states of learner and experience, and its record."""
    save_tensors(folder / "checkpoint.pt", checkpoint)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of one seed's folder; None where it has none. Raises UserError where it cannot be read."""
    path = folder / "checkpoint.pt"
    return load_tensors(path, "delete it to run this seed again") if path.exists() else None


def stage_path(results: Path, stage: str, identity: str, seed: int) -> Path:
    """Where one seed's fit of a stage stands, shared by every algorithm that asks for the same fit."""
    return results / "stages" / stage / identity / f"seed-{seed}.pt"
