"""Which algorithms x tasks x seeds, with what budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...common.errors import unknown
from ..report.paper import tasks_of

ALL_COLUMNS = ("bc", "mopo", "mbpo", "sac", "bear", "brac-p", "brac-v")


@dataclass(frozen=True)
class Suite:
    """steps and rows by task: absent means the task's own budget, the task's own batch. settings: by task, applied to every
    algorithm that has the key."""

    name: str
    description: str
    tasks: tuple[str, ...]
    algorithms: tuple[str, ...] = ALL_COLUMNS
    seeds: int = 6
    steps: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: str = "auto"  # where batches come from if the user does not say


def suites() -> dict[str, Suite]:
    """By name; made when asked, so that tasks registered since are in."""
    listed = (
        Suite("table1", "Table 1 of the paper, every column at MOPO's million steps", tasks_of("table1")),
        Suite("table2", "Table 2 of the paper, at the authors' three million steps", tasks_of("table2"), ALL_COLUMNS[1:]),
        Suite(
            "demo",
            "the main job in small: ten minutes on two cores",
            ("point-angle", "hopper-medium"),
            ("bc", "mopo", "mbpo", "sac"),
            seeds=2,
            steps={"hopper-medium": 6_000},  # what fits ten minutes on two slow cores
            rows={"hopper-medium": 20_000},
            settings={"hopper-medium": {"dynamics.max_epochs": 15}},
            data="regenerated",
        ),
        Suite("ci", "point-angle, where MOPO can be told from the rest in minutes", ("point-angle",), seeds=5),
    )
    return {suite.name: suite for suite in listed}


def get_suite(name: str) -> Suite:
    known = suites()
    if name not in known:
        raise unknown("suite", name, known, "mopo-bench list suites")
    return known[name]
