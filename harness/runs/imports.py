"""Curves of another code as runs of a results folder: records that say whose they are, and on which data they were trained."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...algorithms.learning.registry import all_algorithms
from ...common.errors import UserError, seeds_in_words
from ...common.plugins import checked_name
from ...tasks.simulation import checked_specification
from ...tasks.task import Task
from ..collection.probes import probe_returns
from .interrupts import interrupts_held
from .machine import describe_machine
from .plan import chosen_tasks, dataset_request, facts_of, refuse_missing_datasets
from .reading import is_count, is_number, printable
from .records import EPISODES, Run, Store, evaluated_alike, identity_hash, plain
from .request import RunRequest

Curve = dict[int, list[float]]  # by step, the returns of an evaluation's episodes, or their mean alone
COLUMNS = (
    "columns, separated by commas: seed, step (of gradients), and return or score, the mean of an evaluation's episodes; "
    "with a column episode, that of one episode"
)
LONGEST_CODE = 200  # characters: they stand under every table
APART = ("task", "env", "environment", "env_id", "env_name", "dataset", "algorithm", "algo", "agent", "method")  # if several
FRACTIONS, BEYOND = 1.5, 200.0  # scores none of which is farther from 0 are fractions, it seems; farther ones no scores


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
    the same normalised (D4RL's, an expert's is 100); with a column `episode` each row is one episode. Other columns are not
    read. task: a registered one. algorithm: a name that is not registered here. code: what made the curves, with its version.
    data ("d4rl", "d4rl-v2" or "regenerated"), window, rows, data_seed, clip_actions: what they were trained on, as `run` takes
    it, or dataset: the file; it must be on this machine, since its digest tells which runs share a row. task_set: parameters of
    the task, as in `run`. results: the folder of run records.

    A run that is there already with these numbers is left alone. Raises UserError, before anything is written, for what is none
    of these, and for a run that is there with other numbers.
    """
    same = [name for name in all_algorithms() if _letters(name) == _letters(algorithm)]
    if same:
        raise UserError(f"--algorithm {algorithm}: {same[0]} is registered here; give theirs another name, as {same[0]}-theirs")
    checked_name("algorithm", algorithm, {}, "", replace=False)
    if not code.strip() or len(code) > LONGEST_CODE:
        raise UserError(f"--code: say what made the curves, and in which version, in at most {LONGEST_CODE} characters")
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
    found = read_curves(read, path.name, learned)
    cell = _cell(learned, algorithm, code, request)
    origin = {"file": path.name, "sha256": hashlib.sha256(read).hexdigest(), EPISODES: "told" if found.episodes else "not told"}
    warnings = {"scores": said} if (said := _odd_scores(found.scores)) else {}
    records = {seed: _record(seed, curve, origin) | {"warnings": warnings} for seed, curve in found.curves.items()}
    for one, other in itertools.combinations(records, 2):
        if evaluated_alike(records[one]["evaluations"], records[other]["evaluations"]):
            raise UserError(f"{path.name}: {seeds_in_words([one, other])} have the same numbers, as one run has: name it once")
    folder = store.cell_folder(learned.name, algorithm, cell["identity"])
    new = _new(records, store, folder)
    store.prepare()
    with interrupts_held():  # a part of the seeds would look like all of them
        store.write_cell(folder, cell)
        for seed in new:
            store.write_record(folder / f"seed-{seed}", records[seed])
    return [run for run in store.runs(learned.name, algorithm) if run.identity == cell["identity"] and run.seed in records]


def _letters(name: str) -> str:
    """A name as the eye reads it: without case, hyphens and dots."""
    return "".join(filter(str.isalnum, name.casefold()))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a CSV file in UTF-8, with {COLUMNS}") from None


class Read(NamedTuple):
    """What a file holds: by seed its curve, in returns; the scores, if it has these; and whether it tells episodes apart."""

    curves: dict[int, Curve]
    scores: list[float]
    episodes: bool


