"""A group of seeds of one cell in training, from their checkpoints to the cell's number of steps."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...algorithms.learning.fast.compiling import Compile
from ...algorithms.learning.fast.stepping import CannotCompile, training_steps
from ...algorithms.learning.learner import CRITIC_VALUE
from ...algorithms.learning.steps import highest_value
from ...common.errors import FOREIGN, WriteError, in_words
from ...common.trees import tree_map
from .cell import Cell, build
from .checkpoints import save_checkpoint, save_stopped, sound_checkpoint
from .evaluation import Begun, Evaluated, EvaluationBeside, EvaluationHere, evaluation_processes, reset_seeds
from .fits import FitDiverged, fit_stage, stop_if_unwanted
from .interrupts import Stop, stops_held
from .machine import describe_machine, matmul_precision, prepare_process
from .reading import Damaged
from .records import Store, held, state_at, sweep

LOCK_SECONDS = 10  # a worker whose parent was killed lets go within a step
SETTLE_SECONDS = 4  # that a run which was told to stop waits for an evaluation beside it
LOOK_SECONDS = 0.2  # between two looks for such a request, while it waits for an evaluation

Checkpoint = dict[str, Any]


def run_cell(cell: Cell, seconds: float | None = None) -> tuple[int, ...]:
    """Trains the cell's seeds to `cell.steps`, resuming from their checkpoints; what came of it is in their records.

    Seeds whose checkpoints stand at different steps are trained one group after another. Seeds that another process holds, for
    so many seconds (by default `LOCK_SECONDS`), are left to it, since its numbers are the same; they are given. An exception in
    training is a failure: recorded with its traceback, to be tried again by the next run. WriteError is raised besides, since
    no other cell could keep what it learns.
    """
    with ExitStack() as locks:
        ours, others = list[int](), list[int]()
        for seed in cell.seeds:
            folder = cell.seed_folder(seed)
            folder.mkdir(parents=True, exist_ok=True)
            mine = locks.enter_context(held(folder, LOCK_SECONDS if seconds is None else seconds))
            (ours if mine else others).append(seed)
        store = Store(cell.results)
        for seed in ours:
            sweep(cell.seed_folder(seed))
        wanted = [seed for seed in ours if not has_ended(store, cell, seed)]
        for group in by_step(cell.with_seeds(*wanted)):
            train(group)
    return tuple(others)


def has_ended(store: Store, cell: Cell, seed: int) -> bool:
    """Whether another process has brought this seed to its end since it was planned."""
    record = known_record(store, cell, seed)
    return state_at(record["state"], record["steps"], cell.steps) in ("done", "diverged")


def known_record(store: Store, cell: Cell, seed: int) -> dict[str, Any]:
    """The record of a seed; that of one that has not begun where there is none, or it is not to be believed."""
    with suppress(Damaged):
        if (record := store.read_record(cell.seed_folder(seed))) is not None:
            return record
    return empty_record(seed)


class Start(NamedTuple):
    """A seed, where it goes on, None from its beginning, and what is to be said of a damaged checkpoint."""

    seed: int
    checkpoint: Checkpoint | None
    note: str | None


def by_step(cell: Cell) -> list[tuple[Cell, list[Start]]]:
    """The cell split into groups of seeds that go on from one step; a record may be a moment behind its checkpoint.

    A damaged checkpoint is put aside, and its seed goes on from the one before, or begins anew.
    """
    groups: dict[tuple[int, int], list[Start]] = {}
    for seed in cell.seeds:
        checkpoint, note = sound_checkpoint(cell.seed_folder(seed), cell.next_evaluation)
        place = (checkpoint["step"], checkpoint["record"]["steps"]) if checkpoint else (0, 0)
        groups.setdefault(place, []).append(Start(seed, checkpoint, note))
    return [(cell.with_seeds(*(start.seed for start in starts)), starts) for starts in groups.values()]


def train(group: tuple[Cell, list[Start]]) -> None:
    """One group's training, whose failure is recorded with its traceback. Raises WriteError only."""
    cell, starts = group
    try:
        cell = with_sound_fits(cell)
        if cell.seeds:
            Trial(cell, [start for start in starts if start.seed in cell.seeds]).run()
    except FOREIGN as error:
        note_failure(cell, traceback.format_exc())
        if isinstance(error, WriteError):
            raise


def note_failure(cell: Cell, why: str) -> None:
    """Writes into the records of the cell's seeds that they have failed, but for those that had ended before."""
    store = Store(cell.results)
    for seed in cell.seeds:
        record = known_record(store, cell, seed)
        if record["state"] == "running":
            store.write_record(cell.seed_folder(seed), record | {"state": "failed", "traceback": why})


