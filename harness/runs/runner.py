"""Runs what is missing of a plan, in worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import joblib
from rich.console import Console

from ...common.errors import WriteError
from .cell import Cell
from .estimate import Job
from .first_use import check_first_use
from .fits import fit_stage, missing_fits, work_for
from .interrupts import ignore_interrupts, interrupts_held, stop_if_asked
from .ledger import Todo
from .plan import Plan, run_order
from .private_joblib import end_workers
from .progress import Watch, measured_jobs, progress
from .records import Store
from .trial import run_cell


def execute(
    plan: Plan, jobs: int, group: int = 1, console: Console | None = None, known: Sequence[Job] = ()
) -> dict[str, list[str]]:
    """Runs what is missing of the plan; gives the names of the runs that were missing by the state they ended in.

    Fits that several cells share come first, then the runs that need none, so that a worker seldom waits for one.
    jobs: worker processes, one thread each; with one job the work is done in this process. group: seeds trained together.
    console: where progress is shown. known: what an estimate has said of this plan's jobs, which is then not measured again.
    Raises UserError before anything is run where an algorithm from outside breaks the contract, and WriteError in the end
    where a file could not be written.
    """
    stop_if_asked()
    check_first_use({id(cell): cell for cell, _, _ in plan.ledger.pending(plan)}.values())
    todo = prepare(plan)
    head, refusals = os.getpid(), list[WriteError]()
    watch = Watch(plan.results, known or measured_jobs(plan.results, todo, group, console), jobs)

    def work() -> Iterator[Any]:
        """Each piece when a process is free for it; on a full disk nothing more is begun."""
        for cell, stage, seed in missing_fits(plan.results, todo):
            if not refusals:
                watch.begin(cell, [seed], stage)
                yield joblib.delayed(_refusal)(head, _fit, cell, stage, seed)
        for cell in groups(todo, group):
            if not refusals:
                watch.begin(cell, cell.seeds)
                yield joblib.delayed(_refusal)(head, run_cell, cell)

    with progress(watch, console), workers(jobs):
        pool = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
        for refusal in pool(work()):
            if refusal:
                refusals.append(refusal)
    if refusals:
        raise refusals[0]
    plan.ledger.forget()
    outcome: dict[str, list[str]] = {}
    for cell, seed, _ in todo:
        outcome.setdefault(plan.ledger.state(cell, seed), []).append(f"{cell.task.name}/{cell.algorithm.name}/seed-{seed}")
    return outcome


def prepare(plan: Plan) -> list[Todo]:
    """Writes what is to be run into the results folder, and gives what of it is missing."""
    store, ledger = Store(plan.results), plan.ledger
    ledger.forget()
    store.prepare()
    ledger.repaired = [line for cell in plan.cells for line in store.repair(cell.folder, cell.seeds)]
    for cell in plan.cells:
        store.write_cell(cell.folder, cell.describe())
    ledger.remember(plan)
    for cell, seed in plan.seeds():
        # a failure that is tried again is none any more; what was stopped past the steps now wanted is done
        record = ledger.record(cell.seed_folder(seed))
        state = "running" if record is None else ledger.state(cell, seed)
        state = "running" if state == "failed" else state
        if record is not None and record["state"] != state:
            store.write_record(cell.seed_folder(seed), record | {"state": state, "traceback": None})
    return ledger.pending(plan)


def groups(todo: Sequence[Todo], group: int) -> list[Cell]:
    """Cells of at most `group` seeds that stand at the same step, in the order in which they are run."""
    waiting: dict[tuple[int, int], list[int]] = {}
    cells = {id(cell): cell for cell, _, _ in todo}
    for cell, seed, steps in todo:
        waiting.setdefault((id(cell), steps), []).append(seed)
    made = [
        (cells[key].with_seeds(*seeds[first : first + group]), steps)
        for (key, steps), seeds in waiting.items()
        for first in range(0, len(seeds), group)
    ]
    return [cell for cell, _ in sorted(made, key=lambda each: run_order(*each))]


def _refusal(head: int, work: Callable[..., None], *arguments: Any) -> WriteError | None:
    """Does the work, in a worker, and hands a WriteError back: joblib would kill the other workers in mid-file over it."""
    work_for(head)
    if os.getpid() != head:
        ignore_interrupts()
    try:
        work(*arguments)
    except WriteError as error:
        return error
    return None


def _fit(cell: Cell, stage: str, seed: int) -> None:
    """A fit that fails is left to the runs that want it: they fail the same way, and say so in their records."""
    try:
        fit_stage(cell, stage, seed)
    except WriteError:
        raise  # or the same fit would be made once more, to be lost once more
    except Exception:
        return


@contextmanager
def workers(jobs: int) -> Iterator[None]:
    """joblib's processes with one thread each, BLAS included; killed when the user interrupts."""
    if jobs == 1:
        yield
        return
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1, max_nbytes=None):
        try:
            with interrupts_held():
                joblib.Parallel(n_jobs=jobs)(joblib.delayed(ignore_interrupts)() for _ in range(jobs))
            yield
        except KeyboardInterrupt:
            end_workers()
            raise
