"""Tables of run records: the paper's, with its numbers beside ours, and whatever was run.

An entry holds the seeds of one identity, never more (see `groups.grouped`); its column is named by `groups.labelled`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.errors import UserError, unknown
from ...tasks.registry import all_tasks
from ..runs.records import Run, overvalued
from .aggregates import aggregates
from .choices import TABLES, get_metric
from .comparisons import comparisons
from .formats import DAGGER, FORMATS, Entry, Table, span
from .groups import (
    SOURCES,
    Group,
    RowKey,
    by_row,
    dataset_names,
    difference_between,
    facts_of_data,
    grouped,
    groups_in,
    in_columns,
    in_unit,
    index_in,
    is_counted,
    labelled,
    last_step,
    names_dataset,
    score_of,
    unit_of,
    without_task,
)
from .notes import footnotes
from .paper import (
    DATASET_COLUMNS,
    HEADINGS,
    LAYOUTS,
    PROBE_COLUMNS,
    REFERENCE,
    SURE,
    WINDOW_ROWS,
    Layout,
    heading_of,
    paper_table,
    rows_of,
    swapped_cells,
    tasks_of,
)
from .statistics import FEWEST, aggregate, mean, mean_interval, standard_deviation

NOT_LEARNED = {**DATASET_COLUMNS, **PROBE_COLUMNS}  # columns that nobody trained, each read from a cell's data


def render(
    name: str,
    runs: Iterable[Run],
    folder: Path | str,
    format: str = "text",
    metric: str = "last",
    reference: str = REFERENCE,
    correct: bool = False,
    faults: Sequence[str] = (),
    beside: str | None = None,
) -> Any:
    """Table `name` of `TABLES` from the runs in `folder`, as text of that format of `FORMATS`; "text" is a list for rich.

    Beside the scores stand the comparisons of `reference` with the others, by Holm's rule if they are to be corrected; as JSON
    the scores are one object a run, as CSV they stand alone. Aggregates are several tables, as CSV and JSON one.

    beside: another metric, whose means and differences stand below those of `metric`.
    """
    for kind, choice, choices in (("table", name, TABLES), ("format", format, FORMATS)):
        if choice not in choices:
            raise unknown(kind, choice, choices, "mopo-bench table --help")
    runs = list(runs)
    if correct and name != "scores":
        raise UserError(f"{name} has no comparisons to correct: --holm goes with the table of scores")
    if beside == metric:
        raise UserError(f"--beside {beside}: the table is of that metric already; name another")
    if beside and (name == "aggregate" or (name, format) == ("scores", "json")):
        raise UserError(f"--beside {beside}: {name}{' as JSON' * (name == 'scores')} has one number for each run")
    if name in LAYOUTS and reference != REFERENCE:
        raise UserError(f"{name} stands beside the paper's numbers: scores and aggregates have a reference")
    if name == "aggregate":
        tables = aggregates(runs, metric, str(folder), reference)
        if format in ("csv", "json"):
            tables = [replace(tables[0], rows=[row for table in tables for row in table.rows])]
    else:
        tables = _by_metric(name, runs, (metric, beside), folder, reference, correct)
        if (name, format) == ("scores", "json"):
            return json.dumps(scores(runs, metric), indent=1)
        if beside:
            meaning = get_metric(beside).meaning
            seconds = _by_metric(name, runs, (beside, metric), folder, reference, correct)
            tables = [table.beside(second, meaning) for table, second in zip(tables, seconds, strict=True)]
        tables = tables[:1] if format == "csv" else tables
    if faults:
        said = f"Not believed, and not in the numbers: {'; '.join(faults)}."
        tables = [replace(tables[0], notes=[*tables[0].notes, said]), *tables[1:]]
    shown = [FORMATS[format](table) for table in tables]
    return shown if format == "text" else "\n\n".join(shown)


def _by_metric(
    name: str, runs: Sequence[Run], metrics: tuple[str, str | None], folder: Path | str, reference: str, correct: bool
) -> list[Table]:
    """A paper table, or that of the scores and of the comparisons, if there are any, by the first of two metrics."""
    metric, beside = metrics
    if name in LAYOUTS:
        return [beside_paper(name, runs, metric)]
    compared = comparisons(runs, metric, str(folder), reference, correct, beside)
    return [scores_table(runs, metric, str(folder)), *[compared] * bool(compared.rows)]


def scores(runs: Iterable[Run], metric: str = "last") -> list[dict[str, Any]]:
    """One object a run: task, algorithm, seed, steps (of the last evaluation), data (label), return, score, state.

    And what tells it from another run of the same algorithm: the digest of its dataset, since two machines may have rolled out
    two under one label; the label of its column, its identity, the settings that were chosen, the task's parameters. return and
    score are None where the run gives no number (failed, diverged), score also without reference returns.
    """
    rows, groups = [], labelled(grouped(runs := list(runs)))
    labels = {(group.key, group.identity): group.label for group in groups}
    for run in runs:
        value = aggregate(run.evaluations, metric) if is_counted(run) else None
        score = None if value is None else score_of(run.task, value)
        row = {"task": run.task, "algorithm": run.algorithm, "seed": run.seed, "steps": last_step(run)}
        row |= {"data": run.cell["data"]["label"], "return": value, "score": score, "state": run.state}
        row |= {"data_digest": run.cell["data"]["digest"]}
        row |= {"label": labels[RowKey.of(run), run.identity], "identity": run.identity}
        row |= {"overrides": run.cell.get("overrides", {}), "parameters": run.cell.get("rules", {}).get("parameters", {})}
        rows.append(row)
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
    columns, names = [*_labels(groups), *DATASET_COLUMNS, *_probes(groups)], dataset_names(groups)
    rows = []
    for key, members in by_row(groups):
        here, unit = {group.label: group for group in members}, unit_of(key.task)
        task = next(iter(here.values())).row
        entries = [_measured(Entry(task=task, algorithm=each, unit=unit), here, metric, names) for each in columns]
        rows.append([*map(Entry, (task, without_task(names[key]), unit)), *_bolded(entries, here, metric)])
    heads = ["Task", "Data", "Unit", *_headings(columns, groups)]
    notes = [
        *["Score: 100 (return - min) / (max - min) with D4RL's references."] * any(row[2].text == "score" for row in rows),
        "In brackets: Student's 95 % interval of the mean; "
        f"fewer than {FEWEST} seeds have none, two are shown as they are, and seeds that are all equal have none either.",
        *_probe_notes(groups),
        *footnotes(groups, metric),
    ]
    return Table("Scores", metric, heads, rows, notes, intervals=True)


def _probes(groups: Sequence[Group]) -> list[str]:
    """The columns of untrained behaviour that the records know."""
    return [column for column, key in PROBE_COLUMNS.items() if any(key in group.data for group in groups)]


def _probe_notes(groups: Sequence[Group]) -> list[str]:
    said = "Zero Action, Random Actions: nothing learned; the mean of 10 episodes of no action, and of uniformly random ones."
    return [said] if _probes(groups) else []


def beside_paper(name: str, runs: Iterable[Run], metric: str = "last") -> Table:
    """A table of `LAYOUTS`, in the paper's layout, our numbers above the paper's; other algorithms to the right.

    Each task is shown on one dataset and, but where parameters make rows of their own, with its registered ones; notes name the
    others.
    """
    layout = LAYOUTS[name]
    found = labelled(grouped(runs), layout.apart)
    tasks = tuple(dict.fromkeys((*tasks_of(name), *(group.task for group in found if group.label in layout.own))))
    groups = [group for group in found if group.task in tasks]
    names = dataset_names(groups)
    usual = [group for group in groups if layout.by_parameters or not group.key.parameters]
    shown = labelled(_on_one_dataset(usual), layout.apart)
    columns = _paper_columns(layout, shown)
    names_of_rows = list(dict.fromkeys((*rows_of(name), *(group.row for group in shown))))
    rows, measured = [], []
    for row in names_of_rows:
        here = {group.label: group for group in shown if group.row == row}
        entries = [_measured(_printed(name, row, column), here, metric, names) for column in columns]
        entries = [_compared(entry, here, metric, layout) for entry in _bolded(entries, here, metric)]
        rows.append([*map(Entry, layout.leading(row)), *entries])
        measured.append(entries)
    notes = [
        *_paper_notes(layout, rows),
        *_paper_windows(layout, shown),
        *_other_data(shown, rows),
        *_probe_notes(shown) * ("batch max" in columns),
        *footnotes(shown, metric),
    ]
    notes += _hidden_notes(groups, usual, shown, names)
    if layout.average:
        average, said = _average(measured, len(layout.heads))
        rows, notes = [*rows, *average], [*notes, *said]
    heads = _headings(columns, shown)
    if layout.transposed:
        rows = [[Entry(head), *entries] for head, entries in zip(heads, zip(*measured, strict=True), strict=True)]
        heads = names_of_rows
    return Table(layout.title, metric, [*layout.heads, *heads], rows, notes)


def _paper_columns(layout: Layout, groups: Sequence[Group]) -> list[str]:
    """The paper's columns, untrained behaviour after the dataset's own episodes, other algorithms to the right."""
    count = sum(column in DATASET_COLUMNS for column in layout.columns)
    probes = _probes(groups) if count else []
    others = [label for label in _labels(groups) if label not in layout.columns]
    return [*layout.columns[:count], *probes, *layout.columns[count:], *others]


def _hidden_notes(
    groups: Sequence[Group], usual: Sequence[Group], shown: Sequence[Group], names: Mapping[RowKey, str]
) -> list[str]:
    """Which runs a paper table leaves out: those with other parameters of the task, and those on other data."""
    other_rows = sorted({group.row for group in groups} - {group.row for group in usual})
    other_data = sorted({names[group.key] for group in usual} - {names[group.key] for group in shown})
    return [
        f"Runs {how} exist and are not shown: {', '.join(hidden)}."
        for how, hidden in (("with other parameters of the task", other_rows), ("on other data", other_data))
        if hidden
    ]


def _average(rows: Sequence[Sequence[Entry]], leading: int) -> tuple[list[list[Entry]], list[str]]:
    """A row with the mean of our means over the rows in which every column with numbers has one, and a note.

    There is none of fewer than two rows.
    """
    columns = [place for place in range(len(rows[0])) if any(row[place].mean is not None for row in rows)]
    whole = [row for row in rows if all(row[place].mean is not None for place in columns)] if columns else []
    if len(whole) < 2:
        return [], ["No average: no two rows have a number in every column that has any."] * bool(columns)
    entries = [_average_entry([row[place] for row in whole]) for place in range(len(rows[0]))]
    said = (
        f"Average: of our means, over the {len(whole)} of {len(rows)} rows in which every column with numbers has one; "
        "the paper prints none."
    )
    return [[Entry("Average"), *[Entry()] * (leading - 1), *entries]], [said]


def _average_entry(column: Sequence[Entry]) -> Entry:
    """The average of one column's entries, with all that diverged and whether one is unfinished."""
    means = [entry.mean for entry in column if entry.mean is not None]
    return Entry(
        task="Average",
        algorithm=column[0].algorithm,
        unit=column[0].unit,
        mean=mean(means) if means else None,
        seeds=sum(entry.seeds for entry in column),
        unfinished=any(entry.unfinished for entry in column),
        diverged=sum(entry.diverged for entry in column),
        overvalued=sum(entry.overvalued for entry in column),
        label=column[0].algorithm,
    )


