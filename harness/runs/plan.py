"""From a request to cells: everything is looked up and checked before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gymnasium.envs.registration import EnvSpec

from ...algorithms.learning.fast.compiling import decide
from ...algorithms.learning.registry import Algorithm, all_algorithms, get_algorithm, task_settings
from ...common.errors import UserError, in_words, several, unknown
from ...tasks.data.request import DatasetRequest
from ...tasks.data.sources import file_to_fetch, load_dataset, to_fetch, why_missing
from ...tasks.registry import all_tasks, get_task
from ...tasks.simulation import checked_specification
from ...tasks.task import Task
from ...tasks.true_step import true_step
from ..collection.doubts import doubts
from ..collection.probes import probe_returns
from .cell import Cell, describe_dataset
from .ledger import Ledger
from .machine import memory, usable_cores
from .reading import Damaged
from .records import Store, plain
from .request import RunRequest, Setting, of_cell, option_of


@dataclass(frozen=True)
class Plan:
    """A grid: one cell per task and algorithm, each with all its seeds."""

    cells: tuple[Cell, ...]
    results: Path

    @cached_property
    def ledger(self) -> Ledger:
        """What state its runs are in; read once, and anew after they were run."""
        return Ledger(self.results)

    def seeds(self) -> Iterator[tuple[Cell, int]]:
        for cell in self.cells:
            for seed in cell.seeds:
                yield cell, seed

    def undone(self) -> list[tuple[Cell, int]]:
        """The runs that failed, diverged or are not finished."""
        return [(cell, seed) for cell, seed in self.seeds() if self.ledger.state(cell, seed) != "done"]

    @property
    def doubts(self) -> list[str]:
        """A line for each thing in which a dataset does not fit its task."""
        found = (f"{cell.data['label']}: {doubt}" for cell in self.cells for doubt in cell.data.get("doubts", ()))
        return list(dict.fromkeys(found))

    @property
    def of_other_code(self) -> list[str]:
        """A line for each cell whose results folder holds runs that differ from it in code alone."""
        lines = list[str]()
        kept = {place: list(_kept(Store(self.results), place)) for place in {cell.folder.parent for cell in self.cells}}
        for cell in self.cells:
            mine = plain(cell.describe())
            for folder, runs, theirs in kept[cell.folder.parent]:
                if folder != cell.folder and (changed := _changed_code(theirs, mine)):
                    lines.append(
                        f"{cell.task.name} {cell.algorithm.name}: other code ({in_words(changed)}) than that of "
                        f"{several(runs, 'run')} in {folder}, which keep a column of their own"
                    )
        return lines

    @property
    def usual_jobs(self) -> int:
        """A process per core, or one for a GPU: several would share it in turns."""
        return 1 if any(cell.device != "cpu" for cell in self.cells) else usable_cores()


def _kept(store: Store, place: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """The cells in the folder of an algorithm that have runs: their folders, how many these are, and what cell.json says."""
    for folder in sorted(place.glob("*")):
        if runs := len(list(folder.glob("seed-*"))):
            with suppress(Damaged):
                yield folder, runs, store.read_cell(folder)


def _changed_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The parts whose code differs between what two cell.json say, where nothing else does."""
    versions, found = other["versions"], list[str]()
    found += [f"its {name}" for name in versions if one["versions"].get(name) != versions[name]]
    rules, others = dict(one.get("rules", {})), dict(other["rules"])
    for rule, name in {"termination": "the termination", "environment_code": "the environment"}.items():
        before, now = str(rules.pop(rule, "")), str(others.pop(rule, ""))
        found += [name] * (before != now)
        if rule == "termination" and before.partition(" (version")[0] != now.partition(" (version")[0]:
            return []  # another rule, not another code of it
    same = one.get("settings") == other["settings"] and rules == others
    return found if same and all(one["data"][name] == other["data"][name] for name in ("digest", "window")) else []


def run_order(cell: Cell, steps_done: int) -> tuple[bool, int]:
    """Runs are begun by this key: first those that wait for no fit, the longest first."""
    return bool(cell.algorithm.stages), steps_done - cell.steps


