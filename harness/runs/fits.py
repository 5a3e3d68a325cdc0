"""Models that a cell's seeds stand on, each fitted once and shared by every algorithm that asks for the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import filelock
from torch import Tensor

from ... import results as results_room
from ...algorithms.learning.stage import FitKeeper
from ...common.files import replace_file
from ...common.trees import tree_leaves
from .cell import Cell, load_problem
from .checkpoints import fit_damage, load_fit, part_path, save_fit, stage_path
from .interrupts import Stop, stop_if_asked
from .ledger import Planned, Todo
from .machine import describe_machine, prepare_process
from .reading import put_aside, was_put_aside
from .records import sweep

Fit = tuple[Cell, str, int]  # cell, stage, seed
KEEP_SECONDS = 60  # between two states of a fit that is still at work


class FitDiverged(Exception):
    """A fit whose numbers did not stay finite: a result, which is kept as any other fit is."""


def fit_stage(cell: Cell, stage: str, seed: int, seconds: float = -1) -> dict[str, Any]:
    """The fitted stage of one seed, with its record, from disk or fitted now.

    Two processes that want the same fit at once fit it once. A fit that was stopped resumes from the last state it kept. Raises
    FitDiverged, and filelock.Timeout where another process has been at work on it for so many seconds (below 0: waits).
    """
    path = stage_path(cell.results, stage, cell.stage_identity(stage), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock"), timeout=seconds):
        sweep(path.parent, f"{path.stem}.")
        if not path.exists():
            prepare_process(cell.device)
            config = cell.algorithm.build_configs(cell.config)[stage]
            keeper = PartFile(part_path(path), cell.device)
            try:
                state, record = cell.algorithm.stages[stage].fit(
                    load_problem(cell),
                    config,
                    seed,
                    device=cell.device,
                    report=lambda row: stop_if_unwanted(),
                    keeper=keeper,
                )
                if not all(bool(leaf.isfinite().all()) for leaf in tree_leaves(state) if isinstance(leaf, Tensor)):
                    raise FloatingPointError(f"the {stage} that was fitted is not finite")
            except FloatingPointError as error:
                state, record = {}, {"diverged": str(error)}
            save_fit(path, state, {**record, "machine": describe_machine()})
            keeper.path.unlink(missing_ok=True)
    fit = load_fit(path, cell.device)
    if why := fit["record"].get("diverged"):
        raise FitDiverged(why)
    return fit


class PartFile(FitKeeper):
    """Keeps a fit beside where it will stand, once in `KEEP_SECONDS`."""

    def __init__(self, path: Path, device: str):
        self.path, self.device = path, device
        self.kept_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        return load_fit(self.path, self.device)["state"] if self.path.exists() else None

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() - self.kept_at >= KEEP_SECONDS:
            save_fit(self.path, state(), {})
            self.kept_at = time.monotonic()


_head: int | None = None  # the process that this one works for; None where it is that process itself


def work_for(head: int | None) -> None:
    """Says which process handed the present work out: this one, or the parent that a worker must not outlive; None: another."""
    global _head
    _head = head if os.getpid() != head else None


def stop_if_unwanted() -> None:
    """Asked between two steps of long work: whether whoever wants it is still there, and has not said to stop."""
    leave_if_orphaned()
    stop_if_asked()


def leave_if_orphaned() -> None:
    """Stops a worker whose parent is gone: what it holds locked is for the next run to take over.

    The user's own process may lose its parent, a shell, and goes on.
    """
    if _head is not None and os.getppid() != _head:
        raise Stop


def fits_of(results: Path, runs: Iterable[tuple[Cell, int]]) -> dict[Path, Fit]:
    """The fits that these runs stand on, by their files; where cells share one, the first of them stands for all."""
    fits: dict[Path, Fit] = {}
    for cell, seed in runs:
        for stage in cell.algorithm.stages:
            fits.setdefault(stage_path(results, stage, cell.stage_identity(stage), seed), (cell, stage, seed))
    return fits


def bring_fits(plan: Planned) -> int:
    """Copies those fits that come with the package and that the plan's runs stand on and lack; gives how many.

    `results/stages` holds them as any folder of results does; `mopo-bench run` made them of the same plan.
    """
    package, brought = Path(str(resources.files(results_room))), 0
    for path, (cell, stage, seed) in fits_of(plan.results, plan.seeds()).items():
        ours = stage_path(package, stage, cell.stage_identity(stage), seed)
        if ours.exists() and not path.exists():
            replace_file(path, partial(shutil.copyfile, ours))
            brought += 1
    return brought


def missing_fits(plan: Planned, todo: Sequence[Todo]) -> list[Fit]:
    """What is still to be fitted: for these runs, and what was put aside of the others' and not made anew."""
    wanted = fits_of(plan.results, ((cell, seed) for cell, seed, _ in todo))
    every = wanted | fits_of(plan.results, plan.seeds())
    return [fit for path, fit in every.items() if not path.exists() and (path in wanted or was_put_aside(path))]


def repair_fits(plan: Planned) -> list[str]:
    """Puts aside what is damaged of the fits that the plan's runs stand on; gives a line for each.

    What another process is at work on is left to it.
    """
    said = []
    for path in fits_of(plan.results, plan.seeds()):
        for each, then in ((path, "fitted anew"), (part_path(path), "begun anew")):
            if fit_damage(each) is None:
                continue
            with suppress(filelock.Timeout), filelock.FileLock(path.with_suffix(".lock"), timeout=0):
                if (why := fit_damage(each)) is not None:  # or it was made anew meanwhile
                    where = each.relative_to(plan.results)
                    said.append(f"damaged: {where}: {why}; it is kept as {put_aside(each).name}, and {then}")
    return said