def _on_one_dataset(groups: Sequence[Group]) -> list[Group]:
    """Of each row's task the groups on one dataset.

    Preferred is, in this order: one with results, the first of `SOURCES`, one without doubts, that with most seeds done.
    """

    def worth(key: RowKey) -> tuple[Any, ...]:
        here = [group for group in groups if group.key == key]
        nothing = not any(group.counted or group.in_state("diverged") for group in here)
        doubtful = any(group.data.get("doubts") for group in here)
        source = names_dataset(here).data["source"]
        return nothing, index_in(SOURCES, source), doubtful, -sum(len(group.in_state("done")) for group in here), key

    chosen: dict[tuple[str, tuple[str, ...]], RowKey] = {}
    for key in sorted({group.key for group in groups}, key=worth):
        chosen.setdefault((key.task, key.parameters), key)
    return [group for group in groups if group.key == chosen[group.task, group.key.parameters]]


def _printed(name: str, task: str, column: str) -> Entry:
    """The entry of a paper table with the paper's number, if it prints one there, and nothing of ours yet."""
    place = (task, heading_of(column) if column in LAYOUTS[name].columns else "")
    entry = Entry(task=task, algorithm=column, unit=LAYOUTS[name].unit)
    if printed := paper_table(name).get(place):
        mark = DAGGER if place in swapped_cells() else f" {printed.sure}" * (printed.sure in SURE)
        entry = replace(entry, paper_mean=printed.mean, paper_std=printed.std, paper_sure=printed.sure, mark=mark)
    return entry


