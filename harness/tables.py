"""Tables of run records beside the paper's: one intermediate, `Table`, and a renderer for each format.

A cell holds the seeds of one identity, never more (see `statistics.grouped`); its column is named by `statistics.labelled`.
"""

from __future__ import annotations

import csv
import html
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from .. import results
from ..tasks.catalog import DOMAINS, QUALITIES
from ..tasks.errors import UserError
from ..tasks.task import TASKS
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
from .store import Run, csv_text

PRINTED = {"bc": "BC", "mopo": "MOPO", "mbpo": "MBPO", "sac": "SAC", "bear": "BEAR", "brac-v": "BRAC-v", "brac-p": "BRAC-p"}
BATCH = {"batch mean": "return_mean", "batch max": "return_max"}  # columns that come from the batch, not from runs
COLUMNS = {
    "table1": ("bc", "mopo", "mbpo", "sac", "bear", "brac-v"),
    "table2": ("batch mean", "batch max", "mopo", "mbpo", "sac", "bear", "brac-p", "brac-v"),
}
STATES = {
    "running": "* Unfinished",
    "diverged": "Diverged, not in the means",
    "failed": "Failed, not in the means",
}
STAGES = {"dynamics": "dynamics ensemble", "behaviour": "behaviour policy"}
DASH, DAGGER = "–", "†"
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", DAGGER: r"$^\dagger$", "Δ": r"$\Delta$", DASH: "--"}
)


# --- the paper's numbers ----------------------------------------------------------------------------------------------


class PaperNumber(NamedTuple):
    """One printed cell; `std` and `seeds` are None where the paper prints none."""

    mean: float
    std: float | None
    seeds: int | None


def _paper_rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((resources.files(results) / "paper" / f"{name}.csv").read_text().splitlines()))


@cache
def paper_table(name: str) -> Mapping[tuple[str, str], PaperNumber]:
    """Table 1 (scores) or 2 (returns) as printed, by (task, algorithm as printed); `name` is "table1" or "table2"."""
    if name not in COLUMNS:
        raise UserError(f"the paper has no table {name!r}: it is one of {', '.join(COLUMNS)}")
    return {
        (row["task"], row["algorithm"]): PaperNumber(
            float(row["mean"]), float(row["std"]) if row["std"] else None, int(row["seeds"]) if row["seeds"] else None
        )
        for row in _paper_rows(name)
    }


@cache
def swapped_cells() -> Mapping[tuple[str, str], float]:
    """The cells of Table 1 that contradict the authors' own raw returns, with the score that these give."""
    rows = [row for row in _paper_rows("table1_baseline_returns") if row["printed"]]
    return {
        (row["task"], row["algorithm"]): float(row["normalized"])
        for row in rows
        if abs(float(row["normalized"]) - float(row["printed"])) > 0.05  # both are rounded to one digit
    }


