"""Which runs stand together: the seeds of one identity, the name of their column and of their dataset, and their unit.

A group holds the seeds of one identity, never more: `grouped` makes them, `labelled` gives each a name to stand under, and one
for its row: a row is a task, its parameters and a dataset. What an algorithm is
(title, model-free or not, titles of its stages, warm-up) is read from what it said of itself when it was run.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...common.errors import UserError, in_words
from ...tasks.registry import all_tasks
from ..runs.reading import printable
from ..runs.records import Run, begun, plain
from .paper import HEADINGS
from .statistics import Difference, aggregate, difference

SOURCES = ("v0", "v0-changed", "v2", "v2-changed", "regenerated", "file")  # of a dataset; the paper's first


class RowKey(NamedTuple):
    """What a row of a table shows: the task, its parameters, and the digest of the dataset's arrays, wherever these were read.

    Columns may have learned from different windows of one dataset: then the digest is that of the whole.
    """

    task: str
    parameters: tuple[str, ...]  # those that differ from the registered task's, "angle=45.0"
    digest: str

    @classmethod
    def of(cls, run: Run) -> RowKey:
        """The task that a run learned, and the dataset that it learned from."""
        data = run.cell["data"]
        return cls(run.task, changed_parameters(run.task, run.cell), str(data.get("whole", data).get("digest")))


def changed_parameters(task: str, cell: Mapping[str, Any]) -> tuple[str, ...]:
    """The task's parameters that are not those of the registered task; all of them where no such task is registered.

    A record from before records named them has none.
    """
    usual = plain(dict(all_tasks()[task].parameters)) if task in all_tasks() else {}
    parameters = cell.get("rules", {}).get("parameters", {})
    return tuple(f"{key}={value}" for key, value in sorted(parameters.items()) if key not in usual or usual[key] != value)


@dataclass(frozen=True)
class Group:
    """The seeds of one identity: same task, dataset, algorithm and configuration.

    `label` names its column, `row` its task with the parameters that set it apart; `named` are the choices that the label says.
    """

    runs: tuple[Run, ...]
    label: str = ""
    row: str = ""
    named: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return self.runs[0].task

    @property
    def algorithm(self) -> str:
        return self.runs[0].algorithm

    @property
    def identity(self) -> str:
        return self.runs[0].identity

    @property
    def cell(self) -> Mapping[str, Any]:
        """What `cell.json` holds."""
        return self.runs[0].cell

    @property
    def data(self) -> Mapping[str, Any]:
        """What the record says of the dataset: label, source, rows, window, digest, returns of its episodes."""
        return self.cell["data"]

    @property
    def whole(self) -> Mapping[str, Any]:
        """The same facts of the whole dataset, where the group learned from a window of it."""
        return {**self.data, **self.data["whole"], "window": "all"} if "whole" in self.data else self.data

    @property
    def key(self) -> RowKey:
        return RowKey.of(self.runs[0])

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in sorted(self.cell.get("overrides", {}).items())]

    @property
    def unnamed(self) -> list[str]:
        """The overrides that its label does not say: all groups of its algorithm in its row have them."""
        return [each for each in self.overrides if each not in self.named]

    @property
    def choices(self) -> list[str]:
        """What may tell it from another group of the same algorithm in its row."""
        return [*self.overrides, f"window={self.data['window']}"]

    @property
    def about(self) -> Mapping[str, Any]:
        """What the algorithm says of itself; records from before algorithms did so have nothing here."""
        return self.cell.get("about", {})

    @property
    def title(self) -> str:
        """The algorithm's name in print: its own title, else the paper's heading, else its name."""
        return self.about.get("title") or HEADINGS.get(self.algorithm, self.algorithm)

    @property
    def heading(self) -> str:
        """The label with the title for the name: "MOPO [penalty_coefficient=5]"."""
        return self.title + self.label.removeprefix(self.algorithm)

    @property
    def model_free(self) -> bool | None:
        """Whether the algorithm fits no dynamics model; None where the record does not say."""
        return self.about.get("model_free")

    @property
    def needs_simulator(self) -> bool:
        """Whether it was told what the real simulator does."""
        return self.about.get("needs_simulator", False)

    @property
    def stage_titles(self) -> Mapping[str, str]:
        """By the name of a stage, what its fit is called in print."""
        return self.about.get("stages", {})

    @property
    def warmup_steps(self) -> int:
        """The steps from the start in which the policy sees no critic."""
        return self.about.get("warmup_steps", 0)

    @property
    def imported(self) -> bool:
        """Whether these are curves of another code."""
        return bool(self.cell.get("imported"))

    @property
    def origin(self) -> str:
        """The files from which imported runs come, with the first digits of their SHA-256."""
        files = [run.record.get("imported", {}) for run in self.runs]
        return in_words(sorted({f"{each.get('file', 'no file')}, SHA-256 {each.get('sha256', '')[:8]}" for each in files}))

    @property
    def diverged(self) -> int:
        """How many seeds diverged: the mean of the others says too much of the algorithm."""
        return len(self.in_state("diverged"))

    @property
    def diverged_in_words(self) -> str:
        return f"{self.diverged} of {len(self.counted) + self.diverged} diverged"

    @property
    def counted(self) -> list[Run]:
        return [run for run in self.runs if is_counted(run)]

    @property
    def begun(self) -> str:
        """When the last of its runs was begun; empty where no record says so."""
        return begun(run.record for run in self.runs)

    def in_state(self, state: str) -> list[Run]:
        return [run for run in self.runs if run.state == state]

    def values(self, metric: str, unit: str) -> dict[int, float]:
        """By seed, one number for each that counts, in `unit`."""
        return {run.seed: in_unit(unit, self.task, aggregate(run.evaluations, metric)) for run in self.counted}


def difference_between(one: Group, other: Group, values: Mapping[str, Mapping[int, float]]) -> Difference:
    """`statistics.difference` of two groups, of numbers by label and seed: what another code made is never paired."""
    return difference(values[one.label], values[other.label], paired=not (one.imported or other.imported))


def is_counted(run: Run) -> bool:
    """Whether a run gives a number: done, or still running with something evaluated."""
    return run.state in ("done", "running") and bool(run.evaluations)


def last_step(run: Run) -> int:
    """The step of a run's last evaluation, 0 before the first."""
    return run.evaluations[-1]["step"] if run.evaluations else 0


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs by task, dataset, algorithm and identity, in the order of tasks and then `SOURCES`.

    Of the names that a dataset has in its row the first by that order counts: a file may hold what was made here.
    """
    kept: dict[tuple[RowKey, str, str], list[Run]] = {}
    names: dict[RowKey, tuple[Any, ...]] = {}
    tasks = list(all_tasks())
    for run in runs:
        key, data = RowKey.of(run), run.cell["data"]
        kept.setdefault((key, run.algorithm, run.identity), []).append(run)
        names[key] = min(names.get(key, _source(data)), _source(data))

    def place(key: tuple[RowKey, str, str]) -> tuple[Any, ...]:
        return index_in(tasks, key[0].task), *names[key[0]], *key

    return [Group(tuple(kept[key])) for key in sorted(kept, key=place)]


def labelled(groups: Sequence[Group], apart: Sequence[str] = ()) -> list[Group]:
    """Groups with a name: the algorithm and, in brackets, the overrides or the window that set it apart in the same row.

    Alone it has the plain name whatever its overrides, but for those of the settings `apart`, which are always named. Where two
    would have one name, one that gives a number keeps it, of several the highest version, and where nobody counts versions
    that begun last. Their rows are named likewise: the task and, in brackets, its parameters.
    """
    rows = _row_labels(groups)
    shared: dict[tuple[Any, ...], set[str]] = {}
    for group in groups:
        key = (group.key, group.algorithm)
        shared[key] = shared.get(key, set(group.choices)) & set(group.choices)

    def newest(group: Group) -> tuple[Any, ...]:
        versions = [(part, numbered(version)) for part, version in sorted(group.cell["versions"].items())]
        return bool(group.counted), versions, group.begun, len(group.in_state("done"))

    labels: dict[tuple[Any, ...], Group] = {}
    for group in sorted(groups, key=newest, reverse=True):
        named = [each for each in group.choices if each.partition("=")[0] in apart]
        parts = [each for each in group.choices if each in named or each not in shared[group.key, group.algorithm]]
        parts += ["imported"] * group.imported
        if holder := labels.get((group.key, _label(group.algorithm, parts))):
            versions, newer = group.cell["versions"], holder.cell["versions"]
            parts += [f"{part} version {number}" for part, number in versions.items() if newer.get(part) != number]
            if (group.key, _label(group.algorithm, parts)) in labels:
                parts.append(group.identity)
        label = _label(group.algorithm, parts)
        labels[group.key, label] = replace(group, label=label, row=rows[group.key], named=tuple(parts))
    return [next(each for each in labels.values() if each.runs is group.runs) for group in groups]


def numbered(version: Any) -> list[int]:
    """The numbers of a version, part by part: [2, 1] of "2.1"; 0 for the digits that stand for a source, "6994a8df"."""
    parts = ["0" if re.fullmatch("(?=.*[a-f])[0-9a-f]{8}", part) else part for part in str(version).split(".")]
    return [int((re.findall(r"\d+", part) or ["0"])[0]) for part in parts]


def _row_labels(groups: Sequence[Group]) -> dict[RowKey, str]:
    """The task of each row, with its parameters where they are not the registered task's.

    Of a task that is not registered here those that all its rows have go without saying.
    """
    by_task: dict[str, list[set[str]]] = {}
    for key in {group.key for group in groups if group.task not in all_tasks()}:
        by_task.setdefault(key.task, []).append(set(key.parameters))
    shared = {task: set.intersection(*parameters) for task, parameters in by_task.items()}
    keys = dict.fromkeys(group.key for group in groups)
    return {key: _label(key.task, [each for each in key.parameters if each not in shared.get(key.task, ())]) for key in keys}


def _label(name: str, parts: Sequence[str]) -> str:
    return f"{name} [{', '.join(parts)}]" if parts else name


def groups_in(runs: Iterable[Run], folder: str) -> list[Group]:
    """The labelled groups of all runs; UserError, naming their folder, where there are none."""
    groups = labelled(grouped(runs))
    if not groups:
        raise UserError(f"no runs in {folder}: `mopo-bench run --results FOLDER` makes some, `mopo-bench demo` small ones")
    return groups


def by_row(groups: Iterable[Group]) -> Iterable[tuple[RowKey, Iterable[Group]]]:
    """Groups in the order of `grouped`, those of one row together."""
    return itertools.groupby(groups, key=lambda group: group.key)


def in_columns(groups: Iterable[Group]) -> list[Group]:
    """Groups in the order of columns: the paper's, other algorithms after them, the plain name before its variants.

    Variants stand in the order of their names, numbers in these by value.
    """

    def place(group: Group) -> tuple[Any, ...]:
        return index_in(list(HEADINGS), group.algorithm), group.algorithm, _by_value(group.named), group.label

    return sorted(groups, key=place)


def _by_value(named: Iterable[str]) -> list[tuple[str, float, str]]:
    """The choices "rollout_length=10" as what sorts them: setting, number (0 where it is none), text."""
    parts = (each.partition("=") for each in named)
    return [(name, _number(value), value) for name, _, value in parts]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(value) else value


def facts_of_data(groups: Sequence[Group]) -> Mapping[str, Any]:
    """What there is to say of the dataset of one row: of the window from which all its groups learned, else of the whole."""
    first = names_dataset(groups)
    return first.data if all(other.data["window"] == first.data["window"] for other in groups) else first.whole


def names_dataset(groups: Iterable[Group]) -> Group:
    """Of groups on one dataset that whose name for it counts: a file may hold what was made here, or a copy of D4RL's."""
    return min(groups, key=lambda group: _source(group.data))


