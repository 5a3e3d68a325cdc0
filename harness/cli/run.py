"""`mopo-bench run`: runs what is missing of a grid."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from ...common.errors import several
from ..runs.interrupts import interrupts_held
from ..runs.ledger import choices_of
from ..runs.records import state_in_words
from ..runs.request import RunRequest
from .options import DEFAULT_RESULTS, Results, cell_key, checked_count, console, labels, plain_table, request_options

Suite = Annotated[str | None, typer.Option(help="A grid that comes with the package: see `list suites`.")]
Grid = Annotated[Path | None, typer.Option(help="A grid file, as --print-grid writes it.")]
PrintGrid = Annotated[bool, typer.Option("--print-grid", help="Print the grid as a file for --grid; run nothing.")]
Jobs = Annotated[int | None, typer.Option(help="Worker processes of one thread each; all cores by default, one on a GPU.")]
Backend = Annotated[str, typer.Option(help="Who does the work: loky (processes here), slurm, dask or ray.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of the cluster, for dask and ray; slurm: local tries it without.")]
Group = Annotated[int, typer.Option(help="Seeds of a cell trained together; pays on a GPU only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print cells, states and the time they take; run nothing.")]


Rerun = Annotated[bool, typer.Option("--rerun", help="Run anew what is done, fits too; the old is kept under set-aside/.")]
Yes = Annotated[bool, typer.Option("--yes", help="Begin days of work, or --rerun, without asking.")]
LONG_NAME = 28  # of a task, which is broken where it is longer
MANY_STEPS = 5_000_000  # half a day on two cores at the very least


@request_options
def run(
    suite: Suite = None,
    grid: Grid = None,
    results: Results = DEFAULT_RESULTS,
    jobs: Jobs = None,
    group: Group = 1,
    backend: Backend = "loky",
    scheduler: Scheduler = None,
    print_grid: PrintGrid = False,
    dry_run: DryRun = False,
    rerun: Rerun = False,
    yes: Yes = False,
    **asked: Any,
) -> None:
    """Runs what is missing of the grid and leaves what is done.

    Example: mopo-bench run --tasks hopper-medium --algorithms mopo,sac --seeds 3 --steps 50000
    """
    request = RunRequest.of(suite=suite, grid=grid, **asked)
    if print_grid:
        import tomli_w

        print(tomli_w.dumps(request.to_grid()), end="")
        return
    with interrupts_held():  # torch is imported here, in the midst of which it would not stop cleanly
        from ..runs.aside import described, found_of, set_aside
        from ..runs.engines import engine_of
        from ..runs.plan import make_plan
        from ..runs.runner import execute

    checked_count("--group", group)
    plan, known = make_plan(request, results), ()
    here = plan.usual_jobs if jobs is None else checked_count("--jobs", jobs)
    for line in (*warmups(plan), *shortfalls(plan), *plan.doubts, *plan.of_other_code):
        console.print(line, markup=False)
    found = found_of(plan) if rerun else []
    said = described(plan, found)
    if found and dry_run:
        console.print(f"--rerun would set aside {said}; below is what is missing now.", markup=False)
    if dry_run:
        print_plan(plan, here, group, suite or "")
        return
    engine = engine_of(backend, jobs, plan.usual_jobs, scheduler, plan.results)
    if console.is_terminal and not yes:
        if found:
            typer.confirm(f"Set aside {said} and run anew?", abort=True)
        elif days_of_work(plan):
            known = print_plan(plan, here, group, suite or "").jobs
            typer.confirm("Run all of this? It can be stopped and resumed at any time.", abort=True)
    if found:
        console.print(f"Set aside in {set_aside(plan, found)}: {said}", markup=False)
    report(execute(plan, group=group, console=console, known=known, engine=engine), plan)


def days_of_work(plan: Any) -> bool:
    """Whether a grid is so large that its price should be said before it is begun."""
    return sum(cell.steps - steps for cell, _, steps in plan.ledger.pending(plan)) > MANY_STEPS


def warmups(plan: Any) -> list[str]:
    """A line for each cell that is warm-up to its end, with the share of the run that its authors gave it."""
    lines = []
    for cell in (each for each in plan.cells if each.warmup_steps >= each.steps):
        share = cell.algorithm.learner.warmup_fraction
        lines.append(
            f"{cell.task.name}: all {cell.steps:,} steps of {cell.algorithm.name} are warm-up ({cell.warmup_steps:,} steps); "
            f"its authors warm up for {share:.0%} of a run, {cell.steps * share:,.0f} steps of this one"
        )
    return lines


def shortfalls(plan: Any) -> list[str]:
    """A line for each dataset that has fewer rows than were asked for."""
    lines = []
    for cell in plan.cells:
        rows = cell.data.get("whole", cell.data)["rows"]
        if cell.dataset.rows is not None and rows < cell.dataset.rows:
            lines.append(f"{cell.task.name}: --rows {cell.dataset.rows:,} asks for more than there are: all {rows:,} are used")
    return list(dict.fromkeys(lines))


def print_plan(plan: Any, jobs: int, group: int, suite: str) -> Any:
    """Prints what is missing of a plan, and how long it takes here: the `Estimate` that it gives."""
    from ..report.groups import without_task
    from ..runs.estimate import Calibration, duration, estimate, sentences

    calibration = Calibration(group)
    with console.status("Timing a few steps of each algorithm"):
        found = estimate(plan, min(jobs, plan.usual_jobs), calibration)
    about = [
        {
            "task": cell.task.name,
            "algorithm": cell.algorithm.name,
            "identity": cell.identity,
            **choices_of(cell.overrides, cell.data),
        }
        for cell in plan.cells
    ]
    columns = labels(about)
    names = [columns[cell_key(each)] for each in about]
    grid = plain_table("task", "data", "run or fit", "seeds", "steps", "state", "time left")
    grid.columns[0].min_width = min(LONG_NAME, max(len(row.task) for row in found.rows))
    for row, name in itertools.zip_longest(found.rows, names):  # cells first, then fits, which have no name of their own
        states = ", ".join(f"{count} {state_in_words(state)}" for state, count in row.states.items())
        left = row.note if row.seconds is None else duration(row.seconds) if row.seconds else ""
        steps = f"{row.steps:,}" if row.steps else ""
        grid.add_row(row.task, without_task(row.data), name or row.work, str(sum(row.states.values())), steps, states, left)
    console.print(grid)
    if jobs > plan.usual_jobs:
        there = several(plan.usual_jobs, "process", "processes")
        console.print(f"--jobs {jobs}: the time is that of {there}, as many as work here at once; more of them share it.")
    console.print(*sentences(found, calibration, suite), sep="\n")
    return found


def report(ended: dict[str, list[str]], plan: Any) -> None:
    """Prints what came of the grid's runs; `ended` are those that were run now, by state.

    Exits with 3 where a run of the grid failed, diverged or is not finished, whether it was run now or before, and
    where a damaged file was put aside, even if its run is done again.
    """
    from ..runs.outcome import outcome_lines

    for line in outcome_lines(plan, ended):
        console.print(line, markup=False)
    if plan.undone() or plan.ledger.repaired:
        raise typer.Exit(3)