# --- cells, tables and their formats ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A label (`text`), or what one column says of one task: our number, and the paper's where there is one.

    mean, std, low and high (the 95 % interval of the mean), difference (ours minus the paper's) and the paper's numbers are
    in `unit`, "score" or "return". seeds: how many make the mean; diverged ones are not among them.
    """

    text: str = ""
    task: str = ""
    algorithm: str = ""  # the column's label; empty in a cell that is only text
    unit: str = ""
    data: str = ""
    steps: str = ""
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    bold: bool = False
    unfinished: bool = False
    diverged: int = 0
    paper_mean: float | None = None
    paper_std: float | None = None
    mark: str = ""  # on the paper's number
    difference: float | None = None

    def lines(self, intervals: bool = False) -> list[str]:
        """What a reader sees, one string a line, our mean first."""
        if not self.algorithm:
            return [self.text]
        lines = [_spread(self.mean, self.std) + "*" * self.unfinished]
        if intervals and self.low is not None:
            lines.append(f"[{self.low:z.1f}, {self.high:z.1f}]")
        if self.paper_mean is not None:
            lines.append(f"({_spread(self.paper_mean, self.paper_std)}){self.mark}")
        if self.difference is not None:
            lines.append(f"Δ {self.difference:+z.1f}")
        return lines + [f"{self.diverged} diverged"] * (self.diverged > 0)


def _spread(centre: float | None, std: float | None) -> str:
    return DASH if centre is None else f"{centre:z.1f}" + ("" if std is None else f" ± {std:.1f}")


@dataclass(frozen=True)
class Table:
    """Rows of cells under `columns`, and the notes without which the numbers mean little; one method for each format."""

    title: str
    metric: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    intervals: bool = False  # whether cells show them; `to_csv` and `to_json` always hold them

    def to_csv(self) -> str:
        """Tidy: one line for each task, data and algorithm; a number that does not exist is left empty."""
        names = ("mean", "std", "seeds", "low", "high", "paper_mean", "paper_std", "difference", "diverged", "unfinished")
        return csv_text(
            [
                {"task": cell.task, "data": cell.data, "algorithm": cell.algorithm, "metric": self.metric, "unit": cell.unit}
                | {name: getattr(cell, name) for name in names}
                | {"steps": cell.steps}
                for cell in itertools.chain.from_iterable(self.rows)
                if cell.algorithm
            ]
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        def safe(text: str) -> str:
            return re.sub(r"([\\|*_`<>])", r"\\\1", text)

        def shown(cell: Cell) -> str:
            first, *more = map(safe, cell.lines(self.intervals))
            return "<br>".join([f"**{first}**" if cell.bold else first, *more])

        lines = [list(map(safe, self.columns)), ["---"] * len(self.columns)]
        lines += [list(map(shown, row)) for row in self.rows]
        body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([f"**{safe(self.title)}**", "", *body, "", *(f"- {safe(note)}" for note in self.notes)]) + "\n"

    def to_html(self) -> str:
        """One <table>, notes in its foot."""

        def shown(cell: Cell) -> str:
            first, *more = map(html.escape, cell.lines(self.intervals))
            return "<br>".join([f"<strong>{first}</strong>" if cell.bold else first, *more])

        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "\n".join(f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        notes = "<br>".join(map(html.escape, self.notes))
        return (
            f"<table>\n<caption>{html.escape(self.title)}</caption>\n<thead>\n<tr>{head}</tr>\n</thead>\n"
            f"<tbody>\n{body}\n</tbody>\n"
            f'<tfoot>\n<tr><td colspan="{len(self.columns)}"><small>{notes}</small></td></tr>\n</tfoot>\n</table>\n'
        )

    def to_latex(self) -> str:
        """A `table` for booktabs; each line of a cell is a line of the tabular."""

        def safe(text: str) -> str:
            return re.sub(r"(?<!\w)-(?=\d)", "$-$", text.translate(LATEX))

        def shown(row: list[Cell]) -> str:
            cells = [list(map(safe, cell.lines(self.intervals))) for cell in row]
            for cell, lines in zip(row, cells, strict=True):
                lines[0] = rf"\textbf{{{lines[0]}}}" if cell.bold else lines[0]
            return "\n".join(rf"{' & '.join(line)} \\" for line in itertools.zip_longest(*cells, fillvalue=""))

        layout = "".join("c" if cell.algorithm else "l" for cell in self.rows[0])
        body = "\n\\addlinespace\n".join(map(shown, self.rows))
        notes = "\n\n".join(map(safe, self.notes))
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{safe(self.title)}}}\n\\begin{{tabular}}{{{layout}}}\n\\toprule\n"
            f"{' & '.join(map(safe, self.columns))} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\n"
            f"\\footnotesize\n{notes}\n\\end{{table}}\n"
        )

    def to_rich(self) -> Any:
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        def shown(cell: Cell) -> Text:
            first, *more = cell.lines(self.intervals)
            return Text("\n").join([Text(first, "bold" if cell.bold else ""), *map(Text, more)])

        table = RichTable(title=Text(self.title), caption=Text("\n".join(self.notes)), caption_justify="left", show_lines=True)
        for column in self.columns:
            table.add_column(Text(column))
        for row in self.rows:
            table.add_row(*map(shown, row))
        return table


# --- from runs to tables ----------------------------------------------------------------------------------------------


def scores(runs: Iterable[Run], metric: str = "last") -> list[dict[str, Any]]:
    """One object a run: task, algorithm, seed, steps (of the last evaluation), data (label), return, score, state.

    return and score are None where the run gives no number (failed, diverged), score also without reference returns.
    """
    rows = []
    for run in runs:
        value = aggregate(run.evaluations, metric) if counts(run) else None
        score = _in_unit("score", run.task, value) if _unit(run.task) == "score" else None
        row = {"task": run.task, "algorithm": run.algorithm, "seed": run.seed, "steps": last_step(run)}
        rows.append(row | {"data": run.cell["data"]["label"], "return": value, "score": score, "state": run.state})
    return rows


def table1(runs: Iterable[Run], metric: str = "last") -> Table:
    """Table 1: normalised scores on D4RL, by dataset type and environment."""
    tasks = {f"{domain}-{quality}": (quality, domain) for quality, domain in itertools.product(QUALITIES, DOMAINS)}
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
        rows.append([Cell(key[0]), Cell(names[key]), Cell(unit), *_bolded(cells)])
    heads = ["Task", "Data", "Unit", *map(_heading, columns)]
    note = "Score: 100 (return - min) / (max - min) with D4RL's references. In brackets: Student's 95 % interval of the mean."
    return Table("Scores", metric, heads, rows, [note, *_notes(groups, metric)], intervals=True)


def comparisons(runs: Iterable[Run], metric: str = "last", folder: str = "results") -> Table:
    """For each task and data: MOPO minus every other algorithm, and minus the batch's best episode, with 95 % intervals.

    Welch's between two algorithms, Student's against the best episode. Without runs UserError, naming `folder`.
    """
    groups = _required(runs, folder)
    names, rows = _data_names(groups), []
    for key, same in _by_batch(groups):
        unit = _unit(key[0])
        here = sorted((group for group in same if group.counted), key=_place)
        for ours in (group for group in here if group.algorithm == "mopo"):
            a = _values(ours, metric, unit)
            pairs = [(each.label, _values(each, metric, unit), each) for each in here if each.algorithm != "mopo"]
            best = _in_unit(unit, key[0], ours.cell["data"]["return_max"])
            for label, b, other in [*pairs, ("batch max", [best], None)]:
                interval = difference_interval(a, b) if other else mean_interval([value - best for value in a])
                low, high = interval or (None, None)
                clear = interval is not None and (interval[0] > 0 or interval[1] < 0)
                steps = _span(map(last_step, [*ours.counted, *(other.counted if other else ())]))
                number = Cell(
                    task=key[0], algorithm=f"{ours.label} minus {label}", unit=unit, data=names[key], steps=steps,
                    mean=mean(a) - mean(b), low=low, high=high, bold=clear,
                )  # fmt: skip
                reading = "clear" if clear else "not clear" if interval else "one seed, no interval"
                seeds = f"{len(a)} and {len(b)}" if other else str(len(a))
                rows.append([*map(Cell, (key[0], names[key], unit, number.algorithm, seeds)), number, Cell(reading)])
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
            printed = paper.get(place, PaperNumber(None, None, None))
            cell = Cell(task=task, algorithm=column, unit=unit, paper_mean=printed.mean, paper_std=printed.std)
            cells.append(_measured(replace(cell, mark=DAGGER * (place in swapped)), here, metric, names))
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
    comparable = metric == "last" and group.cell["data"]["source"] == "v0" and cell.paper_mean is not None and not cell.mark
    whole = all(run.state == "done" and last_step(run) >= TASKS[cell.task].steps for run in group.runs)
    return replace(
        cell,
        steps=_span(map(last_step, group.counted)),
        mean=mean(values),
        std=standard_deviation(values),
        low=low,
        high=high,
        seeds=len(values),
        unfinished=bool(group.in_state("running")),
        difference=mean(values) - cell.paper_mean if comparable and whole else None,
    )


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
        packages = sorted({group.cell["package"] for group, _ in counted})
        notes.append(
            f"Steps: {_span(last_step(run) for _, run in counted)}. Seeds in a cell: "
            f"{_span(len(group.counted) for group in groups if group.counted)}. Made by mopo-bench {', '.join(packages)}."
        )
    uneven = [group for group in groups if len(set(map(last_step, group.counted))) > 1]
    notes += [
        f"{group.task} {group.label}: its seeds end at different steps, {_span(map(last_step, group.counted))}."
        for group in uneven
    ]
    for data in {group.batch: group.cell["data"] for group in groups}.values():
        origin = f", from {data['from']}" if data.get("from") else ""
        notes.append(f"Data {data['label']}: {data['rows']:,} rows, window {data['window']}{origin}.")
    changed: dict[str, dict[str, None]] = {}
    for group in groups:
        if group.overrides:
            changed.setdefault(", ".join(group.overrides), {})[group.label] = None
    notes += [f"Not at the default: {settings} ({', '.join(labels)})." for settings, labels in changed.items()]
    notes += _shared_fits(counted)
    states = {state: [f"{g.task} {g.label} seed {run.seed}" for g in groups for run in g.in_state(state)] for state in STATES}
    return notes + [f"{meaning}: {', '.join(states[state])}." for state, meaning in STATES.items() if states[state]]


def _shared_fits(counted: Iterable[tuple[Group, Run]]) -> list[str]:
    users: dict[tuple[Any, ...], dict[str, None]] = {}
    for group, run in counted:
        for stage, identity in run.record.get("stages", {}).items():
            users.setdefault((group.batch, stage, identity, run.seed), {})[group.label] = None
    shared: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for (key, stage, _, _), labels in users.items():
        if len(labels) > 1:
            shared.setdefault((stage, tuple(sorted(labels))), {})[key[0]] = None
    return [
        f"{' and '.join(labels)} share one {STAGES.get(stage, stage)} per seed ({', '.join(tasks)})."
        for (stage, labels), tasks in shared.items()
    ]


def _required(runs: Iterable[Run], folder: str) -> list[Group]:
    groups = labelled(grouped(runs))
    if not groups:
        raise UserError(f"no runs in {folder}: `mopo-bench run --results {folder}` makes some, `mopo-bench demo` small ones")
    return groups


def _by_batch(groups: Iterable[Group]) -> Iterable[tuple[tuple[str, ...], Iterable[Group]]]:
    return itertools.groupby(groups, key=lambda group: group.batch)


def _place(group: Group) -> tuple[Any, ...]:
    """The paper's order of columns, other algorithms after them, the plain name before its variants."""
    return index_in(list(PRINTED), group.algorithm), group.algorithm, group.label != group.algorithm, group.label


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


def _span(numbers: Iterable[int]) -> str:
    numbers = sorted(set(numbers))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _unit(task: str) -> str:
    """A task that is not registered here, such as a plug-in's, is shown in returns."""
    return "score" if task in TASKS and TASKS[task].reference_returns else "return"


def _in_unit(unit: str, task: str, value: float) -> float:
    return value if unit == "return" else TASKS[task].score(value)


def _values(group: Group, metric: str, unit: str) -> list[float]:
    """One number a seed that counts."""
    return [_in_unit(unit, group.task, aggregate(run.evaluations, metric)) for run in group.counted]