def say_failed(cell: Cell, why: str) -> None:
    """Notes the failure of seeds whose worker is gone; those that another process holds by now are left to it."""
    for seed in cell.seeds:
        with held(cell.seed_folder(seed)) as mine:
            if mine:
                note_failure(cell.with_seeds(seed), why)


def with_sound_fits(cell: Cell) -> Cell:
    """The cell without the seeds of which a fit diverged or failed, which have done the same; their records say so."""
    store, sound = Store(cell.results), []
    for seed in cell.seeds:
        try:
            for stage in cell.algorithm.stages:
                fit_stage(cell, stage, seed)
            sound.append(seed)
        except FitDiverged as error:
            record = known_record(store, cell, seed)
            record |= {"state": "diverged", "diverged_at": record["steps"], "diverged_by": str(error)}
            store.write_record(cell.seed_folder(seed), record)
        except WriteError:
            raise
        except FOREIGN:
            note_failure(cell.with_seeds(seed), traceback.format_exc())
    return cell.with_seeds(*sound)


def empty_record(seed: int) -> dict[str, Any]:
    """The record of a run that has not begun."""
    return {"seed": seed, "state": "running", "steps": 0, "evaluations": [], "segments": [], "stages": {}}


def numbers(values: Tensor | np.ndarray) -> Any:
    """A number, or a list of them, as JSON knows them: None for one that is not finite, as of rollouts that all have ended."""
    return tree_map(lambda value: value if math.isfinite(value) else None, values.tolist())


