"""Tables of run records beside the paper's.

A cell holds the seeds of one identity, never more (see `statistics.grouped`); its column is named by `statistics.labelled`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.errors import UserError, unknown
from ...tasks.catalog import DOMAINS, PROTOCOLS
from ...tasks.registry import all_tasks
from ..runs.records import Run
from .formats import DAGGER, DASH, Cell, Table
from .paper import BATCH, COLUMNS, PRINTED, paper_table, swapped_cells
from .statistics import (
    SOURCES,
    Group,
    aggregate,
    counts,
    difference_interval,
    get_metric,
    grouped,
    index_in,
    labelled,
    last_step,
    mean,
    mean_interval,
    standard_deviation,
)

STATES = {
    "running": "* Unfinished",
    "diverged": "Diverged, not in the means",
    "failed": "Failed, not in the means",
}
STAGES = {"dynamics": "dynamics ensemble", "behaviour": "behaviour policy"}
FORMATS = ("markdown", "latex", "csv", "html", "json")


def render(name: str, runs: Iterable[Run], folder: Path | str, format: str = "text", metric: str = "last") -> Any:
    """Table `name` ("table1", "table2", "scores") of the runs in `folder`, as text of that format.

    "text" gives a list for rich to print. Beside the scores stand the comparisons; as JSON they are one object a run.
    """
    runs = list(runs)
    if name == "scores":
        compared = comparisons(runs, metric, str(folder))
        tables = [scores_table(runs, metric, str(folder)), *([compared] if compared.rows else [])]
        if format == "json":
            return json.dumps(scores(runs, metric), indent=1)
        if format == "csv":
            return tables[0].to_csv()
    elif name in COLUMNS:
        tables = [table1(runs, metric) if name == "table1" else table2(runs, metric)]
    else:
        raise unknown("table", name, [*COLUMNS, "scores"], "mopo-bench table --help")
    if format == "text":
        return [table.to_rich() for table in tables]
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, "mopo-bench table --help")
    return "\n\n".join(getattr(table, f"to_{format}")() for table in tables)


def scores(runs: Iterable[Run], metric: str = "last") -> list[dict[str, Any]]:
    """One object a run: task, algorithm, seed, steps (of the last evaluation), data (label), return, score, state.

    return and score are None where the run gives no number (failed, diverged), score also without reference returns.
    """
    rows = []
    for run in runs:
        value = aggregate(run.evaluations, metric) if counts(run) else None
        references = all_tasks()[run.task].references if run.task in all_tasks() else None
        score = references.score(value) if references and value is not None else None
        row = {"task": run.task, "algorithm": run.algorithm, "seed": run.seed, "steps": last_step(run)}
        rows.append(row | {"data": run.cell["data"]["label"], "return": value, "score": score, "state": run.state})
    return rows


def table1(runs: Iterable[Run], metric: str = "last") -> Table:
    """Table 1: normalised scores on D4RL, by dataset type and environment."""
    tasks = {f"{domain}-{quality}": (quality, domain) for quality, domain in itertools.product(PROTOCOLS, DOMAINS)}
    title = "Table 1: normalised scores on D4RL's MuJoCo tasks"
    return _beside_paper("table1", title, "score", ("Dataset type", "Environment"), tasks, runs, metric)


def table2(runs: Iterable[Run], metric: str = "last") -> Table:
    """Table 2: average returns on the two tasks that need more than the batch shows."""
    tasks = {task: (task,) for task, _ in paper_table("table2")}
    title = "Table 2: average returns on the out-of-distribution tasks"
    return _beside_paper("table2", title, "return", ("Environment",), tasks, runs, metric)


def scores_table(runs: Iterable[Run], metric: str = "last", folder: str = "results") -> Table:
    """Whatever was run: tasks and data down, algorithms and the batch's own episodes across, with 95 % intervals.

    Scores where the task has reference returns, else returns. Without runs UserError, naming `folder`.
    """
    groups = _required(runs, folder)
    columns, names = [*_columns(groups), *BATCH], _data_names(groups)
    rows = []
    for key, here in _by_batch(groups):
        by_label, unit = {group.label: group for group in here}, _unit(key[0])
        cells = [_measured(Cell(task=key[0], algorithm=each, unit=unit), by_label, metric, names) for each in columns]
        rows.append([Cell(key[0]), Cell(_short(names[key])), Cell(unit), *_bolded(cells)])
    heads = ["Task", "Data", "Unit", *map(_heading, columns)]
    note = "Score: 100 (return - min) / (max - min) with D4RL's references. In brackets: Student's 95 % interval of the mean."
    return Table("Scores", metric, heads, rows, [note, *_notes(groups, metric)], intervals=True)


def comparisons(runs: Iterable[Run], metric: str = "last", folder: str = "results") -> Table:
    """For each task and data: MOPO minus every other algorithm, and minus the batch's best episode, with 95 % intervals.

    Welch's between two algorithms, Student's against the best episode. The best of several that fit no dynamics model is
    marked. Without runs UserError, naming `folder`.
    """
    groups = _required(runs, folder)
    names, rows = _data_names(groups), []
    for key, same in _by_batch(groups):
        unit = _unit(key[0])
        here = sorted((group for group in same if group.counted), key=_place)
        model_free = [group for group in here if "dynamics" not in group.cell["versions"]]
        strongest = max(model_free, key=lambda group: mean(_values(group, metric, unit))) if len(model_free) > 1 else None
        for ours in (group for group in here if group.algorithm == "mopo"):
            a = _values(ours, metric, unit)
            pairs = [(each.label, _values(each, metric, unit), each) for each in here if each.algorithm != "mopo"]
            best = _in_unit(unit, key[0], ours.cell["data"]["return_max"])
            for label, b, other in [*pairs, ("batch max", [best], None)]:
                interval = difference_interval(a, b) if other else mean_interval([value - best for value in a])
                low, high = interval or (None, None)
                clear = interval is not None and (interval[0] > 0 or interval[1] < 0)
                label += " (best model-free)" if other is not None and other is strongest else ""
                steps = _span(map(last_step, [*ours.counted, *(other.counted if other else ())]))
                number = Cell(
                    task=key[0], algorithm=f"{ours.label} minus {label}", unit=unit, data=names[key], steps=steps,
                    mean=mean(a) - mean(b), low=low, high=high, bold=clear,
                )  # fmt: skip
                reading = "clear" if clear else "not clear" if interval else "one seed, no interval"
                seeds = f"{len(a)} and {len(b)}" if other else str(len(a))
                rows.append([*map(Cell, (key[0], _short(names[key]), unit, number.algorithm, seeds)), number, Cell(reading)])
    heads = ["Task", "Data", "Unit", "Comparison", "Seeds", "Difference", "Reading"]
    notes = [
        f"Each seed counts with {get_metric(metric).meaning}. Clear (bold): the 95 % interval in brackets leaves out 0; "
        "Welch's between algorithms, Student's against the batch's best episode, which is one number.",
        "Nothing corrects for the number of comparisons.",
    ]
    return Table("MOPO against the others", metric, heads, rows, notes, intervals=True)


def _beside_paper(
    name: str,
    title: str,
    unit: str,
    heads: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    runs: Iterable[Run],
    metric: str,
) -> Table:
    """The paper's layout; `tasks` gives the leading cells of each row."""
    paper, swapped = paper_table(name), swapped_cells() if name == "table1" else {}
    groups = grouped(run for run in runs if run.task in tasks)
    names = _data_names(groups)
    chosen = {task: _chosen_batch([group for group in groups if group.task == task]) for task in tasks}
    shown = labelled([group for group in groups if group.batch == chosen[group.task]])
    columns = [*COLUMNS[name], *(label for label in _columns(shown) if label not in COLUMNS[name])]
    rows = []
    for task, leading in tasks.items():
        here = {group.label: group for group in shown if group.task == task}
        cells = []
        for column in columns:
            place = (task, _heading(column))
            cell = Cell(task=task, algorithm=column, unit=unit, mark=DAGGER * (place in swapped))
            if printed := paper.get(place):
                cell = replace(cell, paper_mean=printed.mean, paper_std=printed.std)
            cells.append(_measured(cell, here, metric, names))
        rows.append([*map(Cell, leading), *_bolded(cells)])
    notes = ["In parentheses: the paper's number, a reference, not a pass mark."]
    if any(cell.difference is not None for row in rows for cell in row):
        notes.append("Δ: ours minus the paper's, only where D4RL v0 and the paper's number of steps make them comparable.")
    if swapped:
        values = ", ".join(f"{task} {algorithm} {value:.1f}" for (task, algorithm), value in swapped.items())
        notes.append(f"{DAGGER} printed under the wrong environment; the authors' own raw returns give {values}.")
    notes += _notes(shown, metric)
    if hidden := sorted({names[group.batch] for group in groups} - {names[group.batch] for group in shown}):
        notes.append(f"Runs on other data exist and are not shown: {', '.join(hidden)}.")
    return Table(title, metric, [*heads, *map(_heading, columns)], rows, notes)


