"""Tensors on disk: checkpoints of runs and fitted stages, whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ...algorithms.learning.held import fingerprint
from ...common.errors import UserError
from ...common.files import replace_file
from .reading import Damaged, archive_damage, checked_record, is_count, printable, put_aside, seed_of


def save_tensors(path: Path, value: dict[str, Any], before: Path | None = None) -> None:
    """Writes tensors and numbers for `load_tensors`; what was there goes to `before`. Raises WriteError."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # torch would not say why a file that it opens itself cannot be written
            torch.save(value, file)

    replace_file(path, write, before)


def load_tensors(path: Path, advice: str, device: str = "cpu") -> dict[str, Any]:
    """Reads what `save_tensors` wrote. Raises UserError, with `advice` on what to do, where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a damaged file torch says more than one line
            return torch.load(path, weights_only=True, map_location=device)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); {advice}") from None


NEWEST, BEFORE, STOPPED = "checkpoint.pt", "checkpoint.before.pt", "stopped.pt"


def save_checkpoint(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Keeps all that one seed needs: step, states of learner and experience, and its record; with a digest of them.

    The one before it stays, should the newest be damaged; what was kept where the run was stopped is of no more use.
    """
    save_tensors(folder / NEWEST, _sealed(checkpoint), folder / BEFORE)
    (folder / STOPPED).unlink(missing_ok=True)