class Pending(NamedTuple):
    """An evaluation that was begun, and all that stood when it was. Lists are by seed."""

    step: int
    seconds: float  # since the trial began
    means: Mapping[str, list[float]]
    first_bad: list[int]
    vitals: Mapping[str, Tensor]
    highest: tuple[list[float], list[float]]  # rewards since the trial began, and bonuses
    discount: float
    states: list[tuple[dict[str, Any], dict[str, Any]]]  # learner's and experience's
    sums: list[dict[str, Any]]  # of which the means were taken
    evaluated: Begun
    finite: list[bool]  # whether the weights are

    def row(self, index: int, returns: np.ndarray, vitals: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What the record of seed number `index` keeps of it; `returns` (n,) are its episodes', `vitals` (S,) of them."""
        return {
            "step": self.step,
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std(ddof=1)) if len(returns) > 1 else None,
            "returns": [float(value) for value in returns],
            "metrics": {name: values[index] for name, values in self.means.items()},
            "vitals": {name: numbers(values[index]) for name, values in self.vitals.items()}
            | {name: numbers(values[index]) for name, values in vitals.items()},
        }

    def bad_metrics(self, index: int) -> str:
        """Which means of seed number `index` are not finite, in words."""
        bad = [name for name, values in self.means.items() if not math.isfinite(values[index])]
        return f"{in_words(bad)} {'was' if len(bad) == 1 else 'were'} not finite" if bad else "a metric was not finite"

    def value(self, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """The mean value of the critics of seed number `index`, and the highest that the rewards so far allow."""
        if CRITIC_VALUE not in self.means:
            return {}
        rewards, bonuses = self.highest
        before = [row["value"]["highest_reward"] for row in record["evaluations"] if row.get("value")]
        reward = max([rewards[index], *before[-1:]])
        highest = highest_value(reward, bonuses[index], self.discount)
        return {"value": {"mean": self.means[CRITIC_VALUE][index], "highest": highest, "highest_reward": reward}}


class Records:
    """The records of a group's seeds, in order, as they are written while it trains."""

    def __init__(self, cell: Cell, checkpoints: Sequence[Checkpoint | None]):
        self.cell, self.store = cell, Store(cell.results)
        self.each = [
            {**empty_record(seed), **(checkpoint["record"] if checkpoint else {})}
            for seed, checkpoint in zip(cell.seeds, checkpoints, strict=True)
        ]
        self.seconds_before = [record.get("seconds", 0.0) for record in self.each]

    @property
    def running(self) -> bool:
        return any(record["state"] == "running" for record in self.each)

    def write(self, index: int) -> None:
        self.store.write_record(self.cell.seed_folder(self.cell.seeds[index]), self.each[index])

    def stood_on(self, stage: str, fits: Sequence[Mapping[str, Any]]) -> None:
        """Notes which fit of a stage each seed stands on, and what was recorded of it."""
        for record, fit in zip(self.each, fits, strict=True):
            record["stages"] = {**record["stages"], stage: self.cell.stage_identity(stage)}
            record["stage_records"] = {**record.get("stage_records", {}), stage: fit["record"]}
            self.warn(record, stage, fit["record"].get("warning"))

    def warned(self, kind: str, texts: Sequence[str | None]) -> None:
        """Notes what a reader of each seed's numbers should know, or that there is nothing of this kind."""
        for record, text in zip(self.each, texts, strict=True):
            self.warn(record, kind, text)

    @staticmethod
    def warn(record: dict[str, Any], kind: str, text: str | None) -> None:
        others = {name: each for name, each in record.get("warnings", {}).items() if name != kind}
        record["warnings"] = others | ({kind: text} if text else {})

    def begin_segment(self, facts: Mapping[str, Any]) -> None:
        """A stretch of training on one machine begins, for all seeds but those that have diverged before."""
        for index, record in enumerate(self.each):
            if record["state"] == "diverged":
                continue
            record["segments"] = [*record["segments"], dict(facts)]
            record |= {"state": "running", "traceback": None}
            self.write(index)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Facts of the present segment that turned out otherwise."""
        for index, record in enumerate(self.each):
            if record["state"] == "running" and record["segments"][-1] | facts != record["segments"][-1]:
                record["segments"][-1] |= facts
                self.write(index)

    def settle(self, done: Pending, evaluated: Evaluated) -> None:
        """Writes an evaluation that is whole: checkpoint, then record, of every seed that is still running."""
        returns, vitals = evaluated
        for index, record in enumerate(self.each):
            if record["state"] != "running":
                continue
            record["steps"] = done.step
            record["seconds"] = round(self.seconds_before[index] + done.seconds, 1)
            if done.first_bad[index] >= 0:
                record |= {"state": "diverged", "diverged_at": done.first_bad[index], "diverged_by": done.bad_metrics(index)}
            elif not done.finite[index]:
                record |= {"state": "diverged", "diverged_at": done.step, "diverged_by": "a weight was not finite"}
            elif not np.isfinite(returns[index]).all():
                why = "an action in its evaluation, or a return, was not finite"
                record |= {"state": "diverged", "diverged_at": done.step, "diverged_by": why}
            else:
                row = done.row(index, returns[index], vitals) | done.value(index, record)
                record["evaluations"] = [*record["evaluations"], row]
                record["seconds_at"] = {**record.get("seconds_at", {}), str(done.step): record["seconds"]}
                if done.step >= self.cell.steps:
                    record["state"] = "done"
            learner, experience = done.states[index]
            parts = {"learner": learner, "experience": experience, "record": record}
            checkpoint = {"step": done.step, "run": self.cell.key, **parts}
            save_checkpoint(self.cell.seed_folder(self.cell.seeds[index]), checkpoint)
            self.write(index)

    def finish(self, step: int) -> None:
        """A checkpoint that stood at the wanted step already makes its run done."""
        for index, record in enumerate(self.each):
            if record["state"] == "running" and step >= self.cell.steps:
                record["state"] = "done"
                self.write(index)


class Trial:
    """The training itself: steps, refreshes and evaluations of a group of seeds, all at the same step."""

    def __init__(self, cell: Cell, starts: Sequence[Start]):
        """starts: where each seed goes on, all at one step."""
        prepare_process(cell.device)
        self.cell = cell
        Store(cell.results).write_cell(cell.folder, cell.describe())
        checkpoints = [start.checkpoint for start in starts]
        self.records = Records(cell, checkpoints)
        for start, record in zip(starts, self.records.each, strict=True):
            if start.note:
                self.records.warn(record, "checkpoint", start.note)
        self.step = self._build(checkpoints)
        self.steps = training_steps(self.learner, self.experience, cell.compilation.compiled, cell.capture)
        if sums := [checkpoint["sums"] for checkpoint in checkpoints if checkpoint and "sums" in checkpoint]:
            self.steps.load_states(sums)
        self.evaluated = self.records.each[0]["steps"]  # up to where
        processes = evaluation_processes(cell, len(cell.seeds))
        self.evaluation = EvaluationBeside(cell, processes) if processes else EvaluationHere(cell)
        self.pending: Pending | None = None
        self.started = time.monotonic()

    def _build(self, checkpoints: Sequence[Checkpoint | None]) -> int:
        """Builds learner and experience on their fits and brings them to the checkpoints; gives the step reached."""
        cell, fits = self.cell, {}
        for stage in cell.algorithm.stages:
            found = [fit_stage(cell, stage, seed) for seed in cell.seeds]
            self.records.stood_on(stage, found)
            fits[stage] = [each["state"] for each in found]
        self.learner, self.experience = build(cell, fits)
        there = [checkpoint for checkpoint in checkpoints if checkpoint]
        if there:
            self.learner.load_states([checkpoint["learner"] for checkpoint in there])
            self.experience.load_states([checkpoint["experience"] for checkpoint in there], self.learner)
        self.records.warned("rewards", self.experience.warnings())
        return there[0]["step"] if there else 0

    def run(self) -> None:
        """Trains to the cell's number of steps, or until every seed has diverged.

        Told to stop, it keeps where it is. What was whole before a failure is written.
        """
        self.records.begin_segment(self._segment())
        with closing(self.evaluation):
            try:
                with stops_held():
                    try:
                        self._train()
                    except FOREIGN:
                        # a stop told now is not followed: a learner that failed in the midst of a step is not to be kept
                        with suppress(Stop):
                            self._settle()
                        raise
                    self._settle()
            except Stop:
                self._keep(self._settled_in_time())
                raise
        self.steps.forget_graphs()
        self.records.finish(self.step)

    def _train(self) -> None:
        cell = self.cell
        if self.step > self.evaluated and self.step == cell.next_evaluation(self.evaluated):
            self._evaluate()  # in the midst of which it was stopped
        while self.step < cell.steps and self.records.running:
            stop_if_unwanted()
            self.experience.refresh(self.step, self.learner)
            self._take_step()
            self.step += 1
            if self.step == cell.next_evaluation(self.step - 1):
                self._evaluate()

    def _settled_in_time(self) -> Pending | None:
        """Writes the evaluation that was begun, if one was, and gives None; or the evaluation, where it is late or lost.

        Its process may have been told to stop as well.
        """
        begun = self.pending
        with suppress(*FOREIGN):
            if begun is None or begun.evaluated.ended(SETTLE_SECONDS):
                self._write()
                return None
        return begun

    def _keep(self, begun: Pending | None) -> None:
        """Keeps where each seed is between two evaluations, or where it was when one was begun, to go on from there."""
        seconds = begun.seconds if begun else time.monotonic() - self.started
        step = begun.step if begun else self.step
        for index, record in enumerate(self.records.each):
            if record["state"] == "running" and step > record["steps"]:
                learner, experience = begun.states[index] if begun else self._states(index)
                save_stopped(
                    self.cell.seed_folder(self.cell.seeds[index]),
                    {
                        "step": step,
                        "run": self.cell.key,
                        "learner": learner,
                        "experience": experience,
                        "sums": begun.sums[index] if begun else self.steps.state(index),
                        "record": record | {"seconds": round(self.records.seconds_before[index] + seconds, 1)},
                    },
                )

    def _states(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the learner and the experience of seed number `index`."""
        return self.learner.state(index), self.experience.state(index)

    def _segment(self) -> dict[str, Any]:
        cell = self.cell
        return {
            **describe_machine(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": self.step,
            "device": cell.device,
            "group": list(cell.seeds),
            "compiled": cell.compilation.compiled,
            "compile": cell.compilation.why,
            "captured": self.steps.captured,
            "matmul": matmul_precision(cell.device),
            "evaluation_processes": self.evaluation.processes,
        }

    def _take_step(self) -> None:
        """One step; of a learner that turns out not to compile an eager one, unless it was to be compiled in any case."""
        try:
            self.steps.take(self.step)
        except CannotCompile as error:
            if self.cell.compilation.wanted is not Compile.auto:
                raise
            self.steps.not_compiled()
            self.records.note({"compiled": False, "compile": f"auto: {error}"})
            self.steps.take(self.step)

    def _evaluate(self) -> None:
        """Begins an evaluation. Where it is asynchronous, it is written at the end of the next interval."""
        self._settle()
        if not self.records.running:
            return
        self.records.note({"captured": self.steps.captured})
        cell = self.cell
        starts = [reset_seeds(seed, self.step, cell.episodes_at(self.step)) for seed in cell.seeds]
        finite = self.learner.finite()
        states = [self._states(index) for index in range(len(cell.seeds))]
        sums = [self.steps.state(index) for index in range(len(cell.seeds))]
        evaluated = self.evaluation.begin(self.learner, [learner for learner, _ in states], starts)
        means, first_bad = self.steps.collect()  # now, that a run stopped in its evaluation still has them
        seconds = time.monotonic() - self.started  # with the evaluation, where training waited for it
        highest, discount = self.steps.highest(), cell.task.problem.discount
        vitals = {**self.learner.vitals, **self.experience.vitals}
        told = (means, first_bad, vitals, highest, discount)
        self.pending = Pending(self.step, seconds, *told, states, sums, evaluated, finite)
        if not self.evaluation.processes:
            self._settle()

    def _settle(self) -> None:
        """Writes the evaluation that was begun, if one was, once it has ended."""
        while self.pending is not None and not self.pending.evaluated.ended(LOOK_SECONDS):
            stop_if_unwanted()
        self._write()

    def _write(self) -> None:
        if self.pending is not None:
            done, self.pending = self.pending, None
            self.records.settle(done, done.evaluated.result())