def make_plan(request: RunRequest, results: Path | str) -> Plan:
    """The cells of a request, with their datasets loaded once. Raises UserError for what cannot be run here."""
    tasks = chosen_tasks(request)
    algorithms = [each if isinstance(each, Algorithm) else get_algorithm(each) for each in request.algorithms]
    device = resolve_device(request.device)
    configs = {(task.name, each.name): configurations(each, task, request, algorithms) for task in tasks for each in algorithms}
    check_cell_names(tasks, algorithms, request)
    wanted = [(task, each) for task, each in itertools.product(tasks, algorithms) if not is_left_out(request, task, each)]
    refuse_missing_datasets([(task, dataset_request(request, task.name, each.name)) for task, each in wanted], request.data)
    cells = []
    for task, specification in [(task, checked_specification(task)) for task in tasks]:
        probed, facts = probe_returns(task, specification), dict[DatasetRequest, dict[str, Any]]()
        chosen = [(each, *configured) for each in algorithms for configured in configs[task.name, each.name]]
        for algorithm, config, overrides in chosen:
            if is_left_out(request, task, algorithm):
                continue
            dataset = dataset_request(request, task.name, algorithm.name)
            if dataset not in facts:
                facts[dataset] = facts_of(task, dataset, specification) | probed
            refuse_another_dataset(facts[dataset], of_cell(request.data_digest, task.name, algorithm.name))
            steps = of_cell(request.steps, task.name, algorithm.name) or task.evaluation.steps
            cells.append(
                Cell(
                    task=task,
                    algorithm=algorithm,
                    config=config,
                    overrides=overrides,
                    dataset=dataset,
                    data=facts[dataset],
                    steps=steps,
                    seeds=request.seeds,
                    results=Path(results).absolute(),  # workers keep the folder in which they were started
                    evaluate_every=of_cell(request.evaluate_every, task.name, algorithm.name) or task.evaluation.evaluate_every,
                    episodes=request.episodes or task.evaluation.episodes,
                    device=device,
                    compilation=decide(request.compile, steps, device),
                    capture=request.capture,
                    evaluation_processes=request.evaluation_processes,
                    specification=specification,
                )
            )
    if not cells:
        by_grid = [name in request.of_grid for name in request.without]
        whose = " and ".join(["the suite or grid"] * any(by_grid) + ["--without"] * (not all(by_grid)))
        raise UserError(
            f"left out by {whose}: {', '.join(request.without)}, and nothing is left to run: name other tasks or algorithms"
        )
    for cell in cells:
        if cell.needs_simulator:
            true_step(cell.task, cell.specification)  # a UserError where there is none
        refuse_what_memory_cannot_hold(cell)
    return Plan(tuple(cells), Path(results).absolute())


EVALUATION_BYTES = 1000  # that a record grows by, at the least


def refuse_what_memory_cannot_hold(cell: Cell) -> None:
    """UserError for settings, or a number of evaluations, that need more memory than this machine has."""
    where, there = f"{cell.task.name}, {cell.algorithm.name}", memory()

    def refuse_above(what: str, needed: int) -> None:
        if needed > there:
            raise UserError(f"{where}: {what} takes at least {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB here")

    for what, needed in cell.algorithm.least_bytes(cell.config).items():
        refuse_above(what, needed)
    evaluations = cell.steps // cell.evaluate_every
    refuse_above(
        f"the record of {evaluations:,} evaluations, of {cell.steps:,} steps every {cell.evaluate_every:,},",
        EVALUATION_BYTES * evaluations,
    )


def chosen_tasks(request: RunRequest) -> list[Task]:
    """The tasks of a request, with the parameters that it sets: one for each combination of values that these sweep over."""
    tasks = {task.name: [task] for task in (each if isinstance(each, Task) else get_task(each) for each in request.tasks)}
    # the last of those of one name counts; a termination last, since parameters may bring their own
    settings = {setting.name: setting for setting in request.task_set}
    for setting in sorted(settings.values(), key=lambda each: each.name.endswith(".termination")):
        name, dot, parameter = setting.name.partition(".")
        if not dot or name not in tasks:
            get_task(name)
            if dot and setting.of_grid:
                continue
            raise UserError(
                f"{option_of('task_set')} {setting.name}={setting.value}: expected TASK.PARAMETER=VALUE "
                f"with a task of this run ({', '.join(tasks)})"
            )
        tasks[name] = [variant for task in tasks[name] for variant in task.variants(parameter, setting.value)]
    return [variant for variants in tasks.values() for variant in variants]


