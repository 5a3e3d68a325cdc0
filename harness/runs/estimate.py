"""How long a grid will take: a little of every kind of work is timed here and now, and multiplied by what is missing.

A run is its steps, each with its batch; its refreshes, which are model rollouts; and its evaluations. A fit is its epochs or
its steps, and is made once for all the runs that share it. Rollouts and episodes count as if none ended early.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...algorithms.learning.fast.capture import Captured
from ...algorithms.learning.fast.stepping import training_steps
from ...algorithms.learning.rollouts import CHUNK
from ...algorithms.learning.steps import BLOCK
from ...tasks.environments import make_environment
from ...tasks.task import OfflineProblem, Task
from .cell import Cell, build, load_problem
from .evaluation import acting, evaluation_processes
from .fits import missing_fits
from .ledger import Ledger
from .machine import prepare_process
from .plan import Plan
from .runner import run_order

COMPILED = 0.85  # of an eager step's time: from 0.7 (BC) to 0.9 (BEAR) at the paper's sizes, half in small networks
# Of a dynamics fit, which stops by itself: 45 to 114 on point-angle, 72 in the median; more on 100 000 rows of MuJoCo's.
EPOCHS = 70
SHORT_FIT = {"max_epochs": 2, "steps": 10}  # how long a fit is timed, by the setting of its stage that says how long it takes
SHORT_ROWS = 3_000  # of the batch, for such a fit
ROLLOUTS = {"rollout_length": 1, "rollout_every": 2**31, "retained_rollouts": 1}  # that are timed, a chunk of states


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


def estimate(plan: Plan, processes: int, costs_of: Callable[[Cell], Costs]) -> Estimate:
    """How long what is missing of the plan takes, by the costs of its cells: a `Calibration` measures them."""
    ledger = Ledger(plan.results)
    todo = ledger.pending(plan)
    costs: dict[int, Costs] = {}
    notes: dict[int, str] = {}
    for cell in {id(cell): cell for cell, _, _ in todo}.values():
        try:
            costs[id(cell)] = costs_of(cell)
        except Exception as error:  # a bug of the learner's, say: it is no reason to tell nothing of the others
            notes[id(cell)] = " ".join(f"{type(error).__name__}: {error}".split())
    # in the order in which `execute` begins them; what has no known costs is left out
    fits = missing_fits(plan.results, todo)
    runs = sorted(todo, key=lambda each: run_order(each[0], each[2]))
    durations = [costs[id(cell)].fits[stage] for cell, stage, _ in fits if id(cell) in costs]
    durations += [run_seconds(cell, costs[id(cell)], done) for cell, _, done in runs if id(cell) in costs]

    rows = []
    for cell in plan.cells:
        states: Mapping[str, int] = Counter(ledger.state(cell, seed) for seed in cell.seeds)
        steps_done = [done for each, _, done in todo if each is cell]
        seconds: float | None = None
        if id(cell) not in notes:
            seconds = sum(run_seconds(cell, costs[id(cell)], done) for done in steps_done)
        about = (cell.task.name, cell.data["label"], cell.algorithm.name, cell.steps)
        rows.append(Row(*about, states, len(steps_done), seconds, notes.get(id(cell), "")))
    shared: dict[tuple[str, str], list[Cell]] = {}
    for cell, stage, _ in fits:
        shared.setdefault((stage, cell.stage_identity(stage)), []).append(cell)
    for (stage, _), cells in shared.items():
        cell, count = cells[0], len(cells)
        seconds = costs[id(cell)].fits[stage] * count if id(cell) in costs else None
        about = (cell.task.name, cell.data["label"], stage, 0)
        rows.append(Row(*about, {"missing": count}, count, seconds, notes.get(id(cell), "")))
    device = plan.cells[0].device if plan.cells else "cpu"
    return Estimate(rows, sum(durations), finished_at(durations, processes), processes, device)


def run_seconds(cell: Cell, costs: Costs, done: int) -> float:
    """Of what a run has still to do after `done` steps."""
    every = cell.evaluate_every
    evaluations = cell.steps // every - done // every + bool(cell.steps % every)
    between = cell.config.get("rollout_every", 1)
    refreshes = -(-cell.steps // between) - -(-done // between)
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

    The work is that of a run, but less of it: one chunk of rollouts of one step, fits of a few steps on a few rows. On a CPU it
    is processor time that counts, so that other work on the machine does not; `share` is what this process got of a core.
    """

    def __init__(self, group: int = 1) -> None:
        self.group = group
        self.units: dict[Any, Costs] = {}  # of one policy call, one model step of one state, one step or row of a fit
        self.fits: dict[Any, tuple[dict[str, Any], float]] = {}
        self.environment_steps: dict[Any, float] = {}
        self.seconds = self.processor_seconds = 0.0

    @property
    def share(self) -> float:
        return self.processor_seconds / self.seconds if self.seconds else 1.0

    def __call__(self, cell: Cell) -> Costs:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            sizes, config = sizes_of(cell), cell.config
            if sizes not in self.units:
                self.units[sizes] = self._measure(cell)
            units = self.units[sizes]
            for_environments = cell.episodes * self._environment_step(cell.task)
            return Costs(
                step=units.step,
                evaluation=cell.task.problem.max_episode_steps * (units.evaluation + for_environments),
                refresh=units.refresh * config.get("rollout_states", 0) * config.get("rollout_length", 0),
                fits={stage: unit * units_of_fit(cell, stage) for stage, unit in units.fits.items()},
                evaluated_beside=min(self.group, evaluation_processes(cell, self.group)),
            )
        finally:
            self.seconds += time.perf_counter() - wall
            self.processor_seconds += time.process_time() - processor

    def _measure(self, cell: Cell) -> Costs:
        prepare_process(cell.device)
        problem, group = load_problem(cell), self.group
        chunk = ROLLOUTS | {"rollout_states": CHUNK[cell.device]}
        short = replace(cell, config=cell.config | {k: v for k, v in chunk.items() if k in cell.config})
        fits = {stage: self._fit(cell, stage, problem) for stage in cell.algorithm.stages}
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

        refresh = seconds(lambda: experience.refresh(0, learner))
        for _ in range(Captured.EAGER_CALLS):
            step()
        step_itself = seconds(step)
        numbers_drawn = seconds(lambda: steps.streams.prepare(next(blocks) * BLOCK)) / BLOCK
        return Costs(
            step=(step_itself + numbers_drawn) / group,
            evaluation=seconds(lambda: policy(seen)) / group,
            refresh=refresh / group / chunk["rollout_states"] if "rollout_states" in cell.config else 0.0,
            fits={name: unit for name, (_, unit) in fits.items()},
        )

    def _fit(self, cell: Cell, stage: str, problem: OfflineProblem) -> tuple[dict[str, Any], float]:
        """A short fit: its state, and the seconds of one of its units, between its reports: what it does once is left out."""
        kind, prefix = cell.algorithm.stages[stage], f"{stage}."
        short_fit = SHORT_FIT | ({"steps": 500} if cell.device != "cpu" else {})  # of which a hundredth pays for the recording
        less = {prefix + name: value for name, value in short_fit.items() if prefix + name in cell.config}
        if len(less) != 1:
            raise NotImplementedError(f"how long a fit of {stage} takes: it has no setting {' or '.join(SHORT_FIT)}")
        sizes = (kind, *sizes_of(cell, prefix)[2:])
        if sizes not in self.fits:
            config = cell.algorithm.build_configs(cell.config | less)[stage]
            short, reports = cell.task.offline_problem(problem.dataset.head(SHORT_ROWS)), list[float]()
            state, record = kind.fit(
                short, config, 0, device=cell.device, report=lambda row: reports.append(clock(cell.device))
            )
            rows = record["rows"] if prefix + "max_epochs" in less else 1
            self.fits[sizes] = state, (reports[-1] - reports[0]) / (len(reports) - 1) / rows
        return self.fits[sizes]

    def _environment_step(self, task: Task) -> float:
        key = (task.environment, repr(task.parameters))
        if key not in self.environment_steps:
            environment = make_environment(task.environment, **task.parameters)
            environment.reset(seed=0)
            unit = np.random.default_rng(0).uniform(-1, 1, task.problem.action_size).astype(np.float32)
            action = task.problem.action_box.from_unit(unit)

            def step() -> None:
                if environment.step(action)[2]:
                    environment.reset(seed=0)

            self.environment_steps[key] = seconds_each(step, "cpu")
        return self.environment_steps[key]