def read_curves(read: bytes, name: str, task: Task) -> Read:
    """What is in a CSV file with curves of the task. Raises UserError, with the line, for what is no such file."""
    try:
        lines = csv.reader(io.StringIO(read.decode("utf-8-sig"), newline=""), strict=True)
        head = [each.strip().lower() for each in next(lines, [])]
        rows = [(lines.line_num, row) for row in lines if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name} cannot be read ({error}): give a CSV file in UTF-8, with {COLUMNS}") from None
    given = [each for each in ("return", "score") if each in head]
    if not {"seed", "step"} <= set(head) or len(given) != 1 or len(set(head)) < len(head):
        raise UserError(f"{name} has the columns {', '.join(head) or 'of an empty file'}: give it {COLUMNS}")
    references = task.references
    if given == ["score"] and references is None:
        raise UserError(f"{name}: {task.name} has no references for a score; give it a column return")
    if not rows:
        raise UserError(f"{name} has no rows: give it one for each evaluation")
    for column in (each for each in APART if each in head):
        if len(named := {row[head.index(column)].strip() for _, row in rows if len(row) == len(head)}) > 1:
            shown = ", ".join(sorted(printable(each, 40) for each in named)[:3])
            raise UserError(f"{name}: its column {column} has several values ({shown}, ...): give the curves of one")
    columns = [head.index(each) for each in ("seed", "step", *given)]
    of_episode = head.index("episode") if "episode" in head else None
    found: dict[int, dict[int, dict[int, float]]] = {}
    scores, first = list[float](), dict[tuple[int, int, int], int]()
    for number, row in rows:
        where = f"{name}, line {number}"
        if len(row) != len(head):
            raise UserError(f"{where}: {len(row)} fields under {len(head)} columns")
        seed, step, episode = (
            0 if column is None else _count(row[column], where, head[column]) for column in (*columns[:2], of_episode)
        )
        value = _number(row[columns[2]], where, given[0])
        if given == ["score"] and references is not None:
            scores.append(value)
            value = references.of_score(value)
        if (before := first.setdefault((seed, step, episode), number)) != number:
            of_one = "; of episodes tell a column episode" if of_episode is None else ""
            raise UserError(f"{where}: seed {seed} has step {step:,} in line {before} already{of_one}")
        found.setdefault(seed, {}).setdefault(step, {})[episode] = value
    curves = {
        seed: {step: list(episodes.values()) for step, episodes in sorted(steps.items())}
        for seed, steps in sorted(found.items())
    }
    if of_episode is not None:
        _refuse_odd_episodes(name, curves)
    return Read(curves, scores, of_episode is not None)


def _number(text: str, where: str, column: str) -> float:
    """A number as other programs write it, too: none of Python's own spellings."""
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not is_number(number):
        raise UserError(f"{where}: {column} {printable(text, 40)!r} is no number, with a point for decimals, of a usual size")
    return number


def _count(text: str, where: str, column: str) -> int:
    number = _number(text, where, column)
    if not number.is_integer() or not is_count(int(number)):
        raise UserError(f"{where}: {column} {printable(text, 40)!r} is no whole number of at least 0")
    return int(number)


def _refuse_odd_episodes(name: str, curves: Mapping[int, Curve]) -> None:
    """UserError for a column that counts episodes instead of telling them apart, and for an evaluation that lacks some."""
    if all(len(returns) == 1 for curve in curves.values() for returns in curve.values()):
        raise UserError(f"{name}: no evaluation has two episodes; leave the column episode out, if each row is an evaluation")
    for step in sorted({step for curve in curves.values() for step in curve}):
        counts = {seed: len(curve[step]) for seed, curve in curves.items() if step in curve}
        few, most = min(counts, key=lambda seed: counts[seed]), max(counts.values())
        if counts[few] < most:
            raise UserError(
                f"{name}: seed {few} has {counts[few]} episodes at step {step:,}, where another has {most}: cut off?"
            )


def _odd_scores(scores: Sequence[float]) -> str:
    """What is to be said of scores that look like others than D4RL's, of which 0 is random and 100 expert."""
    largest = max(map(abs, scores), default=FRACTIONS + 1)
    if largest <= FRACTIONS:
        return f"its scores, {min(scores):.3g} to {max(scores):.3g}, may be fractions: an expert's is 100 here, not 1"
    return f"its scores reach {largest:.4g}, and an expert's is 100: they may be returns" if largest > BEYOND else ""


def _cell(task: Task, algorithm: str, code: str, request: RunRequest) -> dict[str, Any]:
    """What `cell.json` says of them."""
    asked, specification = dataset_request(request, task.name, algorithm), checked_specification(task)
    refuse_missing_datasets([(task, asked)], request.data)
    facts = facts_of(task, asked, specification) | probe_returns(task, specification)
    rules, decisive = task.identity(), {"algorithm": algorithm, "versions": {"code": " ".join(code.split())}, "settings": {}}
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


def _new(records: Mapping[int, dict[str, Any]], store: Store, folder: Path) -> list[int]:
    """The seeds of these that the results do not hold. UserError where they are there otherwise, or under another name."""
    home, algorithm = folder.parent.parent, folder.parent.name
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    if taken := [name for name in names if name != algorithm and _letters(name) == _letters(algorithm)]:
        raise UserError(f"--algorithm {algorithm}: {home} holds {taken[0]}, which differs in no letter")
    there = {home / run.algorithm / run.identity / f"seed-{run.seed}": run.evaluations for run in store.runs(home.name)}
    new = []
    for seed, record in records.items():
        place, told = folder / f"seed-{seed}", _curve(record["evaluations"])
        if place.is_dir():
            store.read_record(place)  # which says so where it is damaged
        if place in there:
            if _curve(there[place]) != told:
                raise UserError(f"{place} holds this run with other numbers: delete it, or name another folder with --results")
            continue
        if same := [other for other, evaluations in there.items() if evaluated_alike(record["evaluations"], evaluations)]:
            raise UserError(f"seed {seed} has the numbers of {same[0]}, as one run would: import it once")
        new.append(seed)
    return new


def _curve(evaluations: Sequence[Mapping[str, Any]]) -> Curve:
    return {row["step"]: row["returns"] for row in evaluations}
