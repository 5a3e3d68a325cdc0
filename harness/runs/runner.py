"""Runs what is missing of a plan, by an engine."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from ...common.errors import FOREIGN, WriteError
from .cell import Cell
from .checkpoints import part_path, stage_path, step_reached
from .engines import Ended, Engine, Here, Lost, Piece, Stopped, Workers
from .estimate import Job
from .first_use import check_first_use
from .fits import fit_stage, fits_of, missing_fits, repair_fits
from .interrupts import answered, stop_if_asked
from .ledger import Todo
from .machine import caller_kept
from .plan import Plan, run_order
from .progress import Watch, measured_jobs, progress
from .records import DAMAGED, SECONDS_TO_LOOK, Store, held, state_at, sweep_leftovers
from .trial import run_cell, say_failed

TRIES = 2  # of a piece whose worker is lost


@caller_kept()
def execute(
    plan: Plan,
    jobs: int = 1,
    group: int = 1,
    console: Console | None = None,
    known: Sequence[Job] = (),
    engine: Engine | Here | None = None,
) -> dict[str, list[str]]:
    """Runs what is missing of the plan; gives the names of the runs that were missing by the state they ended in.

    Fits that several cells share come first, then the runs that need none, so that a worker seldom waits for one. A run whose
    worker is lost goes on once, from where it stood; should that be lost, too, it has failed. One that is told to stop, as at a
    time limit, goes on in another worker as long as each brings it further.
    jobs: worker processes, one thread each; with one job the work is done in this process. group: seeds trained together.
    console: where progress is shown. known: what an estimate has said of this plan's jobs, which is then not measured again.
    engine: who does the work in place of worker processes here.
    Raises UserError before anything is run where an algorithm from outside breaks the contract, and WriteError in the end
    where a file could not be written.
    """
    engine = engine or (Here() if jobs == 1 else Workers(jobs))
    with answered():
        stop_if_asked()
        plan.ledger.forget()
        check_first_use({id(cell): cell for cell, _, _ in plan.ledger.pending(plan)}.values())
        todo = prepare(plan)
        watch = Watch(plan.results, known or measured_jobs(plan, todo, group, console), engine.slots)
        work = Work(plan, todo, group, watch)
        with progress(watch, console), closing(engine.ended(work.following)) as pieces:
            for piece, ended in pieces:
                work.note(piece, ended)
    if work.refusals:
        raise work.refusals[0]
    plan.ledger.forget(cell.seed_folder(seed) for cell, seed, _ in todo)
    outcome: dict[str, list[str]] = {}
    for cell, seed, _ in todo:
        outcome.setdefault(plan.ledger.state(cell, seed), []).append(f"{cell.task.name}/{cell.algorithm.name}/seed-{seed}")
    return outcome


class Work:
    """What is to be done for these runs, piece by piece."""

    def __init__(self, plan: Plan, todo: Sequence[Todo], group: int, watch: Watch):
        self.ledger, self.watch, self.refusals, self.lost = plan.ledger, watch, list[WriteError](), Counter[Key]()
        self.stood: dict[Key, list[float]] = {}  # how far pieces were whose workers were told to stop
        fits = [Piece(_fit, (cell, stage, seed)) for cell, stage, seed in missing_fits(plan, todo)]
        self.waiting = deque([*fits, *(Piece(run_cell, (cell, SECONDS_TO_LOOK)) for cell in groups(todo, group))])

    def following(self) -> Piece | None:
        """The next piece, one that need wait for no fit before others; on a full disk nothing more is begun."""
        if self.refusals or not self.waiting:
            return None
        place = next((index for index, each in enumerate(self.waiting) if _has_fits(each)), 0)
        piece = self.waiting[place]
        del self.waiting[place]
        _, stage, seeds = _key(piece)
        self.watch.begin(piece.arguments[0], seeds, stage)
        return piece

    def note(self, piece: Piece, ended: Ended) -> None:
        """What became of a piece: one whose worker is lost, or was told to stop, is tried again, at once.

        Seeds that another process held are asked for once more, at the end.

        Of a group that is lost each seed is, by itself: no other may have failed than one that was alone with its worker.
        """
        if isinstance(ended, WriteError):
            self.refusals.append(ended)
        if isinstance(ended, tuple) and ended and piece.arguments[1:]:
            self.waiting.append(Piece(run_cell, (piece.arguments[0].with_seeds(*ended),)))
        if isinstance(ended, Stopped):
            self._go_on(piece, ended)
        elif isinstance(ended, Lost):
            tries = self.lost[_key(piece)] + 1
            for each in reversed(alone(piece)):
                self.lost[_key(each)] = tries
                if tries < TRIES:
                    self.waiting.appendleft(each)
                elif each.work is run_cell:
                    say_failed(each.arguments[0], f"WorkerLost: {ended.why}, {TRIES} times: {ADVICE}")

    def _go_on(self, piece: Piece, stopped: Stopped) -> None:
        """Has a piece whose worker was told to stop go on, unless it stands where it stood when the one before was.

        It has not failed then, and the next run goes on with it. A fit is left to the runs that want it.
        """
        before, stands = self.stood.get(_key(piece)), how_far(piece)
        self.stood[_key(piece)] = stands
        if stands != before:
            self.waiting.appendleft(piece)
        elif piece.work is run_cell:
            cell = piece.arguments[0]
            for seed in cell.seeds:
                at = f"stopped at step {step_reached(cell.seed_folder(seed)):,}"
                self.ledger.left[cell.seed_folder(seed)] = f"{at}, no further than before: {stopped.why}; {MORE_TIME}"


Key = tuple[Path, str, tuple[int, ...]]


def _key(piece: Piece) -> Key:
    """Cell, stage and seeds; without a stage it is a run."""
    cell, *more = piece.arguments
    return (cell.folder, more[0], (more[1],)) if piece.work is _fit else (cell.folder, "", cell.seeds)


def alone(piece: Piece) -> list[Piece]:
    """The piece, or of a group one for each of its seeds."""
    if piece.work is not run_cell:
        return [piece]
    cell, *more = piece.arguments
    return [Piece(run_cell, (cell.with_seeds(seed), *more)) for seed in cell.seeds]


def how_far(piece: Piece) -> list[float]:
    """Numbers that change whenever a piece gets further: steps of its runs, and when its fits were kept, 0 before."""
    cell = piece.arguments[0]
    _, stage, seeds = _key(piece)
    fits = [
        stage_path(cell.results, name, cell.stage_identity(name), seed)
        for name in ([stage] if stage else cell.algorithm.stages)
        for seed in seeds
    ]
    kept = [each for path in fits for each in (path, part_path(path))]
    steps = [] if stage else [step_reached(cell.seed_folder(seed)) for seed in seeds]
    return [*steps, *(path.stat().st_mtime if path.exists() else 0 for path in kept)]


MORE_TIME = "give a job more time, with Slurm by SBATCH_TIMELIMIT, and run again"
ADVICE = "mostly memory has run out; ask for fewer --jobs, or a smaller batch, and run again"


def prepare(plan: Plan) -> list[Todo]:
    """Writes what is to be run into the results folder, and gives what of it is missing."""
    store, ledger = Store(plan.results), plan.ledger
    store.prepare()
    ledger.repaired, ledger.left = [], {}
    for cell in plan.cells:
        damaged = [seed for seed in cell.seeds if ledger.state(cell, seed) == DAMAGED]
        ledger.repaired += store.repair(cell.folder, damaged)
        ledger.forget(map(cell.seed_folder, damaged))
        store.write_cell(cell.folder, cell.describe())
    ledger.repaired += repair_fits(plan)
    ledger.remember(plan)
    for cell, seed in plan.seeds():
        # a failure that is tried again is none any more; what was stopped past the steps now wanted is done
        folder, known = cell.seed_folder(seed), ledger.known(cell.seed_folder(seed))
        if known is None:
            continue
        sweep_leftovers(folder)
        if _changed(known.state, known.steps, cell.steps):
            with held(folder) as mine:  # or another process has it at work
                record = store.read_record(folder) if mine else None
                if record and (state := _changed(record["state"], record["steps"], cell.steps)):
                    store.write_record(folder, record | {"state": state, "traceback": None})
            ledger.forget([folder])
    return ledger.pending(plan)


def _changed(state: str, steps: int, wanted: int) -> str | None:
    """The state that a record is to say now that so many steps are wanted; None where it says that already."""
    new = state_at(state, steps, wanted)
    new = "running" if new == "failed" else new
    return None if new in (state, DAMAGED) else new


def _has_fits(piece: Piece) -> bool:
    """Whether it is a fit, or a run whose fits are there."""
    cell = piece.arguments[0]
    return piece.work is _fit or all(path.exists() for path in fits_of(cell.results, ((cell, seed) for seed in cell.seeds)))


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


def _fit(cell: Cell, stage: str, seed: int) -> None:
    """One that another command is at work on is left to it, so that commands on one folder share the fits out.

    A fit that fails is left to the runs that want it: they fail the same way, and say so in their records.
    """
    try:
        fit_stage(cell, stage, seed, seconds=0)
    except WriteError:
        raise  # or the same fit would be made once more, to be lost once more
    except FOREIGN:
        return