def _paper_notes(layout: Layout, rows: Sequence[Sequence[Entry]]) -> list[str]:
    """How to read the paper's numbers beside ours."""
    notes = ["In parentheses: the paper's number, a reference, not a pass mark.", *layout.notes, *_paper_steps(layout)]
    entries = [entry for row in rows for entry in row]
    notes += [f"{sure}: {meaning}." for sure, meaning in SURE.items() if any(sure == entry.paper_sure for entry in entries)]
    if any(entry.difference is not None for entry in entries):
        notes.append("Δ: ours minus the paper's, only where D4RL v0 and the paper's number of steps make them comparable.")
    if any(entry.mark == DAGGER for entry in entries):
        values = ", ".join(f"{task} {algorithm} {value:.1f}" for (task, algorithm), value in swapped_cells().items())
        notes.append(f"{DAGGER} printed under the wrong environment; the authors' own raw returns give {values}.")
    return notes


def _paper_steps(layout: Layout) -> list[str]:
    """How many steps are behind the paper's numbers, where its columns differ in them."""
    by_steps: dict[int, list[str]] = {}
    for column, steps in layout.steps.items():
        by_steps.setdefault(steps, []).append(HEADINGS[column])
    said = "; ".join(f"{steps:,} for {', '.join(columns)}" for steps, columns in by_steps.items())
    return [f"Steps behind the paper's numbers: {said}."] if by_steps else []