def check_cell_names(tasks: list[Task], algorithms: list[Algorithm], request: RunRequest) -> None:
    """Raises UserError where a field that goes by task and algorithm names none that there is, or, unless it is a grid's, none
    of this run: a slip of the pen would leave the others as they are."""
    here = ({task.name for task in tasks}, {each.name for each in algorithms})
    known = ({*all_tasks(), *here[0]}, {*all_algorithms(), *here[1]})
    if whole := [name for name in request.without if ":" not in str(name)]:
        raise UserError(f"--without {whole[0]}: expected TASK:ALGORITHM; --tasks and --algorithms name what is run")
    for field in ("steps", "window", "rows", "data_digest", "evaluate_every", "without"):
        value = getattr(request, field)
        for name in value if isinstance(value, Mapping | tuple) else ():
            if not _names_a_cell(name, *known):
                raise unknown(f"task or algorithm of {option_of(field)}", name, known[0] | known[1], "mopo-bench list tasks")
            if not _names_a_cell(name, *here) and field not in request.of_grid and name not in request.of_grid:
                said = f"{name}={value[name]}" if isinstance(value, Mapping) else name
                raise UserError(
                    f"{option_of(field)} {said}: not among the tasks and algorithms of this run "
                    f"({', '.join(sorted(here[0]))}; {', '.join(sorted(here[1]))})"
                )


def _names_a_cell(name: str, tasks: set[str], algorithms: set[str]) -> bool:
    """Whether "TASK", "ALGORITHM", "TASK:ALGORITHM" or "*" is of these."""
    task, colon, algorithm = str(name).partition(":")
    return (task in tasks and algorithm in algorithms) if colon else name in {"*", *tasks, *algorithms}


def is_left_out(request: RunRequest, task: Task, algorithm: Algorithm) -> bool:
    return f"{task.name}:{algorithm.name}" in request.without


def dataset_request(request: RunRequest, task: str, algorithm: str) -> DatasetRequest:
    """Which dataset of the task is asked for, and which of its rows."""
    rows, window = (of_cell(each, task, algorithm) for each in (request.rows, request.window))
    return DatasetRequest(request.data, rows, window or "all", request.dataset, request.data_seed, request.clip_actions)


def facts_of(task: Task, request: DatasetRequest, specification: EnvSpec | None = None) -> dict[str, Any]:
    """What a run record says of its data; a window that leaves nothing out is none. Raises UserError where there is too little.

    A file of the user's is held against the simulator of `specification`, and an environment from outside against the task.

    Of a window that does, "whole" says what the whole dataset is, by which runs on several of its windows are set side by side.
    """
    dataset = load_dataset(task, request)
    facts = describe_dataset(dataset)
    if facts["dynamics_rows"] < 2:
        raise UserError(f"the dataset of {task.name} needs at least two rows to learn from")
    told = {"doubts": found} if (found := doubts(dataset, task, specification)) else {}
    if request.window != "all":
        whole = describe_dataset(load_dataset(task, replace(request, window="all")))
        if whole["digest"] == facts["digest"]:
            return whole | told
        facts["whole"] = {name: whole[name] for name in ("rows", "digest", "return_mean", "return_max")}
    return facts | told


def refuse_missing_datasets(wanted: Sequence[tuple[Task, DatasetRequest]], source: str) -> None:
    """UserError that names the tasks without a dataset, and why; the files that D4RL has are named together."""
    missing: dict[str, str] = {}
    files: dict[str, str] = {}
    for task, asked in wanted:
        if file := file_to_fetch(task, asked):
            files[task.name] = file
        elif reason := why_missing(task, asked):
            missing[task.name] = reason
    if missing or files:
        here = ",".join(dict.fromkeys(task.name for task, _ in wanted if task.name not in missing | files))
        others = f"; the others run with --tasks {here}" if here else ""
        said = [f"{name}: {reason}" for name, reason in missing.items()]
        if files:
            said.insert(0, f"{in_words(files)}: {to_fetch(files, source)}")
        why = "; ".join(said)
        raise UserError(f"no dataset on this machine for {why}; --dataset FILE takes one of your own{others}")


