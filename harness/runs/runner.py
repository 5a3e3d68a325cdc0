"""Many cells through joblib: what is planned, what of it is missing, and the workers that do it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import joblib
import torch
from joblib.externals.loky import get_reusable_executor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ...algorithms.learning.fast.compiling import decide
from ...algorithms.learning.registry import Algorithm, get_algorithm, task_settings
from ...common.errors import UserError, WriteError, unknown
from ...tasks.data.sources import DatasetRequest, load_dataset, why_missing
from ...tasks.registry import get_task
from ...tasks.task import Task
from .cell import Cell, describe_dataset, fit_stage
from .interrupts import ignore_interrupts, interrupts_held
from .machine import usable_cores
from .records import Run, Store, read_json, write_json
from .suites import Suite
from .trial import empty_record, run_cell


@dataclass(frozen=True)
class Plan:
    """A grid: one cell per task and algorithm, each with all its seeds."""

    cells: tuple[Cell, ...]
    results: Path

    def seeds(self) -> Iterator[tuple[Cell, int]]:
        for cell in self.cells:
            for seed in cell.seeds:
                yield cell, seed


def make_plan(
    *,
    tasks: Sequence[Task | str],
    algorithms: Sequence[Algorithm | str],
    seeds: Sequence[int],
    results: Path,
    suite: Suite | None = None,
    steps: int | None = None,
    batch: DatasetRequest = DatasetRequest(),  # noqa: B008 - immutable
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    compiled: str | bool = "auto",
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    evaluation_processes: int | None = None,
) -> Plan:
    """Resolves and checks everything before any training: names, settings, seeds, batches. Raises UserError.

    settings: "algorithm.key" or "all.key" to value, which win over the task's and the suite's. compiled: "auto", "on" (True) or
    "off" (False), see `compiling.py`. evaluation_processes: beside training; 0: training waits; None: as the device wants it.
    """
    # named twice is wanted once; by name, since two processes must not fill one folder
    chosen_tasks = list({t.name: t for t in (t if isinstance(t, Task) else get_task(t) for t in tasks)}.values())
    found = (each if isinstance(each, Algorithm) else get_algorithm(each) for each in algorithms)
    chosen = list({each.name: each for each in found}.values())
    results = Path(results).absolute()  # workers keep the folder in which they were started
    by_algorithm = split_settings(settings or {}, chosen)
    for name, number in (("steps", steps), ("--evaluate-every", evaluate_every), ("--episodes", evaluation_episodes)):
        if number is not None and number < 1:
            raise UserError(f"{name}={number}: ask for at least 1")
    if evaluation_processes is not None and evaluation_processes < 0:
        raise UserError(f"--evaluation-processes={evaluation_processes}: ask for 0 or more")
    if not seeds:
        raise UserError("no seeds: --seeds takes a count of at least 1, or a list such as 0,1,5 or 21-23")
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds {', '.join(map(str, seeds))}: each must be named once and be 0 or more")
    if batch.file is not None and batch.rows is not None:
        raise UserError(f"--rows {batch.rows} is for regenerated batches: leave it out with --batch {batch.file}")
    if batch.file is not None and len(chosen_tasks) != 1:
        raise UserError(f"--batch {batch.file} belongs to one task: name it with --tasks")
    device = resolve_device(device)
    configs = {
        (task.name, each.name): configure(each, task, suite, by_algorithm[each.name])
        for task in chosen_tasks
        for each in chosen
    }
    requests = {task.name: dataset_request(batch, task, suite) for task in chosen_tasks}
    missing = {task.name: reason for task in chosen_tasks if (reason := why_missing(task, requests[task.name]))}
    if missing:
        here = ",".join(task.name for task in chosen_tasks if task.name not in missing)
        others = f"; the others run with --tasks {here}" if here else ""
        why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise UserError(f"no batch on this machine for {why}; --batch FILE takes one of your own{others}")
    budgets = {
        task.name: steps or (suite.steps.get(task.name) if suite else None) or task.evaluation.steps for task in chosen_tasks
    }
    compilations = {name: decide(compiled, budget, device) for name, budget in budgets.items()}
    cells = []
    for task in chosen_tasks:
        data = load_dataset(task, requests[task.name])
        if data.dynamics_rows.sum() < 2:
            raise UserError(f"the batch of {task.name} needs at least two rows to learn from")
        described = describe_dataset(data)
        for each in chosen:
            config, overrides = configs[task.name, each.name]
            cells.append(
                Cell(
                    task=task,
                    algorithm=each,
                    config=config,
                    overrides=overrides,
                    dataset=requests[task.name],
                    digest=described["digest"],
                    steps=budgets[task.name],
                    seeds=tuple(seeds),
                    results=results,
                    device=device,
                    compilation=compilations[task.name],
                    evaluate_every=evaluate_every,
                    evaluation_episodes=evaluation_episodes,
                    evaluation_processes=evaluation_processes,
                    data=described,
                )
            )
    return Plan(tuple(cells), results)


def dataset_request(batch: DatasetRequest, task: Task, suite: Suite | None) -> DatasetRequest:
    """What the user asked for, and the suite's choice where the user made none."""
    if suite is None:
        return batch
    rows = suite.rows.get(task.name) if batch.rows is None else batch.rows
    return replace(batch, source=suite.data if batch.source == "auto" else batch.source, rows=rows)


