"""The registered tasks: those of the catalogue, of plug-ins, and those that a program registers."""

from __future__ import annotations

from ..common.errors import unknown
from ..common.plugins import load_plugins
from .catalog import catalogue
from .task import Task

_TASKS: dict[str, Task] = {task.name: task for task in catalogue()}


def register_task(task: Task) -> Task:
    """Adds a task, or replaces the one of its name, for every command and function from now on.

    Raises UserError for a termination without a name of its own, since it stands in a run's identity.
    """
    task.identity()  # raises
    _TASKS[task.name] = task
    return task


def all_tasks() -> dict[str, Task]:
    """Every registered task by name."""
    load_plugins()
    return _TASKS


def get_task(name: str) -> Task:
    """The task of that name. Raises UserError, which names the nearest one, where there is none."""
    tasks = all_tasks()
    if name not in tasks:
        raise unknown("task", name, tasks, "mopo-bench list tasks")
    return tasks[name]
