"""One algorithm minus every other on the same dataset, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...common.errors import UserError
from ..runs.records import Run
from .formats import Entry, Table, span
from .groups import Group, by_dataset, dataset_names, groups_in, in_columns, in_unit, last_step, unit_of, without_task
from .paper import DATASET_COLUMNS, REFERENCE
from .statistics import difference_interval, get_metric, mean, mean_interval

BEST_EPISODE = "batch max"  # of the dataset
HEADS = ["Task", "Data", "Unit", "Comparison", "Seeds", "Difference", "Reading"]


@dataclass(frozen=True)
class Shown:
    """What all rows of one dataset have in common."""

    task: str
    data: str
    unit: str
    metric: str

    def values(self, group: Group) -> list[float]:
        return group.values(self.metric, self.unit)


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
        shown = Shown(key.task, names[key], unit_of(key.task), metric)
        rows += _rows(shown, in_columns(here), chosen)
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


def _rows(shown: Shown, groups: Sequence[Group], reference: str) -> list[list[Entry]]:
    """The comparisons on one dataset, in the order of columns; each variant of the reference has its own."""
    best_model_free = _best_model_free(shown, groups)
    rows = []
    for ours in (group for group in groups if group.algorithm == reference):
        for other in (group for group in groups if group.algorithm != reference):
            mark = " (best model-free)" if other is best_model_free else ""
            rows.append(_against_group(shown, ours, other, mark))
        rows.append(_against_best_episode(shown, ours))
    return rows


def _best_model_free(shown: Shown, groups: Sequence[Group]) -> Group | None:
    """None where fewer than two are model-free, or a record does not say: that one could be the best."""
    model_free = [group for group in groups if group.model_free]
    if len(model_free) < 2 or any(group.model_free is None for group in groups):
        return None
    return max(model_free, key=lambda group: mean(shown.values(group)))


def _against_group(shown: Shown, ours: Group, other: Group, mark: str) -> list[Entry]:
    a, b = shown.values(ours), shown.values(other)
    return _row(
        shown,
        what=f"{ours.label} minus {other.label}{mark}",
        seeds=f"{len(a)} and {len(b)}",
        steps=span(map(last_step, [*ours.counted, *other.counted])),
        difference=mean(a) - mean(b),
        interval=difference_interval(a, b),
    )


def _against_best_episode(shown: Shown, ours: Group) -> list[Entry]:
    a, best = shown.values(ours), in_unit(shown.unit, shown.task, ours.data[DATASET_COLUMNS[BEST_EPISODE]])
    return _row(
        shown,
        what=f"{ours.label} minus {BEST_EPISODE}",
        seeds=str(len(a)),
        steps=span(map(last_step, ours.counted)),
        difference=mean(a) - best,
        interval=mean_interval([value - best for value in a]),
    )


def _row(
    shown: Shown, *, what: str, seeds: str, steps: str, difference: float, interval: tuple[float, float] | None
) -> list[Entry]:
    low, high = interval or (None, None)
    clear = interval is not None and (interval[0] > 0 or interval[1] < 0)
    number = Entry(
        task=shown.task,
        algorithm=what,
        unit=shown.unit,
        data=shown.data,
        steps=steps,
        mean=difference,
        low=low,
        high=high,
        bold=clear,
    )
    reading = "clear" if clear else "not clear" if interval else "one seed, no interval"
    return [*map(Entry, (shown.task, without_task(shown.data), shown.unit, what, seeds)), number, Entry(reading)]
