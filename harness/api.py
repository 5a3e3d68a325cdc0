"""The functions behind the command line, for use from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..algorithms.learning.registry import Algorithm
from ..common.errors import UserError
from ..tasks.data.sources import DatasetRequest
from ..tasks.task import Task
from .runs.records import Run
from .runs.runner import Plan, default_jobs, execute, load_runs, make_plan
from .runs.suites import get_suite


def plan_run(
    *,
    suite: str | None = None,
    tasks: Sequence[Task | str] = (),
    algorithms: Sequence[Algorithm | str] = (),
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    data: str = "auto",
    window: str = "all",
    rows: int | None = None,
    batch: Path | None = None,
    data_seed: int = 0,
    clip_actions: bool = False,
    results: Path | str = "runs",
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """The checked plan of a run; `tasks`, `algorithms` and `seeds` replace the suite's own. Raises UserError."""
    chosen = get_suite(suite) if suite is not None else None
    tasks = tasks or (chosen.tasks if chosen else ())
    algorithms = algorithms or (chosen.algorithms if chosen else ())
    if not tasks or not algorithms:
        missing = "tasks" if not tasks else "algorithms"
        raise UserError(f"no {missing}: name them with --{missing}, or take a --suite (`mopo-bench list suites`)")
    return make_plan(
        tasks=tasks,
        algorithms=algorithms,
        seeds=list(range(chosen.seeds if chosen else 3)) if seeds is None else list(seeds),
        results=Path(results),
        suite=chosen,
        steps=steps,
        batch=DatasetRequest(data, rows, window, batch, data_seed, clip_actions),
        settings=settings,
        **options,
    )


def run(*, jobs: int | None = None, group: int = 1, **what: Any) -> list[Run]:
    """Runs what is missing of a grid, as `mopo-bench run` does, and gives the records of the grid's runs.

    Arguments are those of `plan_run`, and `jobs` (worker processes; all cores by default, one on a GPU) and `group`.

        from mopo_bench import run
        records = run(tasks=["point-angle"], algorithms=["mopo", "sac"], seeds=[0, 1], results="runs")
    """
    plan = plan_run(**what)
    execute(plan, default_jobs(plan) if jobs is None else jobs, group)
    wanted = {(cell.identity, seed) for cell, seed in plan.seeds()}
    return [each for each in load_runs(plan.results) if (each.identity, each.seed) in wanted]


def make_table(name: str, results: Path | str, format: str = "text", metric: str = "last") -> Any:
    """`table1`, `table2` or `scores` from the records in `results`, as text of that format ("text": for rich to print)."""
    from .report import tables

    return tables.render(name, load_runs(Path(results)), Path(results), format, metric)


def table(name: str, results: Path | str = "runs", format: str = "markdown", metric: str = "last") -> str:
    """The text of a table, as `mopo-bench table` prints it."""
    return make_table(name, results, format, metric)
