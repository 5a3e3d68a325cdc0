"""Which runs stand together: the seeds of one identity, the name of their column and of their dataset, and their unit.

A group holds the seeds of one identity, never more: `grouped` makes them, `labelled` gives each a name to stand under. What an
algorithm is (title, model-free or not, titles of its stages, warm-up) is read from what it said of itself when it was run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...common.errors import UserError
from ...tasks.registry import all_tasks
from ..runs.records import Run
from .paper import HEADINGS
from .statistics import aggregate

SOURCES = ("v0", "v0-changed", "v2", "regenerated", "lite", "file")  # of a dataset; the paper's first


class DatasetKey(NamedTuple):
    """The task and everything that tells its datasets apart, as text."""

    task: str
    source: str
    label: str
    rows: str
    window: str
    digest: str

    @classmethod
    def of(cls, run: Run) -> DatasetKey:
        """The dataset that a run learned from."""
        return cls(run.task, *(str(run.cell["data"].get(key)) for key in cls._fields[1:]))


@dataclass(frozen=True)
class Group:
    """The seeds of one identity: same task, dataset, algorithm and configuration. `label` names its column."""

    runs: tuple[Run, ...]
    label: str = ""

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
    def dataset(self) -> DatasetKey:
        return DatasetKey.of(self.runs[0])

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in sorted(self.cell.get("overrides", {}).items())]

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
    def stage_titles(self) -> Mapping[str, str]:
        """By the name of a stage, what its fit is called in print."""
        return self.about.get("stages", {})

    @property
    def warmup_steps(self) -> int:
        """The steps from the start in which the policy sees no critic."""
        return self.about.get("warmup_steps", 0)

    @property
    def counted(self) -> list[Run]:
        return [run for run in self.runs if is_counted(run)]

    def in_state(self, state: str) -> list[Run]:
        return [run for run in self.runs if run.state == state]

    def values(self, metric: str, unit: str) -> list[float]:
        """One number for each seed that counts, in `unit`."""
        return [in_unit(unit, self.task, aggregate(run.evaluations, metric)) for run in self.counted]


def is_counted(run: Run) -> bool:
    """Whether a run gives a number: done, or still running with something evaluated."""
    return run.state in ("done", "running") and bool(run.evaluations)


def last_step(run: Run) -> int:
    """The step of a run's last evaluation, 0 before the first."""
    return run.evaluations[-1]["step"] if run.evaluations else 0


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs by task, dataset, algorithm and identity, in the order of tasks and then `SOURCES`."""
    kept: dict[tuple[Any, ...], list[Run]] = {}
    tasks = list(all_tasks())
    for run in runs:
        place = (index_in(tasks, run.task), index_in(SOURCES, run.cell["data"]["source"]))
        kept.setdefault((*place, DatasetKey.of(run), run.algorithm, run.identity), []).append(run)
    return [Group(tuple(kept[key])) for key in sorted(kept)]


def labelled(groups: Sequence[Group]) -> list[Group]:
    """Groups with a name: the algorithm and, in brackets, the overrides that set it apart on the same dataset.

    Alone it has the plain name whatever its overrides. Where two would have one name, the highest version keeps it, then
    the most seeds.
    """
    shared: dict[tuple[Any, ...], set[str]] = {}
    for group in groups:
        key = (group.dataset, group.algorithm)
        shared[key] = shared.get(key, set(group.overrides)) & set(group.overrides)

    def newest(group: Group) -> tuple[Any, ...]:
        return sorted(group.cell["versions"].items()), len(group.in_state("done"))

    labels: dict[tuple[Any, ...], Group] = {}
    for group in sorted(groups, key=newest, reverse=True):
        parts = [each for each in group.overrides if each not in shared[group.dataset, group.algorithm]]
        if holder := labels.get((group.dataset, _label(group.algorithm, parts))):
            versions, newer = group.cell["versions"], holder.cell["versions"]
            parts += [f"{part} version {number}" for part, number in versions.items() if newer.get(part) != number]
            if (group.dataset, _label(group.algorithm, parts)) in labels:
                parts.append(group.identity)
        label = _label(group.algorithm, parts)
        labels[group.dataset, label] = replace(group, label=label)
    return [next(each for each in labels.values() if each.runs is group.runs) for group in groups]


def _label(algorithm: str, parts: Sequence[str]) -> str:
    return f"{algorithm} [{', '.join(parts)}]" if parts else algorithm


def groups_in(runs: Iterable[Run], folder: str) -> list[Group]:
    """The labelled groups of all runs; UserError, naming their folder, where there are none."""
    groups = labelled(grouped(runs))
    if not groups:
        raise UserError(f"no runs in {folder}: `mopo-bench run --results {folder}` makes some, `mopo-bench demo` small ones")
    return groups


def by_dataset(groups: Iterable[Group]) -> Iterable[tuple[DatasetKey, Iterable[Group]]]:
    """Groups in the order of `grouped`, those of one dataset together."""
    return itertools.groupby(groups, key=lambda group: group.dataset)


def in_columns(groups: Iterable[Group]) -> list[Group]:
    """Groups in the order of columns: the paper's, other algorithms after them, the plain name before its variants."""
    return sorted(groups, key=lambda group: (index_in(list(HEADINGS), group.algorithm), group.algorithm, group.label))


def dataset_names(groups: Iterable[Group]) -> dict[DatasetKey, str]:
    """The label of each dataset, with rows, window and digest where one task has several under that label."""
    facts = {group.dataset: group.data for group in groups}
    labels = [data["label"] for data in facts.values()]
    return {
        key: data["label"]
        if labels.count(data["label"]) == 1
        else f"{data['label']} ({data['rows']:,} rows, {data['window']}, {data['digest'][:8]})"
        for key, data in facts.items()
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
