"""What stands under a table: what its numbers are made of, read from the records."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from statistics import mode
from typing import Any

from ...common.errors import in_words, seeds_in_words
from ...tasks.data.episodes import flag_notes
from ..runs.records import LEFT_OUT_AFTER, UNKNOWN_TIME, Run, episodes_of, made_with, overvalued
from .formats import DASH, DOUBLE_DAGGER, span
from .groups import Group, RowKey, by_row, last_step, names_dataset, without_task
from .shared_fits import shared_fits
from .statistics import FEWEST, get_metric

STATES = {
    "running": "* Unfinished",
    "diverged": "Diverged, not in the means",
    "failed": "Failed, not in the means",
}
UNKNOWN_OF_IMPORTED = (
    "Data, steps and seeds are as the importer says; settings and starts are not known, and no comparison pairs their seeds."
)
LIBRARIES = ("torch", "gymnasium", "mujoco")
NAMED_SEEDS = 10  # of a column with at most so many, those are named that a warning is for


def footnotes(groups: Sequence[Group], metric: str) -> list[str]:
    """One sentence for each thing that a reader of a table of these groups must know."""
    return [
        f"Mean ± sample standard deviation over seeds (no ±: one seed) of {get_metric(metric).meaning}; "
        f"{DASH}: no run to show.",
        "Bold: the best mean and those that follow it, down to the first that is clearly below it (the 95 % interval of the "
        f"difference leaves out 0), all of at least {FEWEST} seeds and none diverged; nothing is bold where the best mean has "
        "fewer, or no rival.",
        *made_of(groups),
    ]


def made_of(groups: Sequence[Group]) -> list[str]:
    """One sentence for each thing that a reader of these groups' numbers must know."""
    return [
        *_extent(groups),
        *origin_notes(groups),
        *_by_column(groups),
        *_intervals(groups),
        *_other_code(groups),
        *_data(groups),
        *_settings(groups),
        *shared_fits(groups),
        *_warmup_only(groups),
        *_one_training(groups),
        *_overvalued(groups),
        *_warnings(groups),
        *_states(groups),
    ]


def provenance(groups: Sequence[Group]) -> list[str]:
    """What stands under a picture: steps, seeds, versions, datasets, settings, and the runs that give no number."""
    return [
        *_extent(groups),
        *origin_notes(groups),
        *_by_column(groups),
        *_other_code(groups),
        *_data(groups),
        *_settings(groups),
        *_states(groups),
    ]


def _extent(groups: Sequence[Group]) -> list[str]:
    """Steps, seeds, versions of the package and episodes; which seeds end at different steps."""
    if not groups:
        return ["No run is shown: the results folder has none of these tasks and algorithms."]
    counted = _counted(groups)
    if not counted:
        return []
    ours = [(group, run) for group, run in counted if not group.imported]
    made = made_with(run.record for _, run in ours)
    packages = {group.cell["package"] for group, _ in ours} | set(made.get("mopo-bench", []))
    by = f" Made by mopo-bench {', '.join(sorted(packages))}{_with(made)}." if ours else ""
    cut = {run.record[LEFT_OUT_AFTER] for _, run in counted if LEFT_OUT_AFTER in run.record}
    return [
        f"Steps: {span(last_step(run) for _, run in counted)}. Seeds in a cell: "
        f"{span(len(group.counted) for group in groups if group.counted)}.{by}",
        *(
            f"{group.row} {group.label}: its runs were not made by the same {in_words(mixed)}."
            for group in groups
            if (mixed := _mixed(group))
        ),
        *(f"Evaluations after step {step:,} are left out." for step in cut),
        *_episodes(counted),
        *(
            f"{group.row} {group.label}: its seeds end at different steps, {span(map(last_step, group.counted))}."
            for group in groups
            if len(set(map(last_step, group.counted))) > 1
        ),
    ]


def _episodes(counted: Sequence[tuple[Group, Run]]) -> list[str]:
    """How many episodes an evaluation has, by column where an imported one has others or does not say."""
    found: dict[str, set[int | None]] = {}
    for group, run in counted:
        found.setdefault(group.label if group.imported else "", set()).add(episodes_of(run))
    said = {}
    for label, numbers in found.items():
        known = [each for each in numbers if each is not None]
        said[label] = " or ".join(([span(known)] if known else []) + ["not known"] * (None in numbers))
    usual = said.get("", "")
    others = [f"{label} {value}" for label, value in said.items() if label and value != usual]
    return [f"Episodes in an evaluation: {'; '.join(filter(None, [usual, *others]))}."] if said else []


def _imported(groups: Sequence[Group]) -> list[str]:
    """What other codes made, which ones, and from which files."""
    told = []
    for group in (each for each in groups if each.imported):
        code = group.cell["versions"].get("code", "of an unknown code")
        told.append((f"{code}; {group.origin}", group.row, group.label))
    said = "; ".join(f"{what} ({by})" for by, what in _merged(told))
    return [f"Imported, not made by this project: {said}. {UNKNOWN_OF_IMPORTED}"] if said else []