def configure(
    algorithm: Algorithm, task: Task, suite: Suite | None, user: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The full configuration of a cell, and which settings of it were chosen beyond the task's own."""
    known = algorithm.defaults()
    of_suite = {k: v for k, v in (suite.settings.get(task.name, {}) if suite else {}).items() if k in known}
    usual = algorithm.configure(task_settings(algorithm, task.name))
    config = algorithm.configure(task_settings(algorithm, task.name), of_suite, user)
    return config, {key: value for key, value in config.items() if value != usual[key]}


def split_settings(settings: Mapping[str, Any], algorithms: Sequence[Algorithm]) -> dict[str, dict[str, Any]]:
    """ "mopo.key" settings by algorithm; "all.key" goes to every algorithm that has the key."""
    split: dict[str, dict[str, Any]] = {each.name: {} for each in algorithms}
    for name, value in settings.items():
        prefix, _, key = name.partition(".")
        if prefix == "all" and key:
            takers = [each.name for each in algorithms if key in each.defaults()]
            if not takers:
                known = {each_key for each in algorithms for each_key in each.defaults()}
                raise unknown("setting", key, known, "mopo-bench list algorithms --json")
            for taker in takers:
                split[taker][key] = value
        elif prefix in split and key:
            split[prefix][key] = value
        else:
            get_algorithm(prefix)
            raise UserError(f"--set {name}: {prefix} is not among the algorithms of this run ({', '.join(split)})")
    return split


def resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise UserError(f"unknown device {device!r}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu, or install torch's CUDA build")
    return device


def state_of(cell: Cell, record: dict[str, Any] | None) -> str:
    """missing, running (begun, not finished), failed, diverged or done, at the cell's number of steps."""
    return "missing" if record is None else state_at(record["state"], record["steps"], cell.steps)


def state_at(state: str, steps: int, wanted: int) -> str:
    """A run is done at N when it was evaluated at N or later, whatever came after; a divergence stays one."""
    if state == "diverged":
        return state
    if steps >= wanted:
        return "done"
    return "running" if state == "done" else state


def pending(plan: Plan) -> list[tuple[Cell, int, int]]:
    """The (cell, seed, steps done) still to be run; a divergence is a result, a failure is tried again."""
    store, todo = Store(plan.results), []
    for cell, seed in plan.seeds():
        record = store.read_record(cell.seed_folder(seed))
        if state_of(cell, record) not in ("done", "diverged"):
            todo.append((cell, seed, record["steps"] if record else 0))
    return todo


def missing_fits(results: Path, todo: Sequence[tuple[Cell, int, int]]) -> list[tuple[Cell, str, int]]:
    """The (cell, stage, seed) still to be fitted for these runs; of cells that share a fit the first."""
    fits: dict[Path, tuple[Cell, str, int]] = {}
    for cell, seed, _ in todo:
        for stage in cell.algorithm.stages:
            fits.setdefault(Store(results).stage_path(stage, cell.stage_identity(stage), seed), (cell, stage, seed))
    return [fit for path, fit in fits.items() if not path.exists()]


def turn(cell: Cell, done: int) -> tuple[bool, int]:
    """By this runs are ordered: first those that wait for no fit, the longest first."""
    return bool(cell.algorithm.stages), done - cell.steps


def execute(plan: Plan, jobs: int, group: int = 1, console: Console | None = None) -> dict[str, list[str]]:
    """Runs what is missing of the plan; gives the names of the runs by the state they ended in.

    Fits that several cells share come first, then the runs that need none, so that a worker seldom waits for one.
    jobs: worker processes, one thread each; with one job the work is done in this process. group: seeds trained together.
    Raises WriteError in the end where a file could not be written.
    """
    store = Store(plan.results)
    store.prepare()
    for cell in plan.cells:
        store.write_cell(cell.folder, cell.describe())
    remember(plan)
    todo = pending(plan)
    for cell, seed in plan.seeds():
        # a failure that is tried again is none any more; what was stopped past the steps now wanted is done
        record = store.read_record(cell.seed_folder(seed))
        state = "running" if record is None else state_of(cell, record)
        state = "running" if state == "failed" else state
        if record is not None and record["state"] != state:
            store.write_record(cell.seed_folder(seed), record | {"state": state, "traceback": None})
    tasks = [joblib.delayed(_refusal)(_fit, *fit) for fit in missing_fits(plan.results, todo)]
    tasks += [joblib.delayed(_refusal)(run_cell, cell) for cell in groups(todo, group)]
    refusals: list[WriteError] = []
    wanted = (task for task in tasks if not refusals)  # on a full disk nothing more is begun
    outcome: dict[str, list[str]] = {}
    with progress(plan, todo, console), workers(jobs):
        for refusal in joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)(wanted):
            if refusal:
                refusals.append(refusal)
    if refusals:
        raise refusals[0]
    for cell, seed, _ in todo:
        state = state_of(cell, store.read_record(cell.seed_folder(seed)))
        outcome.setdefault(state, []).append(f"{cell.task.name}/{cell.algorithm.name}/seed-{seed}")
    return outcome


