"""The functions behind the command line, for use from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .check.checking import check as check
from .runs.ledger import load_runs
from .runs.records import Run
from .runs.request import RunRequest


def plan_run(*, results: Path | str = "runs", suite: str | None = None, grid: Path | str | None = None, **what: Any) -> Any:
    """The checked plan of a run, a `Plan`; arguments are those of `run`. Raises UserError for what cannot be run."""
    from .runs.plan import make_plan

    return make_plan(RunRequest.of(suite=suite, grid=grid, **what), results)


def run(*, jobs: int | None = None, group: int = 1, **what: Any) -> list[Run]:
    """Runs what is missing of a grid, as `mopo-bench run` does, and gives the records of the grid's runs.

    Arguments are `results` (a folder, "runs" by default), `suite` or `grid` (a file), the fields of `RunRequest`, which are the
    options of the command line, `jobs` (worker processes; all cores by default, one on a GPU) and `group` (seeds trained
    together). Raises UserError, one line, for what cannot be run.

        from mopo_bench import run
        records = run(tasks=["point-angle"], algorithms=["mopo", "sac"], seeds=[0, 1], results="runs")
    """
    from .runs.runner import execute

    plan = plan_run(**what)
    execute(plan, plan.usual_jobs if jobs is None else jobs, group)
    wanted = {(cell.identity, seed) for cell, seed in plan.seeds()}
    return [each for each in load_runs(plan.results) if (each.identity, each.seed) in wanted]


def make_table(name: str, results: Path | str, format: str = "text", metric: str = "last", **options: Any) -> Any:
    """`table1`, `table2` or `scores` from the records in `results`, as text of that format ("text": for rich to print)."""
    from .report import tables

    return tables.render(name, load_runs(results), Path(results), format, metric, **options)


def table(name: str, results: Path | str = "runs", format: str = "markdown", metric: str = "last", **options: Any) -> str:
    """The text of a table, as `mopo-bench table` prints it."""
    return make_table(name, results, format, metric, **options)
