"""`mopo-bench run`: runs what is missing of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..runs.interrupts import interrupts_held
from ..runs.request import RunRequest
from .options import DEFAULT_RESULTS, Results, checked_count, console, request_options

Suite = Annotated[str | None, typer.Option(help="A grid that comes with the package: see `list suites`.")]
Grid = Annotated[Path | None, typer.Option(help="A grid file, as --print-grid writes it.")]
PrintGrid = Annotated[bool, typer.Option("--print-grid", help="Print the grid as a file for --grid; run nothing.")]
Jobs = Annotated[int | None, typer.Option(help="Worker processes of one thread each; all cores by default, one on a GPU.")]
Group = Annotated[int, typer.Option(help="Seeds of a cell trained together; pays on a GPU only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print cells, states and the time they take; run nothing.")]


Yes = Annotated[bool, typer.Option("--yes", help="Begin days of work without asking.")]
MANY_STEPS = 5_000_000  # half a day on two cores at the very least


@request_options
def run(
    suite: Suite = None,
    grid: Grid = None,
    results: Results = DEFAULT_RESULTS,
    jobs: Jobs = None,
    group: Group = 1,
    print_grid: PrintGrid = False,
    dry_run: DryRun = False,
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
        from ..runs.plan import make_plan
        from ..runs.runner import execute

    checked_count("--group", group)
    plan = make_plan(request, results)
    jobs = checked_count("--jobs", plan.usual_jobs if jobs is None else jobs)
    for line in warmups(plan):
        console.print(line)
    if dry_run:
        print_plan(plan, jobs, group, suite or "")
        return
    if console.is_terminal and not yes and days_of_work(plan):
        print_plan(plan, jobs, group, suite or "")
        typer.confirm("Run all of this? It can be stopped and resumed at any time.", abort=True)
    report(execute(plan, jobs, group, console), plan)


def days_of_work(plan: Any) -> bool:
    """Whether a grid is so large that its price should be said before it is begun."""
    from ..runs.ledger import Ledger

    return sum(cell.steps - steps for cell, _, steps in Ledger(plan.results).pending(plan)) > MANY_STEPS


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


def print_plan(plan: Any, jobs: int, group: int, suite: str) -> None:
    """What is missing of a plan, and how long it takes here."""
    from rich.markup import escape
    from rich.table import Table

    from ..runs.estimate import Calibration, duration, estimate, sentences

    calibration = Calibration(group)
    with console.status("Timing a few steps of each algorithm"):
        found = estimate(plan, min(jobs, plan.usual_jobs), calibration)
    grid = Table("task", "data", "run or fit", "seeds", "steps", "state", "time left", box=None, header_style="bold")
    for row in found.rows:
        states = ", ".join(f"{count} {state}" for state, count in row.states.items())
        left = escape(row.note) if row.seconds is None else duration(row.seconds) if row.seconds else ""
        steps = f"{row.steps:,}" if row.steps else ""
        grid.add_row(row.task, row.data, row.work, str(sum(row.states.values())), steps, states, left)
    console.print(grid)
    console.print(*sentences(found, calibration, suite), sep="\n")


def report(outcome: dict[str, list[str]], plan: Any) -> None:
    """What came of the grid's runs by state, with a reason for each that is not done, and where their records are.

    Exits with 3 where a run of the grid failed, diverged or is not finished, whether it was run now or before.
    """
    from rich.markup import escape

    from ..runs.ledger import Ledger

    if not outcome:
        console.print("Everything was done already.")
    for state, runs in sorted(outcome.items()):
        console.print(f"{state}: {len(runs)}" + (f" ({', '.join(runs)})" if state != "done" else ""))
    ledger = Ledger(plan.results)
    undone = [(cell, seed) for cell, seed in plan.seeds() if ledger.state(cell, seed) != "done"]
    for cell, seed in undone:
        why = escape(ledger.reason(cell, seed))
        console.print(f"{ledger.state(cell, seed)}: {cell.task.name}/{cell.algorithm.name}/seed-{seed}: {why}")
    for cell, seed in plan.seeds():
        for text in ledger.warnings(cell, seed):
            console.print(f"warning: {cell.task.name}/{cell.algorithm.name}/seed-{seed}: {escape(text)}")
    console.print(f"Run records are in {plan.results}; `mopo-bench table scores --results {plan.results}` prints them.")
    if undone:
        raise typer.Exit(3)
