"""Curves of another code as runs of a results folder: records that say whose they are, and on which data they were trained."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...algorithms.learning.registry import all_algorithms
from ...common.errors import UserError, seeds_in_words
from ...common.plugins import checked_name
from ...common.settings import StepCount, converted
from ...tasks.simulation import checked_specification
from ...tasks.task import Task
from ..collection.probes import probe_returns
from .machine import describe_machine
from .plan import chosen_tasks, dataset_request, facts_of, refuse_missing_datasets
from .reading import is_number, seed_of
from .records import Run, Store, identity_hash, plain
from .request import RunRequest

Curve = dict[int, list[float]]  # by step, the returns of an evaluation's episodes, or their mean alone
COLUMNS = "seed, step (of gradients), and return or score, the mean of an evaluation's episodes; with episode, of that episode"


def import_runs(
    file: Path | str,
    task: str,
    algorithm: str,
    code: str,
    *,
    data: str | None = None,
    window: str | None = None,
    rows: int | str | None = None,
    data_seed: int | None = None,
    dataset: Path | str | None = None,
    clip_actions: bool | None = None,
    task_set: Any = None,
    results: Path | str = "runs",
) -> list[Run]:
    """Takes the learning curves of another code into a results folder, as `mopo-bench import` does, and gives their runs.

    Tables, pictures, the report and exports show them beside other runs on the same data, and say that they were imported.
    Their evaluations do not meet the starts that runs here meet, so that no comparison pairs their seeds.

    file: CSV with a row for each evaluation: `seed`, `step` (of gradients), and `return`, the mean of its episodes, or `score`,
    the same normalised; with a column `episode` each row is one episode. Other columns are not read. task: a registered one.
    algorithm: a name that is not registered here. code: what made the curves, with its version. data ("d4rl", "d4rl-v2" or
    "regenerated"), window, rows, data_seed, clip_actions: what they were trained on, as `run` takes it, or dataset: the file;
    it must be on this machine, since its digest tells which runs share a row. task_set: parameters of the task, as in `run`.
    results: the folder of run records.

    A run that is there already with these numbers is left alone. Raises UserError, before anything is written, for what is none
    of these, and for a run that is there with other numbers.
    """
    if algorithm in all_algorithms():
        raise UserError(f"--algorithm {algorithm} is registered here: give theirs another name, such as {algorithm}-theirs")
    checked_name("algorithm", algorithm, {}, "", replace=False)
    if not code.strip():
        raise UserError("--code: say what made the curves, and in which version")
    if dataset is None and data in (None, "auto"):
        raise UserError("say what they were trained on: --data d4rl, d4rl-v2 or regenerated, or --dataset FILE")
    asked: dict[str, Any] = {"data": data, "window": window, "rows": rows, "data_seed": data_seed, "clip_actions": clip_actions}
    request = RunRequest.of(tasks=task, algorithms=algorithm, dataset=dataset, task_set=task_set, **asked)
    variants = chosen_tasks(request)
    if len(variants) != 1:
        raise UserError("curves are of one task with one value of each parameter: import those of another by themselves")
    (learned,) = variants
    path, store = Path(file), Store(results)
    read = _bytes_of(path)
    curves = read_curves(read, path.name, learned)
    cell = _cell(learned, algorithm, code, request)
    origin = {"file": path.name, "sha256": hashlib.sha256(read).hexdigest()}
    records = {seed: _record(seed, curve, origin) for seed, curve in curves.items()}
    folder = store.cell_folder(learned.name, algorithm, cell["identity"])
    new = [seed for seed, record in records.items() if _is_new(store, folder / f"seed-{seed}", record)]
    store.prepare()
    store.write_cell(folder, cell)
    for seed in new:
        store.write_record(folder / f"seed-{seed}", records[seed])
    return [run for run in store.runs(learned.name, algorithm) if run.identity == cell["identity"] and run.seed in records]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a CSV file with {COLUMNS}") from None


def read_curves(read: bytes, name: str, task: Task) -> dict[int, Curve]:
    """By seed the curve in a CSV file, as returns of the task. Raises UserError, with the line, for what is no such file."""
    try:
        lines = csv.reader(io.StringIO(read.decode("utf-8-sig"), newline=""), strict=True)
        head = [each.strip() for each in next(lines, [])]
        rows = [(lines.line_num, row) for row in lines if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name} cannot be read ({error}): give a CSV file with {COLUMNS}") from None
    given = [each for each in ("return", "score") if each in head]
    if not {"seed", "step"} <= set(head) or len(given) != 1 or len(set(head)) < len(head):
        raise UserError(f"{name} has the columns {', '.join(head) or 'of an empty file'}: give it {COLUMNS}")
    if given == ["score"] and task.references is None:
        raise UserError(f"{name}: {task.name} has no references for a score; give it a column return")
    if not rows:
        raise UserError(f"{name} has no rows: give it one for each evaluation")
    found: dict[int, dict[int, dict[int | None, float]]] = {}
    first: dict[tuple[int, int, int | None], int] = {}
    for number, row in rows:
        where = f"{name}, line {number}"
        if len(row) != len(head):
            raise UserError(f"{where}: {len(row)} fields under {len(head)} columns")
        fields = dict(zip(head, row, strict=True))
        seed, step = (converted(fields[each].strip(), StepCount, f"{where}: {each}") for each in ("seed", "step"))
        episode = converted(fields["episode"].strip(), StepCount, f"{where}: episode") if "episode" in head else None
        value = converted(fields[given[0]], float, f"{where}: {given[0]}")
        if given == ["score"] and task.references is not None:
            value = task.references.of_score(value)
        if not is_number(value) or seed_of(f"seed-{seed}") is None:
            raise UserError(f"{where}: no seed or return is as large as that")
        if (before := first.setdefault((seed, step, episode), number)) != number:
            of_one = "" if "episode" in head else "; of episodes tell a column episode"
            raise UserError(f"{where}: seed {seed} has step {step:,} in line {before} already{of_one}")
        found.setdefault(seed, {}).setdefault(step, {})[episode] = value
    curves = {
        seed: {step: list(episodes.values()) for step, episodes in sorted(steps.items())}
        for seed, steps in sorted(found.items())
    }
    seeds = list(curves)
    for place, seed in enumerate(seeds):
        if same := [each for each in seeds[place + 1 :] if curves[each] == curves[seed]]:
            raise UserError(f"{name}: {seeds_in_words([seed, *same])} have the same numbers, as one run would: name it once")
    return curves


def _cell(task: Task, algorithm: str, code: str, request: RunRequest) -> dict[str, Any]:
    """What `cell.json` says of them."""
    asked, specification = dataset_request(request, task.name, algorithm), checked_specification(task)
    refuse_missing_datasets([(task, asked)], request.data)
    facts = facts_of(task, asked, specification) | probe_returns(task, specification)
    rules, decisive = task.identity(), {"algorithm": algorithm, "versions": {"code": code.strip()}, "settings": {}}
    made = {
        **decisive,
        "task": task.name,
        "identity": identity_hash({**rules, **decisive, "digest": facts["digest"]}),
        "config": {},
        "overrides": {},
        "data": facts,
        "dataset": asked.describe(),
        "rules": rules,
        "package": describe_machine()["versions"]["mopo-bench"],
        "imported": True,
    }
    return plain(made)  # type: ignore[no-any-return]


def _record(seed: int, curve: Curve, origin: dict[str, str]) -> dict[str, Any]:
    """What `record.json` says of one seed."""
    return {
        "seed": seed,
        "state": "done",
        "steps": max(curve),
        "evaluations": [
            {
                "step": step,
                "return_mean": math.fsum(returns) / len(returns),
                "return_std": float(np.std(returns, ddof=1)) if len(returns) > 1 else None,
                "returns": returns,
            }
            for step, returns in curve.items()
        ],
        "imported": {**origin, "date": datetime.now(UTC).isoformat(timespec="seconds")},
    }


def _is_new(store: Store, folder: Path, record: dict[str, Any]) -> bool:
    """Whether there is no such run. Raises UserError where there is one with other numbers."""
    there = store.read_record(folder) if folder.is_dir() else None
    if there is not None and there["evaluations"] != record["evaluations"]:
        raise UserError(f"{folder} holds this run with other numbers: take it away, or name another folder with --results")
    return there is None
