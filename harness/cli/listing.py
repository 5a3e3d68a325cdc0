"""`mopo-bench list`: what is registered."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from ..runs.request import suites
from .options import Json, print_rows, text


class Kind(StrEnum):
    algorithms = "algorithms"
    tasks = "tasks"
    suites = "suites"


def list_command(kind: Kind, as_json: Json = False) -> None:
    """What is registered, plug-ins included, with where it came from.

    Example: mopo-bench list tasks --json
    """
    rows = {Kind.algorithms: algorithm_rows, Kind.tasks: task_rows, Kind.suites: suite_rows}[kind]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = [{column: value for column, value in row.items() if column != "settings"} for row in rows]
    for row in shown:
        if row.get("references"):
            row["references"] = " to ".join(map(text, row["references"]))
    print_rows(shown)


def algorithm_rows() -> list[dict[str, Any]]:
    """One object per registered algorithm; its settings are the defaults of its configuration."""
    from ...algorithms.learning.registry import all_algorithms

    return [
        {
            "name": each.name,
            "learner": each.learner.__name__,
            "experience": each.experience.__name__,
            "stages": list(each.stages),
            "versions": " ".join(each.versions.values()),
            "from": each.origin,
            "settings": each.configure(),
        }
        for each in all_algorithms().values()
    ]


def task_rows() -> list[dict[str, Any]]:
    """One object per registered task."""
    from ...tasks.registry import all_tasks
    from ..report.paper import LAYOUTS, tasks_of

    return [
        {
            "name": task.name,
            "environment": task.environment,
            "sizes": f"{task.problem.observation_size}/{task.problem.action_size}",
            "steps": task.evaluation.steps,
            "references": list(task.references or []),
            "termination": task.identity()["termination"],
            "paper": next((name for name in LAYOUTS if task.name in tasks_of(name)), ""),
            "from": task.origin,
        }
        for task in all_tasks().values()
    ]


def suite_rows() -> list[dict[str, Any]]:
    """One object per grid that comes with the package."""
    return [
        {
            "name": name,
            "tasks": grid["tasks"],
            "algorithms": grid["algorithms"],
            "seeds": grid["seeds"],
            "description": grid["description"],
        }
        for name, grid in suites().items()
    ]
