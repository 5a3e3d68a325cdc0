"""One algorithm minus every other on the same dataset, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...common.errors import UserError
from ..runs.records import Run
from .formats import Entry, Table, span
from .groups import (
    Group,
    by_row,
    dataset_names,
    difference_between,
    facts_of_data,
    groups_in,
    in_columns,
    in_unit,
    last_step,
    unit_of,
    without_task,
)
from .notes import origin_notes
from .paper import DATASET_COLUMNS, PROBE_COLUMNS, REFERENCE
from .statistics import FEWEST, Difference, difference_of, get_metric, holm, mean

BEST_EPISODE = "batch max"  # of the dataset
NOTES = (
    "In brackets the 95 % interval. n paired: Student's, of the differences on the n seeds that both have, which meet the same "
    "starts and may share fits. n and m: Welch's. Against batch max, the dataset's best episode and one number: Student's.",
    f"Clear (bold): the interval leaves out 0. Fewer than {FEWEST} seeds, or equal numbers (no spread), have no interval. "
    "Where a seed diverged nothing is clear: the mean is that of the others.",
)
BEST_MODEL_FREE = " (best model-free)"
BY_HINDSIGHT = "Best model-free: the column with the highest mean of them here, picked afterwards: luck may have helped it."
UNCORRECTED = "Nothing corrects for the number of comparisons."
CORRECTED = (
    "Corrected for the number of comparisons: a difference is clear only if its p-value, adjusted by Holm's rule over the "
    "{count} that have one{both}, is at most 0.05, too."
)
HEADS = ["Task", "Data", "Unit", "Comparison", "Seeds", "Difference", "Reading"]


@dataclass(frozen=True)
class Comparison:
    """A row: the first of `groups` minus `other`, on the task in `blank`. adjusted: its p-value by Holm's rule, if wanted."""

    blank: Entry
    other: str
    groups: Sequence[Group]
    found: Difference
    seeds: str
    adjusted: float = 0.0


def comparisons(
    runs: Iterable[Run],
    metric: str = "last",
    folder: str = "results",
    reference: str = REFERENCE,
    correct: bool = False,
    beside: str | None = None,
) -> Table:
    """For each task and dataset: `reference` minus every other algorithm, and minus the dataset's best episode.

    With 95 % intervals: Student's of the differences on equal seeds where enough are equal, else Welch's; Student's against the
    best episode. The best of several model-free algorithms is marked. Where the default reference has no result in `folder`
    the first column takes its place, and a note says so. correct: by Holm's rule, over all rows; where the table
    stands beside one of the metric `beside`, over the rows of both. UserError, naming `folder`, without runs and for another
    reference that has none.
    """
    groups = groups_in(runs, folder)
    counted = in_columns(group for group in groups if group.counted)
    chosen, notes = chosen_reference(groups, counted, reference, folder)
    names = dataset_names(groups)
    facts = {key: facts_of_data(list(members)) for key, members in by_row(groups)}  # as the table of scores has them
    panels = [(key, in_columns(members)) for key, members in by_row(group for group in groups if group.counted)]
    blanks = {key: Entry(task=members[0].row, unit=unit_of(key.task), data=names[key]) for key, members in panels}

    def made_by(metric: str) -> list[Comparison]:
        found = list[Comparison]()
        for key, members in panels:
            values = {group.label: group.values(metric, blanks[key].unit) for group in members}
            found += _rows(blanks[key], members, values, chosen, facts[key])
        return found

    for key, _ in panels:
        notes += _idle_notes(blanks[key], key.task, facts[key])
    made, others = made_by(metric), made_by(beside) if correct and beside else []
    title = next((group.title for group in groups if group.algorithm == chosen), chosen)
    count = sum(each.found.p_value is not None for each in (*made, *others))
    if correct:
        made = _corrected(made, others)
    notes += [f"Each seed counts with {get_metric(metric).meaning}.", *NOTES]
    notes += [BY_HINDSIGHT] * any(each.other.endswith(BEST_MODEL_FREE) for each in made)
    notes.append(CORRECTED.format(count=count, both=" by both metrics" * bool(others)) if correct else UNCORRECTED)
    notes += origin_notes(groups)
    rows = [_row(each) for each in made]
    return Table(f"{title} against the others", metric, HEADS, rows, notes, intervals=True)


def chosen_reference(groups: Sequence[Group], counted: Sequence[Group], wanted: str, folder: str) -> tuple[str, list[str]]:
    """The algorithm whose differences to the others are shown, and a note where it is not the one wanted."""
    known = dict.fromkeys(group.algorithm for group in in_columns(groups))
    if wanted != REFERENCE and wanted not in known:
        raise UserError(f"no runs of {wanted} in {folder} to compare with: there are {', '.join(known)}")
    if wanted != REFERENCE or not counted or any(group.algorithm == wanted for group in counted):
        return wanted, []
    first = counted[0].algorithm
    return first, [f"No run of {wanted} gives a number here: the first column, {first}, is compared with the others."]