def _chosen_batch(groups: Sequence[Group]) -> tuple[str, ...] | None:
    """The one data of a task that a paper table shows: with results, by `SOURCES`, then with the most seeds done."""

    def worth(key: tuple[str, ...]) -> tuple[Any, ...]:
        here = [group for group in groups if group.batch == key]
        nothing = not any(group.counted or group.in_state("diverged") for group in here)
        return nothing, index_in(SOURCES, key[1]), -sum(len(group.in_state("done")) for group in here), key

    return min({group.batch for group in groups}, key=worth, default=None)


def _measured(cell: Cell, groups: Mapping[str, Group], metric: str, names: Mapping[tuple[str, ...], str]) -> Cell:
    """The cell with what the groups of its row, by label, say of its column."""
    if cell.algorithm in BATCH and groups:
        group = next(iter(groups.values()))
        value = _in_unit(cell.unit, cell.task, group.cell["data"][BATCH[cell.algorithm]])
        return replace(cell, mean=value, data=names[group.batch])
    if cell.algorithm not in groups:
        return cell
    group = groups[cell.algorithm]
    cell = replace(cell, data=names[group.batch], diverged=len(group.in_state("diverged")))
    values = _values(group, metric, cell.unit)
    if not values:
        return cell
    low, high = mean_interval(values) or (None, None)
    if cell.paper_mean is not None and not cell.mark and metric == "last" and _at_paper_budget(group):
        cell = replace(cell, difference=mean(values) - cell.paper_mean)
    return replace(
        cell,
        steps=_span(map(last_step, group.counted)),
        mean=mean(values),
        std=standard_deviation(values),
        low=low,
        high=high,
        seeds=len(values),
        unfinished=bool(group.in_state("running")),
    )