def save_stopped(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Keeps where a run was told to stop between two evaluations: a checkpoint with the sums of its metrics."""
    save_tensors(folder / STOPPED, _sealed(checkpoint))


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "digest": fingerprint(value).hex()}


def _opened(value: Any, what: str) -> dict[str, Any]:
    """What was sealed, without its digest. Raises Damaged where it is not as it was."""
    if not isinstance(value, dict):
        raise Damaged(f"it holds no {what}")
    digest = value.pop("digest", None)  # older ones have none
    if digest is not None and digest != fingerprint(value).hex():
        raise Damaged("it is not as it was written: its digest differs")
    return value


def load_checkpoint(folder: Path, name: str = NEWEST) -> dict[str, Any] | None:
    """A checkpoint of one seed's folder; None where it has none. Raises UserError where it is not to be believed."""
    path = folder / name
    if not (path.exists() or path.is_symlink()):
        return None
    advice = "delete it to run this seed again"
    checkpoint = load_tensors(path, advice)
    try:
        checkpoint = _opened(checkpoint, "checkpoint")
        _check(checkpoint, folder)
    except Damaged as why:
        raise Damaged(f"{path}: {why}; {advice}") from None
    return checkpoint


def sound_checkpoint(folder: Path, due: Callable[[int], int]) -> tuple[dict[str, Any] | None, str | None]:
    """From where one seed goes on: where it was stopped, else its newest checkpoint, else the one before; None: from the start.

    One that is damaged is renamed and kept, and what is then to be said of it is given besides. The caller holds the lock.
    due: the step of the evaluation that follows one at a step; a run that was stopped beyond that goes on from its checkpoint.
    """
    kept: list[str] = []
    found: dict[str, Any] | None = None
    for name in (NEWEST, BEFORE):
        if (found := _sound(folder, name, kept)) is not None:
            break
    stopped = _sound(folder, STOPPED, kept)
    reached = found["step"] if found else 0
    if stopped is not None and stopped["record"]["steps"] == reached and stopped["step"] <= due(reached):
        return stopped, _said(kept, stopped["step"])
    return found, _said(kept, reached)


def step_reached(folder: Path) -> int:
    """The last step that was kept of one seed, at an evaluation or since; damaged checkpoints do not count, and stay."""
    steps = [0]
    for name in (NEWEST, STOPPED):
        with suppress(UserError):
            steps += [checkpoint["step"] for checkpoint in [load_checkpoint(folder, name)] if checkpoint]
    return max(steps)


def _said(kept: list[str], step: int) -> str | None:
    return f"{'; '.join(kept)}; the run {f'went on from step {step:,}' if step else 'began anew'}" if kept else None


def _sound(folder: Path, name: str, kept: list[str]) -> dict[str, Any] | None:
    """The checkpoint of that name; a damaged one is put aside, and `kept` told of it."""
    try:
        return load_checkpoint(folder, name)
    except UserError as error:
        kept.append(f"its checkpoint was damaged ({_why(error, folder / name)}) and is kept as {put_aside(folder / name).name}")
        return None


def _why(error: UserError, path: Path) -> str:
    """What is wrong with a file, without its path and what to do."""
    return str(error).rpartition("; ")[0].replace(f"{path}", "it").replace("it: it ", "it ")


def _check(checkpoint: dict[str, Any], folder: Path) -> None:
    """Raises Damaged where it is no checkpoint of this folder's run, or does not agree with itself."""
    seed, key = seed_of(folder.name), list(folder.absolute().parts[-4:-1])
    if checkpoint.get("run", key) != key:  # older ones do not say it
        raise Damaged(f"it is that of another run, {printable('/'.join(map(str, checkpoint['run'])), 80)}")
    if seed is None or not is_count(checkpoint.get("step")):
        raise Damaged("it has no step")
    if not all(isinstance(checkpoint.get(name), dict) for name in ("learner", "experience", "record")):
        raise Damaged("it lacks the learner's state, the experience's or the record")
    record, step = checked_record(checkpoint["record"], seed), checkpoint["step"]
    if record["steps"] > step or ("sums" not in checkpoint and record["steps"] < step):
        raise Damaged(f"it is of step {step:,}, and its record of step {record['steps']:,}")
    last = record["evaluations"][-1]["step"] if record["evaluations"] else 0
    if last != record["steps"] and record["state"] != "diverged":
        raise Damaged(f"it is of step {step:,}, and the last evaluation in it of step {last:,}")


def stage_path(results: Path, stage: str, identity: str, seed: int) -> Path:
    """Where one seed's fit of a stage stands, shared by every algorithm that asks for the same fit."""
    return results / "stages" / stage / identity / f"seed-{seed}.pt"


def part_path(path: Path) -> Path:
    """Where a fit that will stand at `path` is kept while it is at work."""
    return path.with_suffix(".part.pt")


ANEW = "run its grid again, which puts it aside and fits it anew"


def save_fit(path: Path, state: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Keeps a fitted stage, or what there is of one, with whose it is and a digest. Raises WriteError."""
    save_tensors(path, _sealed({"state": state, "record": record, "of": _whose(path)}))


def load_fit(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save_fit` kept, `state` and `record`. Raises UserError where it cannot be read, or is not to be believed."""
    if not (path.exists() or path.is_symlink()):
        raise UserError(f"there is no {path}: it was not copied, or deleted; `mopo-bench run --rerun` makes it anew")
    try:
        if (why := archive_damage(path)) is not None:  # as `status` sees it
            raise Damaged(why)
        fit = _opened(load_tensors(path, ANEW, device), "fit")
        if path.name.endswith(".part.pt") and "of" not in fit:
            fit = {"state": fit, "record": {}}  # an older one
        if fit.pop("of", _whose(path)) != _whose(path):
            raise Damaged("it is that of another fit")
        if "state" not in fit or not isinstance(fit.get("record"), dict):
            raise Damaged("it lacks the fit's state, or its record")
    except Damaged as error:
        raise Damaged(f"{path}: {error}; {ANEW}") from None
    return fit


def _whose(path: Path) -> list[str]:
    """Stage, identity and seed of a fit, or of what there is of one."""
    return [*path.parts[-3:-1], path.name.removesuffix(".pt")]


def fit_damage(path: Path) -> str | None:
    """Why a fit, or what there is of one, is not to be believed; None where it is, or is not there."""
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        load_fit(path)
    except UserError as error:
        return _why(error, path)
    return None
