"""One algorithm minus every other on the same dataset, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ...common.errors import UserError
from ..runs.records import Run
from .formats import Entry, Table, span
from .groups import Group, by_dataset, dataset_names, groups_in, in_columns, in_unit, last_step, unit_of, without_task
from .paper import DATASET_COLUMNS, REFERENCE
from .statistics import Interval, difference_interval, get_metric, mean, mean_interval

BEST_EPISODE = "batch max"  # of the dataset
HEADS = ["Task", "Data", "Unit", "Comparison", "Seeds", "Difference", "Reading"]


def comparisons(runs: Iterable[Run], metric: str = "last", folder: str = "results", reference: str = REFERENCE) -> Table:
    """For each task and dataset: `reference` minus every other algorithm, and minus the dataset's best episode.

    With 95 % intervals: Welch's between two algorithms, Student's against the best episode. The best of several model-free
    algorithms is marked. Where the default reference has no result in `folder` the first column takes its place, and a note
    says so. UserError, naming `folder`, without runs and for another reference that has none.
    """
    groups = groups_in(runs, folder)
    counted = in_columns(group for group in groups if group.counted)
    chosen, notes = _reference(groups, counted, reference, folder)
    names, rows = dataset_names(groups), []
    for key, here in by_dataset(group for group in groups if group.counted):
        blank = Entry(task=key.task, unit=unit_of(key.task), data=names[key])
        compared = in_columns(here)
        values = {group.label: group.values(metric, blank.unit) for group in compared}
        rows += _rows(blank, compared, values, chosen)
    title = next((group.title for group in groups if group.algorithm == chosen), chosen)
    notes += [
        f"Each seed counts with {get_metric(metric).meaning}. Clear (bold): the 95 % interval in brackets leaves out 0; "
        "Welch's between algorithms, Student's against the batch's best episode, which is one number.",
        "Nothing corrects for the number of comparisons.",
    ]
    return Table(f"{title} against the others", metric, HEADS, rows, notes, intervals=True)


def _reference(groups: Sequence[Group], counted: Sequence[Group], wanted: str, folder: str) -> tuple[str, list[str]]:
    """The algorithm whose differences to the others are shown, and a note where it is not the one wanted."""
    known = dict.fromkeys(group.algorithm for group in in_columns(groups))
    if wanted != REFERENCE and wanted not in known:
        raise UserError(f"no runs of {wanted} in {folder} to compare with: there are {', '.join(known)}")
    if wanted != REFERENCE or not counted or any(group.algorithm == wanted for group in counted):
        return wanted, []
    first = counted[0].algorithm
    return first, [f"No run of {wanted} gives a number here: the first column, {first}, is compared with the others."]


def _rows(blank: Entry, groups: Sequence[Group], values: Mapping[str, Sequence[float]], reference: str) -> list[list[Entry]]:
    """The comparisons on the dataset of `blank`, in the order of columns; each variant of the reference has its own.

    `values`: by label of a group, one number a seed in the unit of `blank`.
    """
    best_model_free, rows = _best_model_free(groups, values), []
    for ours in (group for group in groups if group.algorithm == reference):
        a = values[ours.label]
        for other in (group for group in groups if group.algorithm != reference):
            b, mark = values[other.label], " (best model-free)" if other is best_model_free else ""
            what, steps = f"{ours.label} minus {other.label}{mark}", span(map(last_step, [*ours.counted, *other.counted]))
            number = replace(blank, algorithm=what, steps=steps, mean=mean(a) - mean(b))
            rows.append(_row(number, f"{len(a)} and {len(b)}", difference_interval(a, b)))
        best = in_unit(blank.unit, blank.task, ours.data[DATASET_COLUMNS[BEST_EPISODE]])
        what, steps = f"{ours.label} minus {BEST_EPISODE}", span(map(last_step, ours.counted))
        number = replace(blank, algorithm=what, steps=steps, mean=mean(a) - best)
        rows.append(_row(number, str(len(a)), mean_interval([value - best for value in a])))
    return rows


def _best_model_free(groups: Sequence[Group], values: Mapping[str, Sequence[float]]) -> Group | None:
    """None where fewer than two are model-free, or a record does not say: that one could be the best."""
    model_free = [group for group in groups if group.model_free]
    if len(model_free) < 2 or any(group.model_free is None for group in groups):
        return None
    return max(model_free, key=lambda group: mean(values[group.label]))


def _row(number: Entry, seeds: str, interval: Interval | None) -> list[Entry]:
    """The row of a difference whose 95 % interval is this, None where a side has one seed; clear ones in bold."""
    low, high = interval or (None, None)
    clear = interval is not None and (interval[0] > 0 or interval[1] < 0)
    reading = "clear" if clear else "not clear" if interval else "one seed, no interval"
    leading = (number.task, without_task(number.data), number.unit, number.algorithm, seeds)
    return [*map(Entry, leading), replace(number, low=low, high=high, bold=clear), Entry(reading)]