def _at_paper_budget(group: Group) -> bool:
    budget = all_tasks()[group.task].evaluation.steps
    whole = all(run.state == "done" and last_step(run) >= budget for run in group.runs)
    return whole and group.cell["data"]["source"] == "v0" and not group.overrides


def _bolded(cells: Sequence[Cell]) -> list[Cell]:
    """The best of our means in bold; the batch's own episodes do not compete."""
    best = max((cell.mean for cell in cells if cell.mean is not None and cell.algorithm not in BATCH), default=None)
    return [replace(cell, bold=best is not None and cell.mean == best and cell.algorithm not in BATCH) for cell in cells]


def _notes(groups: Sequence[Group], metric: str) -> list[str]:
    """What the numbers of these groups are made of."""
    notes = [
        f"Mean ± sample standard deviation over seeds (no ±: one seed) of {get_metric(metric).meaning}; "
        f"bold: the best mean of the row; {DASH}: no run to show."
    ]
    counted = [(group, run) for group in groups for run in group.counted]
    if not groups:
        notes.append("Nothing has been run yet.")
    if counted:
        packages = sorted(
            {group.cell["package"] for group, _ in counted}
            | {segment["versions"]["mopo-bench"] for _, run in counted for segment in run.record.get("segments", [])}
        )
        notes.append(
            f"Steps: {_span(last_step(run) for _, run in counted)}. Seeds in a cell: "
            f"{_span(len(group.counted) for group in groups if group.counted)}. Made by mopo-bench {', '.join(packages)}."
        )
        episodes = _span(len(run.evaluations[-1]["returns"]) for _, run in counted)
        notes.append(f"Episodes in an evaluation: {episodes}.")
    uneven = [group for group in groups if len(set(map(last_step, group.counted))) > 1]
    notes += [
        f"{group.task} {group.label}: its seeds end at different steps, {_span(map(last_step, group.counted))}."
        for group in uneven
    ]
    for data in {group.batch: group.cell["data"] for group in groups}.values():
        origin = f", from {data['from']}" if data.get("from") else ""
        notes.append(f"Data {data['label']}: {data['rows']:,} rows, window {data['window']}{origin}.")
    changed = [(", ".join(group.overrides), group.task, group.label) for group in groups if group.overrides]
    notes += [f"Not at the default: {settings} for {what}." for settings, what in _merged(changed)]
    notes += _shared_fits(counted)
    notes += [
        f"{group.task} {group.label}: all its steps were warm-up, in which the policy sees no critic."
        for group in groups
        if group.counted and group.cell["config"].get("warmup_steps", 0) >= max(map(last_step, group.counted))
    ]
    states = {state: [f"{g.task} {g.label} seed {run.seed}" for g in groups for run in g.in_state(state)] for state in STATES}
    return notes + [f"{meaning}: {', '.join(states[state])}." for state, meaning in STATES.items() if states[state]]