def _paper_windows(layout: Layout, groups: Sequence[Group]) -> list[str]:
    """Which rows are behind the paper's numbers, where a dataset that is shown has more than a window holds."""
    by_window: dict[str, list[str]] = {}
    for column, window in layout.windows.items():
        by_window.setdefault(window, []).append(HEADINGS[column])
    said = "; ".join(f"{window} for {', '.join(columns)}" for window, columns in by_window.items())
    unknown_rows = ", ".join(heading_of(column) for column in layout.columns if column not in layout.windows)
    if not said or not any(group.whole["rows"] > WINDOW_ROWS for group in groups):
        return []
    return [
        f"Of datasets of more than {WINDOW_ROWS:,} rows the paper's numbers stand on a window (inferred from code): {said}; "
        f"not known for {unknown_rows}, which are compared on all rows."
    ]


def _other_data(groups: Sequence[Group], rows: Sequence[Sequence[Entry]]) -> list[str]:
    """Which rows with numbers of the paper are not on D4RL's files of 2020, its data as far as that was published."""
    printed = {entry.task for row in rows for entry in row if entry.paper_mean is not None}
    naming = [names_dataset(members) for _, members in by_row(group for group in groups if group.counted)]
    sources = {group.row: group.data["source"] for group in naming}
    said = ", ".join(f"{row} ({source})" for row, source in sources.items() if row in printed and source != "v0")
    return [f"Not on the paper's data, so that the paper's numbers are of another experiment: {said}."] if said else []


