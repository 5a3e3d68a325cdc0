"""Tables of run records: the paper's two, with its numbers beside ours, and whatever was run.

An entry holds the seeds of one identity, never more (see `groups.grouped`); its column is named by `groups.labelled`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.errors import UserError, unknown
from ...tasks.registry import all_tasks
from ..runs.records import Run
from .comparisons import comparisons
from .formats import DAGGER, FORMATS, Entry, Table, span
from .groups import (
    SOURCES,
    DatasetKey,
    Group,
    by_dataset,
    dataset_names,
    grouped,
    groups_in,
    in_columns,
    in_unit,
    index_in,
    is_counted,
    labelled,
    last_step,
    score_of,
    unit_of,
    without_task,
)
from .notes import footnotes
from .paper import DATASET_COLUMNS, HEADINGS, LAYOUTS, REFERENCE, paper_table, swapped_cells, tasks_of
from .statistics import aggregate, mean, mean_interval, standard_deviation

TABLES = {  # what each shows, in a line
    **{name: layout.title for name, layout in LAYOUTS.items()},
    "scores": "every task and algorithm that was run, and how one compares with the others",
}


def render(
    name: str,
    runs: Iterable[Run],
    folder: Path | str,
    format: str = "text",
    metric: str = "last",
    reference: str = REFERENCE,
) -> Any:
    """Table `name` of `TABLES` from the runs in `folder`, as text of that format of `FORMATS`; "text" is a list for rich.

    Beside the scores stand the comparisons of `reference` with the others; as JSON the scores are one object a run, as CSV
    they stand alone.
    """
    for kind, choice, choices in (("table", name, TABLES), ("format", format, FORMATS)):
        if choice not in choices:
            raise unknown(kind, choice, choices, "mopo-bench table --help")
    runs = list(runs)
    if name in LAYOUTS:
        if reference != REFERENCE:
            raise UserError(f"{name} stands beside the paper's numbers: only the table of scores has a reference")
        tables = [beside_paper(name, runs, metric)]
    else:
        compared = comparisons(runs, metric, str(folder), reference)
        if format == "json":
            return json.dumps(scores(runs, metric), indent=1)
        tables = [scores_table(runs, metric, str(folder))]
        tables += [compared] * bool(compared.rows and format != "csv")
    shown = [FORMATS[format](table) for table in tables]
    return shown if format == "text" else "\n\n".join(shown)


def scores(runs: Iterable[Run], metric: str = "last") -> list[dict[str, Any]]:
    """One object a run: task, algorithm, seed, steps (of the last evaluation), data (label), return, score, state.

    return and score are None where the run gives no number (failed, diverged), score also without reference returns.
    """
    rows = []
    for run in runs:
        value = aggregate(run.evaluations, metric) if is_counted(run) else None
        score = None if value is None else score_of(run.task, value)
        row = {"task": run.task, "algorithm": run.algorithm, "seed": run.seed, "steps": last_step(run)}
        rows.append(row | {"data": run.cell["data"]["label"], "return": value, "score": score, "state": run.state})
    return rows


def table1(runs: Iterable[Run], metric: str = "last") -> Table:
    """Table 1: normalised scores on D4RL, by dataset type and environment."""
    return beside_paper("table1", runs, metric)


def table2(runs: Iterable[Run], metric: str = "last") -> Table:
    """Table 2: average returns on the two tasks that need more than the dataset shows."""
    return beside_paper("table2", runs, metric)


def scores_table(runs: Iterable[Run], metric: str = "last", folder: str = "results") -> Table:
    """Whatever was run: tasks and datasets down, algorithms and the datasets' own episodes across, with 95 % intervals.

    Scores where the task has reference returns, else returns. Without runs UserError, naming `folder`.
    """
    groups = groups_in(runs, folder)
    columns, names = [*_labels(groups), *DATASET_COLUMNS], dataset_names(groups)
    rows = []
    for key, here in by_dataset(groups):
        by_label, unit = {group.label: group for group in here}, unit_of(key.task)
        entries = [_measured(Entry(task=key.task, algorithm=each, unit=unit), by_label, metric, names) for each in columns]
        rows.append([*map(Entry, (key.task, without_task(names[key]), unit)), *_bolded(entries)])
    heads = ["Task", "Data", "Unit", *_headings(columns, groups)]
    note = "Score: 100 (return - min) / (max - min) with D4RL's references. In brackets: Student's 95 % interval of the mean."
    return Table("Scores", metric, heads, rows, [note, *footnotes(groups, metric)], intervals=True)


def beside_paper(name: str, runs: Iterable[Run], metric: str = "last") -> Table:
    """A table in the paper's layout, "table1" or "table2", our numbers above the paper's; other algorithms to the right.

    Each task is shown on one dataset; a note names the others.
    """
    layout, tasks = LAYOUTS[name], tasks_of(name)
    groups = grouped(run for run in runs if run.task in tasks)
    names = dataset_names(groups)
    shown = labelled(_on_one_dataset(groups))
    columns = [*layout.columns, *(label for label in _labels(shown) if label not in layout.columns)]
    rows = []
    for task in tasks:
        here = {group.label: group for group in shown if group.task == task}
        entries = [_measured(_printed(name, task, column), here, metric, names) for column in columns]
        rows.append([*map(Entry, layout.leading(task)), *_bolded(entries)])
    notes = [*_paper_notes(rows), *footnotes(shown, metric)]
    if hidden := sorted({names[group.dataset] for group in groups} - {names[group.dataset] for group in shown}):
        notes.append(f"Runs on other data exist and are not shown: {', '.join(hidden)}.")
    return Table(layout.title, metric, [*layout.heads, *_headings(columns, shown)], rows, notes)


def _on_one_dataset(groups: Sequence[Group]) -> list[Group]:
    """Of each task the groups on one dataset: one with results, by `SOURCES`, then with the most seeds done."""

    def worth(key: DatasetKey) -> tuple[Any, ...]:
        here = [group for group in groups if group.dataset == key]
        nothing = not any(group.counted or group.in_state("diverged") for group in here)
        return nothing, index_in(SOURCES, key.source), -sum(len(group.in_state("done")) for group in here), key

    chosen: dict[str, DatasetKey] = {}
    for key in sorted({group.dataset for group in groups}, key=worth):
        chosen.setdefault(key.task, key)
    return [group for group in groups if group.dataset == chosen[group.task]]


def _printed(name: str, task: str, column: str) -> Entry:
    """The entry of a paper table with the paper's number, if it prints one there, and nothing of ours yet."""
    place = (task, HEADINGS.get(column, ""))
    entry = Entry(task=task, algorithm=column, unit=LAYOUTS[name].unit)
    if printed := paper_table(name).get(place):
        entry = replace(entry, paper_mean=printed.mean, paper_std=printed.std, mark=DAGGER * (place in swapped_cells()))
    return entry