def _shared_fits(counted: Iterable[tuple[Group, Run]]) -> list[str]:
    """Which algorithms stand on the same fit of a stage, seed by seed."""
    users: dict[tuple[Any, ...], set[tuple[str, str, str]]] = {}
    for group, run in counted:
        for stage, identity in run.record.get("stages", {}).items():
            users.setdefault((group.batch, stage, identity, run.seed), set()).add((stage, group.task, group.label))
    shared = sorted(set().union(*(each for each in users.values() if len(each) > 1)))
    return [f"One {STAGES.get(stage, stage)} per seed is shared by {what}." for stage, what in _merged(shared)]


def _merged(triples: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """(fact, task, label) with equal facts put together: (fact, "mbpo and mopo on hopper-medium, point-angle")."""
    by_task: dict[tuple[str, str], list[str]] = {}
    for fact, task, label in triples:
        by_task.setdefault((fact, task), []).append(label)
    tasks: dict[tuple[str, str], list[str]] = {}
    for (fact, task), labels in by_task.items():
        tasks.setdefault((fact, " and ".join(labels)), []).append(task)
    return [(fact, f"{labels} on {', '.join(where)}") for (fact, labels), where in tasks.items()]


def _required(runs: Iterable[Run], folder: str) -> list[Group]:
    groups = labelled(grouped(runs))
    if not groups:
        raise UserError(f"no runs in {folder}: `mopo-bench run --results {folder}` makes some, `mopo-bench demo` small ones")
    return groups


def _by_batch(groups: Iterable[Group]) -> Iterable[tuple[tuple[str, ...], Iterable[Group]]]:
    return itertools.groupby(groups, key=lambda group: group.batch)


def _place(group: Group) -> tuple[Any, ...]:
    """The paper's order of columns, other algorithms after them, the plain name before its variants."""
    return index_in(list(PRINTED), group.algorithm), group.algorithm, group.label


def _columns(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(group.label for group in sorted(groups, key=_place)))


def _heading(label: str) -> str:
    """As the paper prints it: "MOPO [penalty_coefficient=5]", "Batch Mean"."""
    name, space, rest = label.partition(" ")
    return label.title() if label in BATCH else PRINTED.get(name, name) + space + rest


def _data_names(groups: Iterable[Group]) -> dict[tuple[str, ...], str]:
    """By `Group.batch`: its label, with rows, window and digest where one task has several under that label."""
    facts = {group.batch: group.cell["data"] for group in groups}
    labels = [data["label"] for data in facts.values()]
    return {
        key: data["label"]
        if labels.count(data["label"]) == 1
        else f"{data['label']} ({data['rows']:,} rows, {data['window']}, {data['digest'][:8]})"
        for key, data in facts.items()
    }


def _short(label: str) -> str:
    """A label without the task, which stands beside it."""
    return label.partition("@")[2] or label


def _span(numbers: Iterable[int]) -> str:
    numbers = sorted(set(numbers))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _unit(task: str) -> str:
    """A task that is not registered here, such as a plug-in's, is shown in returns."""
    return "score" if task in all_tasks() and all_tasks()[task].references else "return"


def _in_unit(unit: str, task: str, value: float) -> float:
    references = all_tasks()[task].references if unit == "score" else None
    return references.score(value) if references else value


def _values(group: Group, metric: str, unit: str) -> list[float]:
    """One number a seed that counts."""
    return [_in_unit(unit, group.task, aggregate(run.evaluations, metric)) for run in group.counted]