def refuse_another_dataset(facts: Mapping[str, Any], wanted: str | None) -> None:
    """UserError where the digest of a dataset, by what `facts_of` says, does not begin as it is wanted to."""
    if wanted and not facts["digest"].startswith(wanted):
        raise UserError(
            f"--data-digest {wanted}: {facts['label']} has the digest {facts['digest'][: len(wanted)]} here, of other data "
            f"({facts['from']}; rows: {facts['rows']:,}); leave the option out to take it nonetheless"
        )


Configured = tuple[dict[str, Any], dict[str, Any]]  # a full configuration, and what was chosen in it beyond the task's own


def configurations(algorithm: Algorithm, task: Task, request: RunRequest, algorithms: list[Algorithm]) -> list[Configured]:
    """One configuration for each combination of the values that settings sweep over; one where none has several.

    What is said beside a grid wins over the grid; then the more specific setting over the more general; then the later.
    """
    chosen = chosen_settings(algorithm, task, request, algorithms)
    of_task = task_settings(algorithm, task.name)
    usual, made = algorithm.configure(of_task), dict[str, Configured]()
    for values in itertools.product(*(algorithm.several(key, value) for key, value in chosen.items())):
        config = algorithm.configure(of_task, dict(zip(chosen, values, strict=True)))
        made[repr(config)] = config, {key: value for key, value in config.items() if value != usual[key]}
    return list(made.values())


def chosen_settings(algorithm: Algorithm, task: Task, request: RunRequest, algorithms: list[Algorithm]) -> dict[str, Any]:
    """The settings of a request that are meant for this algorithm on this task, by key."""
    layers: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    for setting in request.settings:
        meant = meant_for(setting, request, algorithms)
        if meant is None:
            continue
        key, for_task, for_algorithm = meant
        has_key = for_algorithm is not None or key in algorithm.defaults()
        if for_task in (None, task.name) and for_algorithm in (None, algorithm.name) and has_key:
            rank = (setting.layer, for_task is not None, for_algorithm is not None)
            layers.setdefault(rank, {})[key] = setting.value
    return {key: value for rank in sorted(layers) for key, value in layers[rank].items()}


def meant_for(setting: Setting, request: RunRequest, algorithms: list[Algorithm]) -> tuple[str, str | None, str | None] | None:
    """The key of a setting, the task and the algorithm that it names or None; None for one of a grid that nothing here takes.

    Raises UserError for a key, a task or an algorithm that there is not, and for one that is said and is not in this run.
    """
    tasks, names = [name_of(each) for each in request.tasks], {each.name: each for each in algorithms}
    if setting.task is not None and setting.task not in tasks:
        get_task(setting.task)
        if setting.of_grid:
            return None
        raise UserError(f"--set {setting.name}: {setting.task} is not among the tasks of this run ({', '.join(tasks)})")
    prefix, dot, rest = setting.key.partition(".")
    if dot and prefix in names:
        return rest, setting.task, prefix
    key = rest if dot and prefix == "all" else setting.key
    known = {each_key for each in algorithms for each_key in each.defaults()}
    if key in known:
        return key, setting.task, None
    if any(key in each.defaults() for each in all_algorithms().values()):
        if setting.of_grid:
            return None
        raise UserError(f"--set {setting.name}: none of the algorithms of this run ({', '.join(names)}) has it")
    if dot and prefix != "all" and not any(each_key.startswith(f"{prefix}.") for each_key in known):
        get_algorithm(prefix)
        if setting.of_grid:
            return None
        raise UserError(f"--set {setting.name}: {prefix} is not among the algorithms of this run ({', '.join(names)})")
    raise unknown("setting", key, known, "mopo-bench list algorithms --json")


def name_of(named: Any) -> str:
    return getattr(named, "name", named)


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda". Raises UserError where CUDA is asked for and torch sees none."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu, or install torch's CUDA build")
    return device
