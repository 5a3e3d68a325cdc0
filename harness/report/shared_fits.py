"""Which columns stand on the same fit of a stage, such as a dynamics ensemble: seed by seed, by identity and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...common.errors import in_words, seeds_in_words
from ..runs.records import Run
from .groups import Group, RowKey

OF_THE_PLACE = ("machine", "seconds")  # of what is recorded of a fit, what may differ between two that are the same


def which_fit(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each of the records of fits of one identity and seed, 0, 1, ...: the same number where they are of the same fit.

    An identity is that of data and settings, and another machine may fit other numbers. Compared is what all records hold,
    since later versions record more; one that holds nothing is taken for the first.
    """
    told = [set(each) for each in records if each]
    names = sorted(set[str]().union(*told[:1]).intersection(*told) - set(OF_THE_PLACE))
    numbers = [json.dumps([each[name] for name in names]) if each else "" for each in records]
    kinds = list(dict.fromkeys(filter(None, numbers))) or [""]
    return [kinds.index(each) if each else 0 for each in numbers]


def fit_record(run: Run, stage: str) -> Mapping[str, Any]:
    """What a run recorded of its fit; nothing in older ones."""
    found: Mapping[str, Any] = run.record.get("stage_records", {}).get(stage, {})
    return found


def shared_fits(groups: Sequence[Group]) -> list[str]:
    """Which columns stand on the same fit, a sentence for each set of columns; and the seeds for which one was fitted again."""
    columns: dict[tuple[str, str], set[str]] = {}
    titles: dict[str, str] = {}
    users: dict[tuple[str, str, str, RowKey], dict[int, list[tuple[Group, Run]]]] = {}
    for group in groups:
        titles |= group.stage_titles
        columns.setdefault((group.row, group.algorithm), set()).update([group.label] if group.counted else [])
        for run in group.counted:
            for stage, identity in run.record.get("stages", {}).items():
                of_fit = users.setdefault((stage, group.row, identity, group.key), {})
                of_fit.setdefault(run.seed, []).append((group, run))
    shared: dict[tuple[str, str, str], list[str]] = {}
    again: dict[tuple[str, str, str], list[int]] = {}
    for (stage, row, _, _), by_seed in sorted(users.items()):
        title = titles.get(stage, stage)
        alike = {seed: _alike(stage, here) for seed, here in by_seed.items()}
        for seed in sorted(seed for seed, sets in alike.items() if len(sets) > 1):
            each = "; another for ".join(sorted(in_words(sorted(labels)) for labels in alike[seed]))
            again.setdefault((row, title, each), []).append(seed)
        algorithms = {group.label: group.algorithm for here in by_seed.values() for group, _ in here}
        for labels in _together(sets for seed in sorted(alike) for sets in alike[seed] if len(sets) > 1):
            apart = [seed for seed, sets in sorted(alike.items()) if sum(not labels.isdisjoint(each) for each in sets) > 1]
            but = f", but for {seeds_in_words(apart)}," if apart else ""
            names = [_named(label, labels, columns[row, algorithms[label]], algorithms[label]) for label in sorted(labels)]
            shared.setdefault((title, but, in_words(dict.fromkeys(names))), []).append(row)
    return [
        *(
            f"One {title} per seed{but} is shared by {labels} on {', '.join(dict.fromkeys(rows))}."
            for (title, but, labels), rows in shared.items()
        ),
        *(
            f"{row}, {seeds_in_words(seeds)}: one {title} for {labels}; of the same settings, and of other numbers, as other "
            "machines fit them."
            for (row, title, labels), seeds in again.items()
        ),
    ]


def _alike(stage: str, users: Sequence[tuple[Group, Run]]) -> list[set[str]]:
    """The labels of these runs of one seed, those together that stand on one fit."""
    sets: dict[int, set[str]] = {}
    for number, (group, _) in zip(which_fit([fit_record(run, stage) for _, run in users]), users, strict=True):
        sets.setdefault(number, set()).add(group.label)
    return list(sets.values())


def _together(sets: Iterable[set[str]]) -> list[set[str]]:
    """Sets of which no two share anything: those that do are put together."""
    found: list[set[str]] = []
    for each in sets:
        meeting = [other for other in found if not each.isdisjoint(other)]
        found = [other for other in found if each.isdisjoint(other)] + [each.union(*meeting)]
    return found


def _named(label: str, shared: set[str], columns: set[str], algorithm: str) -> str:
    """The label, or, where it is one of several columns of its algorithm that all are among those shared, all of them."""
    return f"all columns of {algorithm}" if len(columns) > 1 and columns <= shared else label
