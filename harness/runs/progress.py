"""How far a grid is while it runs: a bar in a terminal or a notebook, a line now and then elsewhere.

Fits and runs count by the seconds that the estimate gives them. How far a run is stands in its record; a fit keeps none, and
counts by the time since it was begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ...common.errors import UserError
from .cell import Cell
from .checkpoints import stage_path
from .estimate import Calibration, Job, duration, finished_at, missing_jobs
from .ledger import Todo
from .plan import Plan
from .records import Store, state_at, warnings

FIRST_LINE = 20.0  # seconds, where there is no terminal; the pauses between lines then grow with the time that has passed
LONGEST_PAUSE = 600.0
FIT_AT_MOST = 0.95  # of a fit that takes longer than was estimated
TRUST = 0.2  # the share of all work after which what was seen counts as much as the estimate
MEASURED_STEPS, MEASURED_ROWS = 10_000, 10_000  # a grid with fewer steps, and no fit on more rows, is over before it is timed


def measured_jobs(plan: Plan, todo: Sequence[Todo], group: int, console: Console | None) -> list[Job]:
    """What is to be done for these runs, with the seconds of each where anyone sees them and it is worth the measuring."""
    jobs, _ = missing_jobs(plan, todo, None)
    long_fits = any(job.stage and job.cell.data["rows"] > MEASURED_ROWS for job in jobs)
    steps = sum(job.cell.steps - job.done for job in jobs if not job.stage)
    if console is None or (steps < MEASURED_STEPS and not long_fits):
        return jobs
    calibration = Calibration(group)
    with console.status("Timing a few steps of each algorithm"):
        jobs, _ = missing_jobs(plan, todo, calibration)
    share = calibration.share  # of a core, which other work leaves
    return [job if job.seconds is None else job._replace(seconds=job.seconds / share) for job in jobs]


class Watch:
    """How far jobs are that are done by so many processes at once; `begin` is said of each when a process takes it."""

    def __init__(self, results: Path, jobs: Sequence[Job], processes: int, clock: Callable[[], float] = time.monotonic):
        self.results, self.store, self.clock = results, Store(results), clock
        self.jobs, self.processes = list(jobs), max(1, min(processes, len(jobs)))
        self.estimated = all(job.seconds is not None for job in jobs)
        self.weights = [job.seconds or 0.0 for job in jobs] if self.estimated else list(map(_size, jobs))
        self.shares = [0.0] * len(self.jobs)  # done of each
        self._places = {(job.cell.folder, job.stage, job.seed): index for index, job in enumerate(self.jobs)}
        self.begun: dict[int, float] = {}
        self.started = self.changed = clock()
        self._end: float | None = None  # as it was shown last
        self._warned: set[str] = set()
        self._news: list[str] = []

    def begin(self, cell: Cell, seeds: Sequence[int], stage: str = "") -> None:
        """A process begins with these seeds of a cell, or with their fits of a stage."""
        for seed in seeds:
            if (place := self._places.get((cell.folder, stage, seed))) is not None:  # or a fit that was put aside since
                self.begun[place] = self.clock()

    def look(self) -> None:
        """Reads how far the jobs are that were begun and have not ended."""
        before = self._done
        for index, began in list(self.begun.items()):
            if self.shares[index] < 1:
                with suppress(UserError):  # a record that cannot be read is told of in the end
                    self.shares[index] = self._share(self.jobs[index], self.clock() - began)
        if self._done != before:
            self.changed = self.clock()

    def _share(self, job: Job, seconds: float) -> float:
        if job.stage:
            if stage_path(self.results, job.stage, job.cell.stage_identity(job.stage), job.seed).exists():
                return 1.0
            return min(FIT_AT_MOST, seconds / job.seconds) if job.seconds else 0.0
        record = self.store.read_record(job.cell.seed_folder(job.seed))
        if record is None:
            return 0.0
        for text in warnings(record):
            said = f"warning: {job.cell.task.name}/{job.cell.algorithm.name}/seed-{job.seed}: {text}"
            if said not in self._warned:
                self._warned.add(said)
                self._news.append(said)
        if state_at(record["state"], record["steps"], job.cell.steps) != "running":
            return 1.0
        return max(0.0, (record["steps"] - job.done) / (job.cell.steps - job.done))

    def news(self) -> list[str]:
        """Warnings of the runs that have come since this was last asked."""
        news, self._news = self._news, []
        return news

    @property
    def done(self) -> float:
        """The share of all work that is done."""
        return self._done / self._work if self._work else 1.0

    @property
    def _done(self) -> float:
        return sum(weight * share for weight, share in zip(self.weights, self.shares, strict=True))

    @property
    def _work(self) -> float:
        return sum(self.weights)

    def seconds_left(self) -> float | None:
        """By the estimate, corrected by how long what is done has taken; None where nothing was measured.

        It counts down from what was said last as long as that is within a tenth of what would be said now.
        """
        if not self.estimated:
            return None
        now = self.clock()
        end, left = self._expected_end(self.changed)
        if end < now or FIT_AT_MOST in self.shares:  # something takes longer than it was to take
            end, left = self._expected_end(now)
        if self._end is None or abs(end - self._end) > 0.1 * left or self._end < now:
            self._end = end
        return max(0.0, self._end - now)

    def _expected_end(self, now: float) -> tuple[float, float]:
        """When all is done as far as that could be told at `now`, and how long it is until then."""
        rest = [weight * (1 - share) for weight, share in zip(self.weights, self.shares, strict=True)]
        taken, trusted = (now - self.started) * self.processes, TRUST * self._work
        slowness = (taken + trusted) / (self._done + trusted) if self._work else 0.0
        left = finished_at(rest, self.processes) * slowness
        return now + left, left

    def counts(self) -> str:
        """ "3/10 runs, 1/2 fits"."""
        said = []
        for what, is_fit in (("runs", False), ("fits", True)):
            shares = [share for share, job in zip(self.shares, self.jobs, strict=True) if bool(job.stage) == is_fit]
            said += [f"{sum(share == 1 for share in shares)}/{len(shares)} {what}"] * bool(shares)
        return ", ".join(said)

    def left(self) -> str:
        seconds = self.seconds_left()
        return "" if seconds is None else f"about {duration(seconds)} left"


def _size(job: Job) -> float:
    """What a job counts for where nothing was measured: its steps; a fit as much as its run."""
    return float(job.cell.steps - job.done)


@contextmanager
def progress(watch: Watch, console: Console | None) -> Iterator[None]:
    """Shows how far the jobs are until the block ends; nothing without a console."""
    if console is None or not watch.jobs:
        yield
        return
    with _bar(watch, console) if can_draw(console) else _lines(watch, console) as show:
        ended = threading.Event()

        def keep_showing() -> None:
            while not ended.wait(1.0):
                show()

        watcher = threading.Thread(target=keep_showing, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def can_draw(console: Console) -> bool:
    """Whether a bar can be drawn: in a terminal that moves its cursor, or in a notebook with ipywidgets."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def _bar(watch: Watch, console: Console) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console) as bar:
        line = bar.add_task(watch.counts(), total=1.0, left=watch.left())

        def show() -> None:
            watch.look()
            for text in watch.news():
                bar.console.print(text, markup=False)
            bar.update(line, completed=watch.done, description=watch.counts(), left=watch.left())

        try:
            yield show
        finally:
            show()  # where it stands, also where it was stopped


@contextmanager
def _lines(watch: Watch, console: Console) -> Iterator[Callable[[], None]]:
    said_at = watch.started

    def show() -> None:
        nonlocal said_at
        now = watch.clock()
        if now - said_at < min(max(FIRST_LINE, (now - watch.started) / 5), LONGEST_PAUSE):
            return
        said_at = now
        watch.look()
        for text in watch.news():
            console.print(text, markup=False, highlight=False)
        parts = (f"{watch.done:.0%} done", watch.counts(), watch.left(), f"{duration(now - watch.started)} so far")
        console.print("; ".join(filter(None, parts)), highlight=False)

    yield show
