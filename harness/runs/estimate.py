"""How long a grid will take: a little of every kind of work is timed here and now, and multiplied by what is missing.

A run is its steps, each with its batch; the refreshes of its experience; and its evaluations. A fit is made once for all the
runs that share it. How a refresh or a fit is made in small, and how much longer the real one is, experience and stage say.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ...algorithms.learning.fast.stepping import training_steps
from ...algorithms.learning.steps import BLOCK
from ...common.errors import FOREIGN, several
from ...tasks.simulation import simulate
from ...tasks.task import OfflineProblem
from .cell import SHORT_ROWS, Cell, build, describe_dataset, load_problem, short_configs
from .evaluation import acting, evaluation_processes
from .fits import missing_fits
from .ledger import Todo
from .machine import prepare_process
from .plan import Plan, run_order

COMPILED = 0.85  # of an eager step's time: from 0.7 (BC) to 0.9 (BEAR) at the paper's sizes, half in small networks
FIRST_STEPS = 3  # that are not timed


@dataclass(frozen=True)
class Costs:
    """Seconds that a process takes for an eager step, an evaluation, a refresh, and the fit of each stage for one seed.

    In a group a seed has its share of them. evaluated_beside: evaluations that go on at once, while the group trains.
    """

    step: float
    evaluation: float = 0.0
    refresh: float = 0.0
    fits: Mapping[str, float] = field(default_factory=dict)
    evaluated_beside: int = 0


@dataclass(frozen=True)
class Row:
    """A cell, or a fit that cells share (`steps` 0), and how long one process takes for what is missing; None: unknown."""

    task: str
    data: str
    work: str  # the algorithm, or the stage
    steps: int
    states: Mapping[str, int]  # how many of its seeds are in which state
    missing: int  # how many are to be run
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """core_seconds: of all that is missing. wall_seconds: by `processes`, where nothing else is done on the machine."""

    rows: list[Row]
    core_seconds: float
    wall_seconds: float
    processes: int
    device: str = "cpu"
    assumptions: tuple[str, ...] = ()  # of what takes as long as it likes
    jobs: tuple[Job, ...] = ()  # one by one


class Job(NamedTuple):
    """A fit of `stage`, or a run from step `done` on, and the seconds that a process takes for it; None: unknown."""

    cell: Cell
    seed: int
    stage: str = ""
    done: int = 0
    seconds: float | None = None


def missing_jobs(
    plan: Plan, todo: Sequence[Todo], costs_of: Callable[[Cell], Costs] | None
) -> tuple[list[Job], dict[int, str]]:
    """What these runs take, in the order in which `execute` begins it, and by the id of a cell why its costs are unknown.

    Without `costs_of` nothing is measured, and no job has its seconds.
    """
    costs: dict[int, Costs] = {}
    notes: dict[int, str] = {}
    fits = missing_fits(plan, todo)
    for cell in {id(cell): cell for cell, *_ in (*todo, *fits)}.values():
        if costs_of is None:
            break
        try:
            costs[id(cell)] = costs_of(cell)
        except FOREIGN as error:  # a bug of the learner's, say: it is no reason to tell nothing of the others
            notes[id(cell)] = " ".join(f"{type(error).__name__}: {error}".split())
    jobs = []
    for cell, stage, seed in fits:
        jobs.append(Job(cell, seed, stage, seconds=costs[id(cell)].fits[stage] if id(cell) in costs else None))
    for cell, seed, done in sorted(todo, key=lambda each: run_order(each[0], each[2])):
        jobs.append(Job(cell, seed, "", done, run_seconds(cell, costs[id(cell)], done) if id(cell) in costs else None))
    return jobs, notes


def estimate(plan: Plan, processes: int, costs_of: Callable[[Cell], Costs]) -> Estimate:
    """How long what is missing of the plan takes, by the costs of its cells: a `Calibration` measures them."""
    ledger = plan.ledger
    ledger.forget()
    jobs, notes = missing_jobs(plan, ledger.pending(plan), costs_of)
    durations = [job.seconds for job in jobs if job.seconds is not None]  # what has no known costs is left out

    rows, of_cell = [], dict[int, list[Job]]()
    for job in (each for each in jobs if not each.stage):
        of_cell.setdefault(id(job.cell), []).append(job)
    for cell in plan.cells:
        states: Mapping[str, int] = Counter(ledger.state(cell, seed) for seed in cell.seeds)
        runs = of_cell.get(id(cell), [])
        seconds = None if id(cell) in notes else sum(job.seconds or 0.0 for job in runs)
        about = (cell.task.name, cell.data["label"], cell.algorithm.name, cell.steps)
        rows.append(Row(*about, states, len(runs), seconds, notes.get(id(cell), "")))
    shared: dict[tuple[str, str], list[Job]] = {}
    for job in (each for each in jobs if each.stage):
        shared.setdefault((job.stage, job.cell.stage_identity(job.stage)), []).append(job)
    for (stage, _), fits in shared.items():
        cell, count = fits[0].cell, len(fits)
        seconds = None if fits[0].seconds is None else fits[0].seconds * count
        about = (cell.task.name, cell.data["label"], stage, 0)
        rows.append(Row(*about, {"missing": count}, count, seconds, notes.get(id(cell), "")))
    device = plan.cells[0].device if plan.cells else "cpu"
    parts: list[Any] = [part for cell in plan.cells for part in (cell.algorithm.experience, *cell.algorithm.stages.values())]
    assumptions = tuple(dict.fromkeys(part.assumes for part in parts if part.assumes))
    wall = finished_at(durations, processes)
    return Estimate(rows, sum(durations), wall, processes, device, assumptions, tuple(jobs))


def run_seconds(cell: Cell, costs: Costs, done: int) -> float:
    """Of what a run has still to do after `done` steps."""
    every = cell.evaluate_every
    evaluated = {*range((done // every + 1) * every, cell.steps + 1, every), cell.steps}
    evaluations = sum(map(cell.episodes_at, evaluated)) / cell.episodes
    between = cell.algorithm.experience.refresh_every(cell.algorithm.build_configs(cell.config)["experience"])
    refreshes = -(-cell.steps // between) - -(-done // between) if between else 0
    step = costs.step * (COMPILED if cell.compilation.compiled else 1)
    training, evaluating = (cell.steps - done) * step + refreshes * costs.refresh, evaluations * costs.evaluation
    return max(training, evaluating / costs.evaluated_beside) if costs.evaluated_beside else training + evaluating


def finished_at(durations: Iterable[float], processes: int) -> float:
    """When all of this is done, if each is begun in turn by the first process that is free."""
    free = [0.0] * processes
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


class Calibration:
    """Measures the costs of cells in this process; cells of equal sizes share a measurement.

    The work is that of a run, but less of it: a short refresh, short fits on a few rows. On a CPU it is processor time that
    counts, so that other work on the machine does not; `share` is what this process got of a core.
    """

    def __init__(self, group: int = 1) -> None:
        self.group = group
        self.units: dict[Any, Costs] = {}  # of one policy call, one short refresh, one unit of a fit
        self.fits: dict[Any, tuple[dict[str, Any], float]] = {}
        self.environment_steps: dict[Any, float] = {}
        self.seconds = self.processor_seconds = 0.0

    @property
    def share(self) -> float:
        return self.processor_seconds / self.seconds if self.seconds else 1.0

    def __call__(self, cell: Cell) -> Costs:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            sizes, algorithm = sizes_of(cell), cell.algorithm
            if sizes not in self.units:
                self.units[sizes] = self._measure(cell)
            units, configs = self.units[sizes], algorithm.build_configs(cell.config)
            for_environments = cell.episodes * self._environment_step(cell)
            _, times_longer = algorithm.experience.short_refresh(configs["experience"], cell.device)
            return Costs(
                step=units.step,
                evaluation=cell.task.problem.max_episode_steps * (units.evaluation + for_environments),
                refresh=units.refresh * times_longer,
                fits={
                    name: units.fits[name] * (kind.fit_units(configs[name], cell.data) or 0.0)
                    for name, kind in algorithm.stages.items()
                },
                evaluated_beside=min(self.group, evaluation_processes(cell, self.group)),
            )
        finally:
            self.seconds += time.perf_counter() - wall
            self.processor_seconds += time.process_time() - processor

    def _measure(self, cell: Cell) -> Costs:
        prepare_process(cell.device)
        problem, group, algorithm = load_problem(cell), self.group, cell.algorithm
        short = replace(cell, config=cell.config | vars(short_configs(cell)["experience"]))
        fits = {stage: self._fit(cell, stage, problem) for stage in algorithm.stages}
        learner, experience = build(
            short.with_seeds(*range(group)), {name: [state] * group for name, (state, _) in fits.items()}
        )
        steps = training_steps(learner, experience)
        numbers, blocks = itertools.count(), itertools.count(cell.steps // BLOCK)
        policy, seen = acting(learner), np.zeros((group, cell.episodes, problem.observation_size), np.float32)

        def step() -> None:  # of the last block, that is, of the last phase
            number = cell.steps - 1 - next(numbers) % (cell.steps % BLOCK or BLOCK)
            experience.refresh(number or 1, learner)  # not the refresh of a run's first step
            steps.take(number)

        def seconds(work: Callable[[], object]) -> float:
            return seconds_each(work, cell.device)

        refreshes = algorithm.experience.refresh_every(algorithm.build_configs(cell.config)["experience"])
        refresh = seconds(lambda: experience.refresh(0, learner)) if refreshes else 0.0
        for _ in range(FIRST_STEPS):
            step()
        step_itself = seconds(step)
        numbers_drawn = seconds(lambda: steps.streams.prepare(next(blocks) * BLOCK)) / BLOCK
        return Costs(
            step=(step_itself + numbers_drawn) / group,
            evaluation=seconds(lambda: policy(seen)) / group,
            refresh=refresh / group,
            fits={name: unit for name, (_, unit) in fits.items()},
        )

    def _fit(self, cell: Cell, stage: str, problem: OfflineProblem) -> tuple[dict[str, Any], float]:
        """A short fit: its state, and the seconds of one of its units, between its reports: what it does once is left out."""
        kind, config = cell.algorithm.stages[stage], short_configs(cell)[stage]
        sizes = (kind, *sizes_of(cell, stage)[2:])
        if sizes not in self.fits:
            short = cell.task.offline_problem(problem.dataset.head(SHORT_ROWS))
            units = kind.fit_units(config, describe_dataset(short.dataset))
            if units is None:
                raise NotImplementedError(f"how long a fit of {stage} takes: {kind.__name__}.fit_units does not say")
            times = [clock(cell.device)]
            state, _ = kind.fit(short, config, 0, device=cell.device, report=lambda row: times.append(clock(cell.device)))
            times.append(clock(cell.device))
            reported = times[1:-1]
            whole = (
                (reported[-1] - reported[0]) * len(reported) / (len(reported) - 1)
                if len(reported) > 1
                else times[-1] - times[0]
            )
            self.fits[sizes] = state, whole / units
        return self.fits[sizes]

    def _environment_step(self, cell: Cell) -> float:
        task = cell.task
        key = (task.environment, repr(task.parameters))
        if key not in self.environment_steps:
            environment = simulate(task, cell.specification)
            environment.reset(seed=0)
            unit = np.random.default_rng(0).uniform(-1, 1, task.problem.action_size).astype(np.float32)
            action = task.problem.action_box.from_unit(unit)

            def step() -> None:
                if any(environment.step(action)[2:4]):
                    environment.reset(seed=0)

            self.environment_steps[key] = seconds_each(step, "cpu")
        return self.environment_steps[key]


def sizes_of(cell: Cell, stage: str = "") -> tuple[Any, ...]:
    """What decides how long the parts of a cell take, or one stage: neither real numbers nor what times are multiplied by."""
    configs = {name: vars(config) for name, config in short_configs(cell).items() if stage in ("", name)}
    counts = [(name, key, value) for name, of in configs.items() for key, value in of.items() if not isinstance(value, float)]
    task, algorithm = cell.task, cell.algorithm
    sizes = (task.problem.observation_size, task.problem.action_size, cell.episodes, cell.device)
    return (algorithm.learner, algorithm.experience, repr(counts), *sizes)


def seconds_each(work: Callable[[], object], device: str, at_least: int = 3, enough: float = 0.2) -> float:
    """Of one piece of work, after a first one that pays for what is done once: the mean of as many as `enough` seconds hold."""
    work()
    started, times = clock(device), 0
    while times < at_least or clock(device) - started < enough:
        work()
        times += 1
    return (clock(device) - started) / times


def clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def sentences(found: Estimate, calibration: Calibration, name: str = "") -> list[str]:
    """The estimate in words, and how it was computed; `name` is the suite's."""
    runs = [row for row in found.rows if row.steps]
    wanted, missing = sum(sum(row.states.values()) for row in runs), sum(row.missing for row in runs)
    fits = sum(row.missing for row in found.rows if not row.steps)
    if not missing:
        return ["Everything is done already."]
    share = "All " if missing == wanted > 1 else f"{missing:,} of " if missing < wanted else ""
    what = f"{share}{several(wanted, 'run')}{f' of {name}' if name else ''}"
    needed = f" and {several(fits, 'fit')} for {'them' if missing > 1 else 'it'}" if fits else ""
    takes = "take" if missing > 1 or fits else "takes"
    hours, unit = found.core_seconds / 3600, "core" if found.device == "cpu" else "GPU"
    work = f"{hours:,.1f} {unit}-hours" if hours >= 1 else f"{duration(found.core_seconds)} of one {unit}"
    text = [
        f"{what}{needed} {takes} {work} on this machine, about "
        f"{duration(found.wall_seconds)} with {several(found.processes, 'process', 'processes')}."
    ]
    if calibration.share < 0.9:
        text.append(
            f"Other work leaves a process {calibration.share:.0%} of a core at present; at that load, about "
            f"{duration(found.wall_seconds / calibration.share)}."
        )
    if unknown := [f"{row.task}/{row.work}" for row in found.rows if row.seconds is None]:
        text.append(f"Not counted, since they could not be measured: {', '.join(unknown)}.")
    text.append(
        f"Computed from {several(len(calibration.units), 'measurement')} in {calibration.seconds:.0f} s, one for each "
        f"algorithm and size: steps (compiled ones at {COMPILED} of the eager time), refreshes, evaluations and fits, "
        f"multiplied by their numbers; as if {', '.join(['no episode ended early', *found.assumptions])}."
    )
    return text


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3.2 h", "5.1 days"."""
    for unit, size, largest in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < largest * size:
            return f"{seconds / size:,.1f} {unit}" if unit == "h" else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 86400:,.1f} days"