def _paper_notes(rows: Sequence[Sequence[Entry]]) -> list[str]:
    """How to read the paper's numbers beside ours."""
    notes = ["In parentheses: the paper's number, a reference, not a pass mark."]
    entries = [entry for row in rows for entry in row]
    if any(entry.difference is not None for entry in entries):
        notes.append("Δ: ours minus the paper's, only where D4RL v0 and the paper's number of steps make them comparable.")
    if any(entry.mark for entry in entries):
        values = ", ".join(f"{task} {algorithm} {value:.1f}" for (task, algorithm), value in swapped_cells().items())
        notes.append(f"{DAGGER} printed under the wrong environment; the authors' own raw returns give {values}.")
    return notes


def _measured(entry: Entry, groups: Mapping[str, Group], metric: str, names: Mapping[DatasetKey, str]) -> Entry:
    """The entry with what the groups of its row, by label, say of its column."""
    if entry.algorithm in DATASET_COLUMNS and groups:
        group = next(iter(groups.values()))
        value = in_unit(entry.unit, entry.task, group.data[DATASET_COLUMNS[entry.algorithm]])
        return replace(entry, mean=value, data=names[group.dataset])
    if entry.algorithm not in groups:
        return entry
    group = groups[entry.algorithm]
    entry = replace(entry, data=names[group.dataset], diverged=len(group.in_state("diverged")))
    values = group.values(metric, entry.unit)
    if not values:
        return entry
    low, high = mean_interval(values) or (None, None)
    if entry.paper_mean is not None and not entry.mark and metric == "last" and _at_paper_budget(group):
        entry = replace(entry, difference=mean(values) - entry.paper_mean)
    return replace(
        entry,
        steps=span(map(last_step, group.counted)),
        mean=mean(values),
        std=standard_deviation(values),
        low=low,
        high=high,
        seeds=len(values),
        unfinished=bool(group.in_state("running")),
    )


def _at_paper_budget(group: Group) -> bool:
    """Whether every seed is done with the paper's steps, on the paper's data and with nothing set otherwise."""
    budget = all_tasks()[group.task].evaluation.steps
    whole = all(run.state == "done" and last_step(run) >= budget for run in group.runs)
    return whole and group.data["source"] == "v0" and not group.overrides


def _bolded(entries: Sequence[Entry]) -> list[Entry]:
    """The best of our means in bold; the dataset's own episodes do not compete."""
    means = [entry.mean for entry in entries if entry.mean is not None and entry.algorithm not in DATASET_COLUMNS]
    best = max(means, default=None)
    return [
        replace(entry, bold=best is not None and entry.mean == best and entry.algorithm not in DATASET_COLUMNS)
        for entry in entries
    ]


def _labels(groups: Iterable[Group]) -> list[str]:
    """The labels of the groups, in the order of columns."""
    return list(dict.fromkeys(group.label for group in in_columns(groups)))


def _headings(columns: Sequence[str], groups: Iterable[Group]) -> list[str]:
    """What stands over each column: a title, and the label besides where two would read the same."""
    titles = {group.label: group.heading for group in groups}
    heads = [titles.get(column) or HEADINGS[column] for column in columns]
    return [head if heads.count(head) == 1 else f"{head} ({column})" for head, column in zip(heads, columns, strict=True)]