def _source(data: Mapping[str, Any]) -> tuple[int, str]:
    return index_in(SOURCES, data["source"]), str(data["label"])


def dataset_names(groups: Iterable[Group]) -> dict[RowKey, str]:
    """The label of each row's dataset, with more of it where several under that label have rows of one name."""
    by_key: dict[RowKey, list[Group]] = {}
    for group in groups:
        by_key.setdefault(group.key, []).append(group)
    facts = {key: names_dataset(members) for key, members in by_key.items()}
    names = [(group.row, group.data["label"]) for group in facts.values()]

    def apart(key: RowKey) -> str:
        whole = facts[key].whole
        file = [printable(whole["from"])] if whole["source"] == "file" and whole.get("from") else []
        return ", ".join([*file, f"{whole['rows']:,} rows", str(whole["window"]), key.digest[:8]])

    return {
        key: label if names.count((row, label)) == 1 else f"{label} ({apart(key)})"
        for key, (row, label) in zip(facts, names, strict=True)
    }


def without_task(name: str) -> str:
    """The name of a dataset without that of the task, which stands beside it: "v0" of "hopper-medium@v0"."""
    return name.partition("@")[2] or name


def score_of(task: str, value: float) -> float | None:
    """The normalised score of a return; None for a task without references, or not registered here, such as a plug-in's."""
    references = all_tasks()[task].references if task in all_tasks() else None
    return references.score(value) if references else None


def unit_of(task: str) -> str:
    """The unit in which a task is shown: "score" where it has one, else "return"."""
    return "return" if score_of(task, 0.0) is None else "score"


def in_unit(unit: str, task: str, value: float) -> float:
    """A return in `unit`; it stays a return where the task has no score."""
    score = score_of(task, value) if unit == "score" else None
    return value if score is None else score


def index_in(order: Sequence[str], name: str) -> int:
    """The place of a name in an order, after all of them if it is not there."""
    return order.index(name) if name in order else len(order)
