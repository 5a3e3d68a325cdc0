"""One cell in training: a task, a batch, an algorithm and one seed or a group of them, with evaluations and checkpoints."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import filelock
from torch import Tensor

from ...algorithms.learning.fast.compiling import Compile
from ...algorithms.learning.fast.stepping import CannotCompile, Steps
from ...common.errors import WriteError
from .cell import Cell, built, fit_stage, leave_if_orphaned
from .evaluation import EvaluationBeside, EvaluationHere, Returns, evaluation_processes, reset_seeds
from .machine import describe_machine, matmul_precision, prepare_process
from .records import Store

LOCK_SECONDS = 10  # a worker whose parent was killed lets go within a step


def run_cell(cell: Cell) -> None:
    """Trains the cell's seeds to `cell.steps`, going on from their checkpoints; what came of it is in their records.

    An exception in training is a failure: recorded with its traceback, to be tried again by the next run. WriteError is raised
    besides, since no other cell could keep what it learns.
    """
    store = Store(cell.results)
    try:
        with ExitStack() as locks:
            for seed in cell.seeds:
                folder = cell.seed_folder(seed)
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(filelock.FileLock(folder / "lock", timeout=LOCK_SECONDS))
            Trial(cell).run()
    except filelock.Timeout:
        return  # another process is at it, and its numbers would be the same
    except Exception as error:
        for seed in cell.seeds:
            record = store.read_record(cell.seed_folder(seed)) or empty_record(seed)
            if record["state"] == "running":  # others of its group may have ended before
                record |= {"state": "failed", "traceback": traceback.format_exc()}
                store.write_record(cell.seed_folder(seed), record)
        if isinstance(error, WriteError):
            raise


def empty_record(seed: int) -> dict[str, Any]:
    return {"seed": seed, "state": "running", "steps": 0, "evaluations": [], "segments": [], "stages": {}}


class Pending(NamedTuple):
    """An evaluation that was begun, and all that stood when it was. Lists are by seed."""

    step: int
    seconds: float  # since the trial began
    means: Mapping[str, list[float]]
    first_bad: list[int]
    vitals: Mapping[str, Tensor]
    states: list[tuple[dict[str, Any], dict[str, Any]]]  # learner's and experience's
    returns: Returns


class Trial:
    """A group of seeds in training. All of a group stand at the same step."""

    def __init__(self, cell: Cell):
        prepare_process(cell.device)
        self.cell, self.store = cell, Store(cell.results)
        self.store.write_cell(cell.folder, cell.describe())
        checkpoints = [self.store.load_checkpoint(cell.seed_folder(seed)) for seed in cell.seeds]
        steps = {checkpoint["step"] if checkpoint else 0 for checkpoint in checkpoints}
        if len(steps) > 1:
            raise ValueError(f"seeds of one group stand at different steps {sorted(steps)}")
        self.step = steps.pop()
        self.records = [
            {**empty_record(seed), **(checkpoint["record"] if checkpoint else {})}
            for seed, checkpoint in zip(cell.seeds, checkpoints, strict=True)
        ]
        self.learner, self.experience = built(cell, self._fits())
        if self.step:
            self.learner.load_states([checkpoint["learner"] for checkpoint in checkpoints if checkpoint])
            self.experience.load_states([c["experience"] for c in checkpoints if c], self.learner)
        self.steps = Steps(self.learner, self.experience, cell.compilation.compiled)
        processes = evaluation_processes(cell, len(cell.seeds))
        self.evaluation = EvaluationBeside(cell, processes) if processes else EvaluationHere(cell)
        self.pending: Pending | None = None
        self.started = time.monotonic()
        self.seconds_before = [record.get("seconds", 0.0) for record in self.records]

    def _fits(self) -> dict[str, list[Any]]:
        """Of each stage the states of the seeds; their records say where they are from."""
        states: dict[str, list[Any]] = {}
        for name in self.cell.algorithm.stages:
            saved = [fit_stage(self.cell, name, seed) for seed in self.cell.seeds]
            states[name] = [each["state"] for each in saved]
            for record, each in zip(self.records, saved, strict=True):
                record["stages"] = {**record["stages"], name: self.cell.stage_identity(name)}
                record["stage_records"] = {**record.get("stage_records", {}), name: each["record"]}
        return states

    def run(self) -> None:
        cell = self.cell
        every = cell.evaluate_every or cell.task.evaluation.evaluate_every
        self._begin_segment()
        parent = os.getppid()
        with closing(self.evaluation):
            try:
                while self.step < cell.steps and any(record["state"] == "running" for record in self.records):
                    leave_if_orphaned(parent)
                    self.experience.refresh(self.step, self.learner)
                    self._take_step()
                    self.step += 1
                    if self.step % every == 0 or self.step == cell.steps:
                        self._evaluate()
            except Exception:
                self._settle()  # what was whole before it failed
                raise
            self._settle()
        self.steps.forget_graphs()
        for record in self.records:  # of a checkpoint that stood there already
            if record["state"] == "running" and self.step >= cell.steps:
                record["state"] = "done"
                self.store.write_record(cell.seed_folder(record["seed"]), record)

    def _begin_segment(self) -> None:
        cell = self.cell
        segment = {
            **describe_machine(),
            "from_step": self.step,
            "device": cell.device,
            "group": list(cell.seeds),
            "compiled": cell.compilation.compiled,
            "compile": cell.compilation.why,
            "captured": self.steps.captured,
            "matmul": matmul_precision(cell.device),
            "evaluation_processes": self.evaluation.processes,
        }
        for record in self.records:
            record["segments"] = [*record["segments"], dict(segment)]
            record |= {"state": "running", "traceback": None}
            self.store.write_record(cell.seed_folder(record["seed"]), record)

    def _take_step(self) -> None:
        """One step; of a learner that turns out not to compile an eager one, unless it was to be compiled in any case."""
        try:
            self.steps.take(self.step)
        except CannotCompile as error:
            if self.cell.compilation.wanted is not Compile.auto:
                raise
            self.steps.not_compiled()
            self._note({"compiled": False, "compile": f"auto: {error}"})
            self.steps.take(self.step)

    def _note(self, facts: Mapping[str, Any]) -> None:
        """Facts of this segment that turned out otherwise."""
        for record in self.records:
            if record["segments"][-1] | facts != record["segments"][-1]:
                record["segments"][-1] |= facts
                self.store.write_record(self.cell.seed_folder(record["seed"]), record)

    def _evaluate(self) -> None:
        """Begins an evaluation. Where it is made beside training, it is written at the end of the next interval."""
        self._settle()
        if not any(record["state"] == "running" for record in self.records):
            return
        self._note({"captured": self.steps.captured})
        cell = self.cell
        starts = [reset_seeds(seed, self.step, cell.episodes) for seed in cell.seeds]
        means, first_bad = self.steps.collect()
        states = [(self.learner.state(index), self.experience.state(index)) for index in range(len(cell.seeds))]
        returns = self.evaluation.begin(self.learner, [learner for learner, _ in states], starts)
        seconds = time.monotonic() - self.started  # with the evaluation, where training waited for it
        self.pending = Pending(self.step, seconds, means, first_bad, self.experience.vitals, states, returns)
        if not self.evaluation.processes:
            self._settle()

    def _settle(self) -> None:
        """Writes the evaluation that was begun: checkpoint and then record of every seed that is still running."""
        if self.pending is None:
            return
        done, self.pending = self.pending, None
        returns = done.returns()
        for index, record in enumerate(self.records):
            if record["state"] != "running":
                continue
            record["steps"] = done.step
            record["seconds"] = round(self.seconds_before[index] + done.seconds, 1)
            if done.first_bad[index] >= 0:
                record |= {"state": "diverged", "diverged_at": done.first_bad[index]}
            else:
                row = {
                    "step": done.step,
                    "return_mean": float(returns[index].mean()),
                    "return_std": float(returns[index].std(ddof=1)) if returns.shape[1] > 1 else None,
                    "returns": [float(value) for value in returns[index]],
                    **{name: values[index] for name, values in done.means.items()},
                    **{name: float(values[index]) for name, values in done.vitals.items()},
                }
                record["evaluations"] = [*record["evaluations"], row]
                if done.step >= self.cell.steps:
                    record["state"] = "done"
            folder, (learner, experience) = self.cell.seed_folder(record["seed"]), done.states[index]
            checkpoint = {"step": done.step, "learner": learner, "experience": experience, "record": record}
            self.store.save_checkpoint(folder, checkpoint)
            self.store.write_record(folder, record)