def _measured(entry: Entry, groups: Mapping[str, Group], metric: str, names: Mapping[RowKey, str]) -> Entry:
    """The entry with what the groups of its row, by label, say of its column."""
    if entry.algorithm in NOT_LEARNED and groups:
        group = next(iter(groups.values()))
        value = facts_of_data(list(groups.values())).get(NOT_LEARNED[entry.algorithm])
        return replace(entry, mean=None if value is None else in_unit(entry.unit, group.task, value), data=names[group.key])
    if entry.algorithm not in groups:
        return entry
    group = groups[entry.algorithm]
    entry = replace(
        entry,
        data=names[group.key],
        diverged=group.diverged,
        label=group.label,
        identity=group.identity,
        overrides=", ".join(group.overrides),
    )
    values = list(group.values(metric, entry.unit).values())
    if not values:
        return entry
    low, high = mean_interval(values) or (None, None)
    return replace(
        entry,
        steps=span(map(last_step, group.counted)),
        mean=mean(values),
        std=standard_deviation(values),
        low=low,
        high=high,
        points=values if len(values) == 2 else [],
        seeds=len(values),
        unfinished=bool(group.in_state("running")),
        overvalued=sum(overvalued(run.evaluations) is not None for run in group.counted),
    )


def _compared(entry: Entry, groups: Mapping[str, Group], metric: str, layout: Layout) -> Entry:
    """The entry with its difference from the paper's number, where the two can be compared."""
    if entry.mean is None or entry.paper_mean is None or entry.mark or metric != "last" or entry.algorithm not in groups:
        return entry
    on_v0 = names_dataset(groups.values()).data["source"] == "v0"
    comparable = on_v0 and _at_paper_budget(groups[entry.algorithm], layout)
    return replace(entry, difference=entry.mean - entry.paper_mean if comparable else None)


def _at_paper_budget(group: Group, layout: Layout) -> bool:
    """Whether every seed is done with the paper's steps, neither more nor fewer, on its window, with nothing set otherwise."""
    budget = layout.steps.get(group.algorithm, all_tasks()[group.task].evaluation.steps)
    whole = all(run.state == "done" and last_step(run) == budget for run in group.runs)
    window = layout.windows.get(group.algorithm, "all") if group.whole["rows"] > WINDOW_ROWS else "all"
    return whole and group.data["window"] == window and not group.overrides


def _bolded(entries: Sequence[Entry], groups: Mapping[str, Group], metric: str) -> list[Entry]:
    """The best of several of our means in bold, and those that follow it down to the first that is clearly below it.

    Only columns of at least `FEWEST` seeds are. Without "down to the first" a mean would be in bold for its wide spread alone,
    below others that are not. What nobody trained does not compete, nor does a column with a diverged seed.
    """
    learned = [entry for entry in entries if entry.mean is not None and entry.algorithm not in NOT_LEARNED]
    rivals = {each.algorithm: groups[each.algorithm].values(metric, each.unit) for each in learned if not each.diverged}
    ranked = sorted(rivals, key=lambda label: mean(list(rivals[label].values())), reverse=True)
    best = rivals[ranked[0]] if ranked else {}
    told = len(learned) > 1 and len(best) >= FEWEST  # a mean alone in its row is no winner
    level = itertools.takewhile(lambda label: not _clearly_below(groups[label], groups[ranked[0]], rivals), ranked)
    winners = {label for label in level if told and len(rivals[label]) >= FEWEST}
    return [replace(entry, bold=entry.algorithm in winners) for entry in entries]


def _clearly_below(group: Group, best: Group, values: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether the interval of the difference to the group of the best mean leaves out 0."""
    interval = difference_between(best, group, values).interval
    return interval is not None and interval[0] > 0


def _labels(groups: Iterable[Group]) -> list[str]:
    """The labels of the groups, in the order of columns."""
    return list(dict.fromkeys(group.label for group in in_columns(groups)))


def _headings(columns: Sequence[str], groups: Iterable[Group]) -> list[str]:
    """What stands over each column: a title, and the label besides where two would read the same."""
    titles = {group.label: group.heading for group in groups}
    heads = [titles.get(column) or heading_of(column) for column in columns]
    return [head if heads.count(head) == 1 else f"{head} ({column})" for head, column in zip(heads, columns, strict=True)]
