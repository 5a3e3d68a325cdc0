"""Tensors on disk: checkpoints of runs and fitted stages, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...algorithms.learning.held import fingerprint
from ...common.errors import UserError
from ...common.files import replace_file
from .reading import Damaged, checked_record, is_count, put_aside, seed_of


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
    """Keeps all that one seed needs: step, states of learner and experience, and its record; with a digest of them."""
    save_tensors(folder / "checkpoint.pt", {**checkpoint, "digest": fingerprint(checkpoint).hex()})


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of one seed's folder; None where it has none. Raises UserError where it cannot be read."""
    path = folder / "checkpoint.pt"
    if not (path.exists() or path.is_symlink()):
        return None
    checkpoint = load_tensors(path, "delete it to run this seed again")
    if not isinstance(checkpoint, dict):
        raise Damaged(f"{path} holds no checkpoint; delete it to run this seed again")
    digest = checkpoint.pop("digest", None)  # older ones have none
    if digest is not None and digest != fingerprint(checkpoint).hex():
        raise Damaged(f"{path} is not as it was written: its digest differs; delete it to run this seed again")
    return checkpoint


def sound_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The checkpoint of one seed's folder, if it is that of this seed and agrees with itself; None where it has none.

    One that is damaged is renamed and kept, and what is then to be said of it is given besides. The caller holds the lock.
    """
    try:
        checkpoint = load_checkpoint(folder)
        if checkpoint is not None:
            _check(checkpoint, seed_of(folder.name))
    except UserError as error:
        why = str(error).partition("; ")[0].replace(f"{folder / 'checkpoint.pt'} ", "it ")
        kept = put_aside(folder / "checkpoint.pt").name
        return None, f"its checkpoint was damaged ({why}) and is kept as {kept}; the run began anew"
    return checkpoint, None


def _check(checkpoint: dict[str, Any], seed: int | None) -> None:
    """Raises Damaged where it is no checkpoint of this seed."""
    if seed is None or not is_count(checkpoint.get("step")):
        raise Damaged("it has no step")
    if not all(isinstance(checkpoint.get(name), dict) for name in ("learner", "experience", "record")):
        raise Damaged("it lacks the learner's state, the experience's or the record")
    if checked_record(checkpoint["record"], seed)["steps"] != checkpoint["step"]:
        raise Damaged(f"it is of step {checkpoint['step']:,}, and its record of step {checkpoint['record']['steps']:,}")


def stage_path(results: Path, stage: str, identity: str, seed: int) -> Path:
    """Where one seed's fit of a stage stands, shared by every algorithm that asks for the same fit."""
    return results / "stages" / stage / identity / f"seed-{seed}.pt"
