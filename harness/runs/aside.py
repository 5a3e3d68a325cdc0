"""Records and fits set aside, to be run anew: moved, never deleted, into a folder that is one of run records itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import filelock

from ...common.errors import UserError, WriteError
from .checkpoints import stage_path
from .plan import Plan

FOLDER = "set-aside"  # in the folder of results


def found_of(plan: Plan) -> list[Path]:
    """What there is of a plan's runs and of the fits that they stand on: folders and files, runs first."""
    runs = [cell.seed_folder(seed) for cell, seed in plan.seeds()]
    fits = [
        stage_path(plan.results, stage, cell.stage_identity(stage), seed)
        for cell, seed in plan.seeds()
        for stage in cell.algorithm.stages
    ]
    parts = [path.with_suffix(".part.pt") for path in fits]
    return [path for path in dict.fromkeys([*runs, *fits, *parts]) if path.exists()]


def described(plan: Plan, found: Sequence[Path]) -> str:
    """What `found_of` gave, in words: "2 runs and 1 fit (point-angle/mopo/a1b2c3/seed-0, ...)"."""
    runs, fits = sum(path.is_dir() for path in found), sum(not path.is_dir() for path in found)
    counts = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in ((runs, "run"), (fits, "fit")) if count]
    names = ", ".join(str(path.relative_to(plan.results).with_suffix("")) for path in found)
    return f"{' and '.join(counts)} ({names})"


def set_aside(plan: Plan, found: Sequence[Path]) -> Path:
    """Moves what `found_of` gave into a new folder under `set-aside`, and gives that folder.

    Tables read it as they read any folder of results. Raises UserError where another process is at work on any of it, before
    anything is moved.
    """
    with ExitStack() as locks:
        places = [path / "lock" if path.is_dir() else path.with_name(path.name.partition(".")[0] + ".lock") for path in found]
        for place, path in dict(zip(places, found, strict=True)).items():  # a fit and what there is of it have one
            try:
                locks.enter_context(filelock.FileLock(place, timeout=0))
            except filelock.Timeout:
                raise UserError(f"{path} is being worked on by another process: stop that, or wait until it is done") from None
        folder = _new_folder(plan.results / FOLDER)
        for path in found:
            place = folder / path.relative_to(plan.results)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    shutil.copy2(path.parent / "cell.json", place.parent)
                path.rename(place)
            except OSError as error:
                raise WriteError(f"{path} cannot be moved to {place} ({error.strerror}); what was moved stays there") from error
    plan.ledger.forget()
    return folder


def _new_folder(parent: Path) -> Path:
    """A folder that is not there yet, named by the time."""
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    names = (stamp, *(f"{stamp}-{number}" for number in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())