def _with(made: Mapping[str, Sequence[str]]) -> str:
    """The libraries that decide numbers, with their versions, and at how many commits of this project; empty in old records."""
    libraries = [f"{name} {in_words(made[name])}" for name in LIBRARIES if name in made]
    commits = made.get("commit", [])
    at = f", at commit {commits[0]}" if len(commits) == 1 else f", at {len(commits)} commits" * bool(commits)
    return f" with {in_words(libraries)}{at}" if libraries else at


def _mixed(group: Group) -> list[str]:
    """The libraries of which the runs of a group had several versions."""
    made = made_with(run.record for run in group.counted)
    return [f"{name} ({in_words(made[name])})" for name in LIBRARIES if len(made.get(name, [])) > 1]


def _by_column(groups: Sequence[Group]) -> list[str]:
    """Steps and windows of each column, where the columns differ in them."""
    steps: dict[str, set[int]] = {}
    windows: dict[str, set[str]] = {}
    for group, run in _counted(groups):
        steps.setdefault(group.label, set()).add(last_step(run))
        windows.setdefault(group.label, set()).add(group.data["window"])
    said = {
        "Steps": {label: span(each) for label, each in steps.items()},
        "Windows": {label: in_words(sorted(each)) for label, each in windows.items()},
    }
    return [
        f"{what} by column: {'; '.join(f'{label} {value}' for label, value in by_label.items())}."
        for what, by_label in said.items()
        if len(set(by_label.values())) > 1
    ]


def _intervals(groups: Sequence[Group]) -> list[str]:
    """The rows whose runs are evaluated at other intervals: the mean of the last ten is then of other parts of them."""
    notes = []
    for _, members in by_row(groups):
        found: dict[int, dict[str, None]] = {}  # labels by interval, each once
        for group, run in _counted(list(members)):
            steps = [row["step"] for row in run.evaluations]
            if len(steps) > 1:  # of one nothing is known; a stop in between does not make it another interval
                gap = mode(after - before for before, after in itertools.pairwise(steps))
                found.setdefault(gap, {})[group.label] = None
        if len(found) > 1:
            said = "; ".join(f"{gap:,} of {in_words(labels)}" for gap, labels in sorted(found.items()))
            notes.append(
                f"{group.row}: steps between evaluations are {said}: the last ten, and the best of all, are not of like parts."
            )
    return notes


def _other_code(groups: Sequence[Group]) -> list[str]:
    """Which columns differ in nothing that was chosen, and when each was begun."""
    alike: dict[tuple[Any, ...], list[Group]] = {}
    for group in (each for each in groups if not each.imported):  # whose code has a name
        alike.setdefault((group.key, group.algorithm, *group.choices), []).append(group)
    return [
        f"{several[0].row}: no setting that was chosen tells these columns apart, but code or rules; they were begun, in UTC, "
        f"{in_words(f'{each.label} {each.begun or UNKNOWN_TIME}' for each in sorted(several, key=lambda each: each.begun))}."
        for several in alike.values()
        if len(several) > 1
    ]


def _data(groups: Sequence[Group]) -> list[str]:
    """The dataset of each row: how many rows, which window, from where; and of which columns, where these differ in it."""
    by_key: dict[RowKey, dict[tuple[str, str, int], list[Group]]] = {}
    for group in groups:
        extent = (str(group.data["label"]), group.data["window"], group.data["rows"])
        by_key.setdefault(group.key, {}).setdefault(extent, []).append(group)
    notes, datasets = [], dict[tuple[Any, ...], dict[str, None]]()
    for key, extents in by_key.items():
        members = [group for each in extents.values() for group in each]
        naming = names_dataset(members)
        first = naming.data["label"]
        datasets.setdefault((key.task, key.parameters, naming.whole["rows"], first), {})[key.digest[:8]] = None
        said = [
            f"{rows:,} rows, window {window}"
            + f", read as {_file(alike[0])}" * (label != first)
            + f" for {in_words(group.label for group in alike)}" * (len(extents) > 1)
            for (label, window, rows), alike in extents.items()
        ]
        origin = f", from {naming.data['from']}" if naming.data.get("from") else ""
        doubts = (doubt for group in members for doubt in group.data.get("doubts", ()))
        odd = dict.fromkeys((*flag_notes(naming.data.get("provenance", {})), *doubts))
        notes.append(f"Data {first}: {'; '.join(said)}{origin}{''.join(f'; {each}' for each in odd)}.")
    notes += [
        f"{name} is {len(digests)} datasets, with the digests {in_words(digests)}: other files, or made by other versions of "
        "this package or its simulator. Runs on different ones are not compared."
        for (*_, name), digests in datasets.items()
        if len(digests) > 1
    ]
    return list(dict.fromkeys(notes))