def sizes_of(cell: Cell, prefix: str = "") -> tuple[Any, ...]:
    """What decides how long the parts of a cell take: neither real numbers (coefficients) nor what times are multiplied by."""
    multiplied = {"rollout_states", *ROLLOUTS, *(f"{stage}.{name}" for stage in cell.algorithm.stages for name in SHORT_FIT)}
    counts = {
        name: value
        for name, value in cell.config.items()
        if name.startswith(prefix) and name not in multiplied and not isinstance(value, float)
    }
    task, algorithm = cell.task, cell.algorithm
    sizes = (task.problem.observation_size, task.problem.action_size, cell.episodes, cell.device)
    return (algorithm.learner, algorithm.experience, repr(counts), *sizes)


def units_of_fit(cell: Cell, stage: str) -> int:
    """Steps, or epochs times rows."""
    if f"{stage}.steps" in cell.config:
        return cell.config[f"{stage}.steps"]
    return min(EPOCHS, cell.config[f"{stage}.max_epochs"] or EPOCHS) * cell.data["dynamics_rows"]


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
    what = f"{'All ' if missing == wanted else f'{missing:,} of '}{wanted:,} runs{f' of {name}' if name else ''}"
    shared = f" and {fits:,} fit{'s' if fits > 1 else ''} that they share" if fits else ""
    hours, unit = found.core_seconds / 3600, "core" if found.device == "cpu" else "GPU"
    work = f"{hours:,.1f} {unit}-hours" if hours >= 1 else f"{duration(found.core_seconds)} of one {unit}"
    text = [
        f"{what}{shared} take {work} on this machine, about "
        f"{duration(found.wall_seconds)} with {found.processes} process{'es' if found.processes > 1 else ''}."
    ]
    if calibration.share < 0.9:
        text.append(
            f"Other work leaves a process {calibration.share:.0%} of a core at present; at that load, about "
            f"{duration(found.wall_seconds / calibration.share)}."
        )
    if unknown := [f"{row.task}/{row.work}" for row in found.rows if row.seconds is None]:
        text.append(f"Not counted, since they could not be measured: {', '.join(unknown)}.")
    text.append(
        f"Computed from {len(calibration.units)} measurements in {calibration.seconds:.0f} s, one for each algorithm and size: "
        f"steps (compiled ones at {COMPILED} of the eager time), refreshes, evaluations and fits, multiplied by their numbers; "
        f"as if no rollout or episode ended early, and with {EPOCHS} epochs for a dynamics model."
    )
    return text


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3.2 h", "5.1 days"."""
    for unit, size, largest in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 72)):
        if seconds < largest * size:
            return f"{seconds / size:,.1f} {unit}" if unit == "h" else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 86400:,.1f} days"
