"""The registered tasks: the catalogue, those of plug-ins, those registered by hand."""

from __future__ import annotations

from ..common.errors import unknown
from ..common.plugins import load_plugins
from .catalog import catalogue
from .task import Task

_TASKS: dict[str, Task] = {task.name: task for task in catalogue()}


def register_task(task: Task) -> Task:
    """Adds a task, or replaces the one of its name; from then on every command knows it."""
    task.identity()  # raises for a termination that has no name
    _TASKS[task.name] = task
    return task


def all_tasks() -> dict[str, Task]:
    """Every registered task by name."""
    load_plugins()
    return _TASKS


def get_task(name: str) -> Task:
    tasks = all_tasks()
    if name not in tasks:
        raise unknown("task", name, tasks, "mopo-bench list tasks")
    return tasks[name]