def _file(group: Group) -> str:
    """What a dataset that has another name elsewhere in its row is called."""
    return f"{without_task(group.data['label'])} {group.data.get('from') or ''}".strip()


def _settings(groups: Sequence[Group]) -> list[str]:
    """The settings that a user or a suite chose, but for those that the names of columns say, or the axes of a sweep."""
    chosen = dict.fromkeys((", ".join(group.unnamed), group.row, group.algorithm) for group in groups if group.unnamed)
    return [f"Not at the default: {settings} for {what}." for settings, what in _merged(chosen)]


def origin_notes(groups: Sequence[Group]) -> list[str]:
    """Which groups are of another code, and which were told what the real simulator does, as no offline algorithm is."""
    return [*_imported(groups), *_with_simulator(groups)]


def _with_simulator(groups: Sequence[Group]) -> list[str]:
    told = [("needs the simulator", group.row, group.label) for group in groups if group.needs_simulator]
    return [f"Needs the simulator, as no offline algorithm may: {what}." for _, what in _merged(told)]


def _warmup_only(groups: Sequence[Group]) -> list[str]:
    """The groups whose runs ended before the algorithm's warm-up did."""
    return [
        f"{group.row} {group.label}: all its steps were warm-up, in which the policy sees no critic."
        for group in groups
        if group.counted and 0 < max(map(last_step, group.counted)) <= group.warmup_steps
    ]


def _one_training(groups: Sequence[Group]) -> list[str]:
    """The groups whose seeds trained alike: to the last digit with the same metrics, which change as they train."""
    notes = []
    for group in groups:
        seen = [[row.get("metrics") for row in run.evaluations] for run in group.counted]
        moves = any(row != seen[0][0] for row in seen[0][1:]) if seen else False
        if len(seen) > 1 and moves and all(each == seen[0] for each in seen[1:]):
            notes.append(
                f"{group.row} {group.label}: its {len(seen)} seeds have the same metrics to the last digit, as one training "
                "would: their spread is that of the starts of evaluations."
            )
    return notes


def _overvalued(groups: Sequence[Group]) -> list[str]:
    """The groups whose critics predict what no policy could earn, with the first evaluation of one seed as an example."""
    notes = []
    for group in groups:
        if found := [(run.seed, row) for run in group.counted if (row := overvalued(run.evaluations))]:
            (seed, row), where = found[0], f"{group.row} {group.label}"
            mean, highest = row["value"]["mean"], row["value"]["highest"]
            notes.append(
                f"{DOUBLE_DAGGER} {where}: the critics' mean value exceeds what the rewards allow in {len(found)} of "
                f"{len(group.counted)} seeds (seed {seed} at step {row['step']:,}: {mean:.4g}, of at most {highest:.4g})."
            )
    return notes


def _warnings(groups: Sequence[Group]) -> list[str]:
    """What else the records say that a reader should know, in the words of one seed where they are not those of all.

    What every seed of a column says in the same words is said once for all such columns.
    """
    notes, alike = [], []
    for group in groups:
        for kind in sorted({kind for run in group.counted for kind in run.record.get("warnings", {})}):
            said = {run.seed: text for run in group.counted if (text := run.record.get("warnings", {}).get(kind))}
            if said:
                seeds, count, text = list(said), len(group.counted), next(iter(said.values()))
                if len(seeds) == len(group.runs) and len(set(said.values())) == 1:
                    alike.append((text, group.row, group.label))
                    continue
                listed = f" ({seeds_in_words(seeds)})" * (len(seeds) < count <= NAMED_SEEDS)
                alone = f" (in the words of seed {seeds[0]})" * (len(set(said.values())) > 1)
                notes.append(f"{group.row} {group.label}, {len(seeds)} of {count} seeds{listed}: {text}{alone}.")
    return [*(f"Every seed of {what}: {text}." for text, what in _merged(alike)), *notes]


def _states(groups: Sequence[Group]) -> list[str]:
    """The runs that are unfinished or give no number."""
    notes = []
    for state, meaning in STATES.items():
        if runs := [f"{group.row} {group.label} seed {run.seed}" for group in groups for run in group.in_state(state)]:
            notes.append(f"{meaning}: {', '.join(runs)}.")
    return notes


def _counted(groups: Iterable[Group]) -> list[tuple[Group, Run]]:
    """Every run that gives a number, with its group."""
    return [(group, run) for group in groups for run in group.counted]


def _merged(triples: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """(fact, task, label) with equal facts put together: (fact, "mbpo and mopo on hopper-medium, point-angle")."""
    by_task: dict[tuple[str, str], list[str]] = {}
    for fact, task, label in triples:
        by_task.setdefault((fact, task), []).append(label)
    tasks: dict[tuple[str, str], list[str]] = {}
    for (fact, task), labels in by_task.items():
        tasks.setdefault((fact, in_words(labels)), []).append(task)
    return [(fact, f"{labels} on {', '.join(where)}") for (fact, labels), where in tasks.items()]
