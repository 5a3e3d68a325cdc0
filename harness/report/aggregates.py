"""Every algorithm over all its tasks, as Agarwal et al. 2021 (arXiv 2108.13264) advise, seeds of a task drawn anew together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..runs.records import Run
from .comparisons import chosen_reference
from .formats import Entry, Table, span
from .groups import Group, by_row, dataset_names, groups_in, in_columns, unit_of
from .notes import origin_notes
from .paper import REFERENCE
from .statistics import (
    DRAWS,
    FEWEST_DRAWN,
    Scores,
    bootstrap_interval,
    get_metric,
    interquartile_mean,
    mean_over_tasks,
    median_over_tasks,
    optimality_gap,
    pooled,
    probability_of_improvement,
    share_above,
)

HEADS = ["Over", "Unit", "Algorithm", "Runs", "Interquartile mean", "Mean", "Median", "Optimality gap", "Points"]
TARGET = 100.0  # the score of an expert: what an optimality gap is measured from
THRESHOLDS = (0.0, 25.0, 50.0, 75.0, 100.0)  # of a profile of scores
MOST_POINTS = 20  # that are shown where there are too few seeds for an interval
NOTE = (
    "Interquartile mean: of the middle half of all seeds of all tasks; a quarter that is no whole number of them is rounded "
    "down, as in rliable, so that of fewer than four it is the mean. Median: of the tasks' means. In brackets: 95 % percentile "
    f"intervals of {DRAWS:,} stratified bootstrap draws, seeds drawn anew within each task; with fewer than {FEWEST_DRAWN} "
    "seeds of a task there is none, and the seeds' own numbers are shown. With few seeds they are too narrow: of 5 that are "
    "normally distributed an interval of the mean holds the true one in 85 % of cases on one task, in 92 % on many, and in "
    "fewer where some seeds collapse."
)
GAP_NOTE = (
    "Optimality gap: how much is missing to a score of 100, on average, what is above it not counted; the less, the better."
)


@dataclass(frozen=True)
class Family:
    """The rows whose numbers may be put together: all tasks with scores, or one without. scores: by label of a column."""

    name: str
    unit: str
    groups: Mapping[str, list[Group]]
    scores: Mapping[str, Scores]

    def entry(self, label: str, what: str, statistic: Callable[..., Any], *others: str, number: bool = True) -> Entry:
        """A statistic of the column, and of others beside it, with its interval."""
        scores = [self.scores[each] for each in (label, *others)]
        low, high = bootstrap_interval(statistic, *scores) or (None, None)
        groups = self.groups[label]
        return Entry(
            task=self.name,
            algorithm=what,
            unit=self.unit if number else "",
            mean=float(statistic(*scores)),
            low=low,
            high=high,
            seeds=sum(map(len, scores[0])),
            diverged=sum(group.diverged for group in groups),
            unfinished=any(group.in_state("running") for group in groups),
            label=label,
        )


def aggregates(runs: Iterable[Run], metric: str = "last", folder: str = "results", reference: str = REFERENCE) -> list[Table]:
    """Tables over tasks: means and gaps of each algorithm, the profile of its runs, and how often `reference` is better.

    Scores of different tasks are put together, returns are not: a task without scores stands alone. Only tasks on which every
    algorithm has a number count; notes name the others. UserError as `comparisons`.
    """
    groups = groups_in(runs, folder)
    counted = in_columns(group for group in groups if group.counted)
    chosen, notes = chosen_reference(groups, counted, reference, folder)
    found, said = families(groups, metric)
    notes = [*notes, *said, f"Each seed counts with {get_metric(metric).meaning}.", NOTE]
    notes += [GAP_NOTE] * any(each.unit == "score" for each in found) + origin_notes(groups)
    rows = [row for each in found for row in _rows(each)]
    filled = [place for place in range(len(HEADS)) if not rows or any(row[place] != Entry() for row in rows)]
    heads, rows = [HEADS[place] for place in filled], [[row[place] for place in filled] for row in rows]
    tables = [Table("Over all tasks", metric, heads, rows, notes, intervals=True)]
    tables += [_profile(each, metric) for each in found]
    improvement = [row for each in found for row in _improvements(each, chosen)]
    if improvement:
        heads = ["Over", "Comparison", "Probability of improvement"]
        note = "How often a seed of the first is better than one of the second on the same task, in percent; 50: neither is."
        note += f" Of fewer than {FEWEST_DRAWN} seeds there is no interval, and 100 says little."
        tables.append(Table("Probability of improvement", metric, heads, improvement, [note], intervals=True))
    return tables


def families(groups: Sequence[Group], metric: str) -> tuple[list[Family], list[str]]:
    """What may be put together, and which rows are left out of it."""
    rows: dict[tuple[str, str], dict[str, Group]] = {}
    names = dataset_names(groups)
    for key, members in by_row(group for group in groups if group.counted):
        here = {group.label: group for group in in_columns(members)}
        rows[next(iter(here.values())).row, names[key]] = here
    scored = {row: here for row, here in rows.items() if unit_of(next(iter(here.values())).task) == "score"}
    alone = {row: here for row, here in rows.items() if row not in scored}
    made, notes = [], []
    labels = list(dict.fromkeys(label for here in scored.values() for label in here))
    whole = [row for row, here in scored.items() if len(here) == len(labels)]
    if left := [f"{task} ({data})" for task, data in scored if (task, data) not in whole]:
        notes.append(f"Not every algorithm has a number, left out: {', '.join(left)}.")
    if whole:
        name = whole[0][0] if len(whole) == 1 else f"{len(whole)} tasks"
        made.append(_family(name, "score", [scored[row] for row in whole], labels, metric))
    made += [_family(task, "return", [here], list(here), metric) for (task, _), here in alone.items()]
    counts = {len(group.counted) for each in made for members in each.groups.values() for group in members}
    if len(counts) > 1 and any(len(each) > 1 for family in made for each in family.groups.values()):
        notes.append(f"Seeds of a task: {span(counts)}; where they differ, tasks with more count more in what is pooled.")
    return made, notes


def _family(name: str, unit: str, rows: Sequence[Mapping[str, Group]], labels: Sequence[str], metric: str) -> Family:
    groups = {label: [row[label] for row in rows] for label in labels}
    scores = {label: [list(group.values(metric, unit).values()) for group in each] for label, each in groups.items()}
    return Family(name, unit, groups, scores)


def _rows(family: Family) -> list[list[Entry]]:
    statistics: dict[str, Callable[..., Any]] = {
        "interquartile mean": interquartile_mean,
        "mean": mean_over_tasks,
        "median": median_over_tasks,
    }
    rows = []
    for label, scores in family.scores.items():
        heading = family.groups[label][0].heading
        entries = [family.entry(label, f"{label}: {name}", each) for name, each in statistics.items()]
        gap = Entry()
        if family.unit == "score":
            gap = family.entry(label, f"{label}: optimality gap", partial(optimality_gap, target=TARGET))
        rows.append(
            [*map(Entry, (family.name, family.unit, heading, str(len(pooled(scores))))), *entries, gap, _points(scores)]
        )
    return rows


def _points(scores: Scores) -> Entry:
    """The numbers themselves, where there are too few for an interval, and not too many to be read."""
    values = sorted(pooled(scores).tolist())
    few = min(map(len, scores)) < FEWEST_DRAWN
    return Entry(", ".join(f"{value:z.1f}" for value in values) if few and len(values) <= MOST_POINTS else "")


def _profile(family: Family, metric: str) -> Table:
    """Which share of its runs lies above each of some thresholds."""
    everything = np.concatenate([pooled(scores) for scores in family.scores.values()])
    thresholds = THRESHOLDS if family.unit == "score" else np.linspace(everything.min(), everything.max(), 7)[1:-1].tolist()
    rows = []
    for label in family.scores:
        entries = [
            family.entry(label, f"{label}: % above {limit:.4g}", partial(_percent_above, limit=limit), number=False)
            for limit in thresholds
        ]
        rows.append([Entry(family.groups[label][0].heading), *entries])
    heads = ["Algorithm", *(f"> {limit:.4g}" for limit in thresholds)]
    return Table(
        f"Performance profile over {family.name}: % of runs above a {family.unit}", metric, heads, rows, intervals=True
    )


def _percent_above(scores: Scores, limit: float) -> Any:
    return 100 * share_above(scores, limit)


def _improvements(family: Family, reference: str) -> list[list[Entry]]:
    rows = []
    for label, groups in family.groups.items():
        for other, others in family.groups.items():
            if groups[0].algorithm == reference and others[0].algorithm != reference:
                what = f"{label} over {other}"
                entry = family.entry(label, what, _improvement_percent, other, number=False)
                rows.append([Entry(family.name), Entry(what), entry])
    return rows


def _improvement_percent(a: Scores, b: Scores) -> Any:
    return 100 * probability_of_improvement(a, b)
