"""The registered tasks: those of the catalogue, of plug-ins, and those that a program registers."""

from __future__ import annotations

import dataclasses
import sys

from ..common.errors import ENTRY_POINT, unknown
from ..common.plugins import checked_name, load_plugins, origin_of
from .catalog import catalogue
from .task import Task

_TASKS: dict[str, Task] = {task.name: dataclasses.replace(task, origin="mopo_bench") for task in catalogue()}


def register_task(task: Task, *, replace: bool = False) -> Task:
    """Adds a task for every command and function from now on; `replace` lets it take the place of another module's.

    Its origin, unless it names one, is the module that registers it. Raises UserError for a name that cannot be used, and for a
    termination without a name of its own, since it stands in a run's identity.
    """
    origin = task.origin or origin_of(sys._getframe(1).f_globals)
    checked_name("task", task.name, {name: each.origin for name, each in _TASKS.items()}, origin, replace)
    task.identity()  # raises
    _TASKS[task.name] = dataclasses.replace(task, origin=origin)
    return _TASKS[task.name]


def all_tasks() -> dict[str, Task]:
    """Every registered task by name."""
    load_plugins()
    return _TASKS


def get_task(name: str) -> Task:
    """The task of that name. Raises UserError, which names the nearest one, where there is none."""
    tasks = all_tasks()
    if name not in tasks:
        raise unknown("task", name, tasks, "mopo-bench list tasks", ENTRY_POINT)
    return tasks[name]