def _refusal(work: Callable[..., None], *arguments: Any) -> WriteError | None:
    """Does the work, in a worker. WriteError is handed back: were it raised, joblib would kill the other workers in the midst of a file."""
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


def groups(todo: Sequence[tuple[Cell, int, int]], group: int) -> list[Cell]:
    """Cells of at most `group` seeds that stand at the same step, in the order in which they are run."""
    waiting: dict[tuple[int, int], list[int]] = {}
    cells = {id(cell): cell for cell, _, _ in todo}
    for cell, seed, _ in todo:
        # the record may be a moment behind its checkpoint; groups are formed from what will be loaded
        checkpoint = Store(cell.results).load_checkpoint(cell.seed_folder(seed))
        waiting.setdefault((id(cell), checkpoint["step"] if checkpoint else 0), []).append(seed)
    made = [
        (cells[key].with_seeds(*seeds[first : first + group]), done)
        for (key, done), seeds in waiting.items()
        for first in range(0, len(seeds), group)
    ]
    order = sorted(made, key=lambda each: turn(*each))
    return [cell for cell, _ in order]


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
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
            raise


@contextmanager
def progress(plan: Plan, todo: Sequence[tuple[Cell, int, int]], console: Console | None) -> Iterator[None]:
    """A bar over gradient steps with the time left, read from the run records; quiet where output is no terminal."""
    if console is None or not console.is_terminal or not todo:
        yield
        return
    store, done = Store(plan.results), threading.Event()
    total = sum(cell.steps - steps for cell, _, steps in todo)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task(f"{len(todo)} runs", total=total)

        def watch() -> None:
            while not done.wait(1.0):
                steps = finished = 0
                for cell, seed, before in todo:
                    record = store.read_record(cell.seed_folder(seed)) or empty_record(seed)
                    steps += max(record["steps"] - before, 0)
                    finished += state_of(cell, record) in ("done", "diverged", "failed")
                bar.update(line, completed=steps, description=f"{finished}/{len(todo)} runs")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            bar.update(line, completed=total)


def remember(plan: Plan) -> None:
    """Adds the plan to `plan.json`, so that `status` can tell what is missing."""
    path = plan.results / "plan.json"
    with filelock.FileLock(path.with_suffix(".lock")):  # several commands may fill one folder
        known = read_plan(plan.results)
        for cell, seed in plan.seeds():
            key = str(cell.seed_folder(seed).relative_to(plan.results))
            about = {"task": cell.task.name, "algorithm": cell.algorithm.name, "seed": seed, "steps": 0}
            entry = known.setdefault(key, about)
            entry["steps"] = max(entry["steps"], cell.steps)
        write_json(path, known)


def read_plan(results: Path) -> dict[str, Any]:
    path = results / "plan.json"
    return read_json(path, "delete it; the next run writes it again") if path.exists() else {}


def status(results: Path) -> list[dict[str, Any]]:
    """One row per planned or recorded run: task, algorithm, seed, state, steps, of (steps asked for), seconds, message."""
    planned = read_plan(results)
    rows = {key: {**entry, "of": entry["steps"], "steps": 0, "state": "missing"} for key, entry in planned.items()}
    for run in Store(results).runs():
        key = f"{run.task}/{run.algorithm}/{run.identity}/seed-{run.seed}"
        row = rows.setdefault(key, {"task": run.task, "algorithm": run.algorithm, "seed": run.seed, "of": run.steps})
        row |= {"steps": run.steps, "state": state_at(run.state, run.steps, row["of"])}
        row["data"] = run.cell["data"]["label"]
        row["seconds"] = run.record.get("seconds")
        if run.record.get("traceback"):
            row["message"] = run.record["traceback"].strip().splitlines()[-1]
    return list(rows.values())


def load_runs(results: Path) -> list[Run]:
    return list(Store(results).runs())


def default_jobs(plan: Plan) -> int:
    """A process per core, or one for a GPU: several would share it in turns."""
    return 1 if any(cell.device != "cpu" for cell in plan.cells) else usable_cores()