def _rows(
    blank: Entry,
    groups: Sequence[Group],
    values: Mapping[str, Mapping[int, float]],
    reference: str,
    facts: Mapping[str, Any],
) -> list[Comparison]:
    """The comparisons in the row of `blank`, in the order of columns; each variant of the reference has its own.

    `values`: by label of a group, a number by seed in the unit of `blank`. `facts`: of the row's dataset.
    """
    best_model_free, rows = _best_model_free(groups, values), []
    for ours in (group for group in groups if group.algorithm == reference):
        a = values[ours.label]
        for other in (group for group in groups if group.algorithm != reference):
            mark = BEST_MODEL_FREE if other is best_model_free else ""
            found = difference_between(ours, other, values)
            rows.append(Comparison(blank, f"{other.label}{mark}", [ours, other], found, _seeds(ours, other, found)))
        best = in_unit(blank.unit, ours.task, facts[DATASET_COLUMNS[BEST_EPISODE]])
        above = [value - best for value in a.values()]
        rows.append(Comparison(blank, BEST_EPISODE, [ours], difference_of(above), str(len(a))))
    return rows


def _corrected(rows: Sequence[Comparison], others: Sequence[Comparison]) -> list[Comparison]:
    """The rows with p-values adjusted over all that have one, of these and of the others."""
    together = [*rows, *others]
    tested = [place for place, row in enumerate(together) if row.found.p_value is not None]
    adjusted = dict(zip(tested, holm([together[place].found.p_value or 0.0 for place in tested]), strict=True))
    return [replace(row, adjusted=adjusted.get(place, 1.0)) for place, row in enumerate(rows)]


def _idle_notes(blank: Entry, task: str, facts: Mapping[str, Any]) -> list[str]:
    """A warning where what nobody trained returns as much as the dataset's best episode, which then proves nothing."""
    best = facts[DATASET_COLUMNS[BEST_EPISODE]]
    idle = {column: facts[key] for column, key in PROBE_COLUMNS.items() if facts.get(key, best - 1) >= best}
    shown = [f"{column} gives {in_unit(blank.unit, task, value):.1f}" for column, value in idle.items()]
    bar = f"{BEST_EPISODE}, {in_unit(blank.unit, task, best):.1f}"
    return [f"{blank.task}: {' and '.join(shown)} without learning, no less than {bar}."] if shown else []


def _best_model_free(groups: Sequence[Group], values: Mapping[str, Mapping[int, float]]) -> Group | None:
    """None where fewer than two are model-free, or a record does not say: that one could be the best.

    A group with a diverged seed is never the best.
    """
    model_free = [group for group in groups if group.model_free]
    if len(model_free) < 2 or any(group.model_free is None for group in groups):
        return None
    whole = [group for group in model_free if not group.diverged]
    return max(whole, key=lambda group: mean(list(values[group.label].values())), default=None)


def _seeds(ours: Group, other: Group, found: Difference) -> str:
    """How many seeds are behind a difference: "5 paired", "3 paired of 3 and 6", "3 and 6"."""
    a, b = len(ours.counted), len(other.counted)
    if not found.pairs:
        return f"{a} and {b}"
    return f"{len(found.pairs)} paired" + f" of {a} and {b}" * ({a, b} != {len(found.pairs)})


def _row(row: Comparison) -> list[Entry]:
    """The entries of a comparison; a clear one in bold."""
    blank, groups, found = row.blank, row.groups, row.found
    low, high = found.interval or (None, None)
    doubts = [f"{each.label}: {each.diverged_in_words}" for each in groups if each.diverged]
    doubts += [f"{each.label} unfinished" for each in groups if each.in_state("running")]
    steps = {each.label: {last_step(run) for run in each.counted} for each in groups}
    doubts += [f"{label}: seeds of {span(found)} steps" for label, found in steps.items() if len(found) > 1]
    apart = found.interval is not None and (found.interval[0] > 0 or found.interval[1] < 0)
    clear = apart and not doubts and row.adjusted <= 0.05
    number = replace(
        blank,
        algorithm=f"{groups[0].label} minus {row.other}",
        steps=span(last_step(run) for group in groups for run in group.counted),
        mean=found.mean,
        seeds=len(found.pairs) or min(len(group.counted) for group in groups),
        low=low,
        high=high,
        points=found.pairs if len(found.pairs) == 2 else [],
        bold=clear,
    )
    reading = "clear" if clear else "not clear" if found.interval else _why_none(groups)
    ours, other = steps[groups[0].label], steps[groups[-1].label]
    if ours != other and not doubts:
        reading += f"; after {span(ours)} and {span(other)} steps"
    leading = (number.task, without_task(number.data), number.unit, number.algorithm, row.seeds)
    return [*map(Entry, leading), number, Entry(", ".join(doubts) or reading, reading=True)]


def _why_none(groups: Sequence[Group]) -> str:
    """Why a difference has no interval."""
    counts = {len(group.counted) for group in groups}
    if min(counts) > 2:
        return "no spread, no interval"
    return f"{'one seed' if min(counts) == 1 else 'two seeds'}{' on one side' if len(counts) > 1 else ''}, no interval"
