"""`mopo-bench check`: whether new run records are worse than a baseline's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...common.errors import UserError
from ..check.options import FEWEST_SEEDS, Options
from ..runs.ledger import existing_folder
from .options import DEFAULT_RESULTS, Json, Results, checked_count, console, names

USUAL = Options()
Baseline = Annotated[
    Path | None, typer.Option(help="A baseline file, or a folder of run records.", show_default="the package's own")
]
Tasks = Annotated[str | None, typer.Option(help="Look at these tasks of the baseline only.")]
Algorithms = Annotated[str | None, typer.Option(help="Look at these algorithms of the baseline only.")]
Margin = Annotated[float, typer.Option(help="Share of the baseline's mean that may be lost.")]
Effect = Annotated[float, typer.Option(help="Share of the mean for whose loss the power is said.")]
ErrorRate = Annotated[float, typer.Option(help="Chance of any false alarm, over all cells.")]
Seeds = Annotated[int, typer.Option(help="New seeds that each cell must have.")]
Sequential = Annotated[int | None, typer.Option(help="Look after each seed up to this many; stop once decided.")]
Vitals = Annotated[bool, typer.Option("--vitals/--no-vitals", help="Whether vitals are tested beside returns.")]
Update = Annotated[bool, typer.Option("--update", help="Write the baseline from --results instead of comparing.")]
Reason = Annotated[str, typer.Option(help="With --update: why, a line of the baseline's history.")]
Fewest = Annotated[int, typer.Option(help="With --update: seeds that each cell must have.")]
Junit = Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")]
Markdown = Annotated[Path | None, typer.Option(help="Add Markdown to this file, such as $GITHUB_STEP_SUMMARY.")]


def check(
    results: Results = DEFAULT_RESULTS,
    baseline: Baseline = None,
    tasks: Tasks = None,
    algorithms: Algorithms = None,
    margin: Margin = USUAL.margin,
    effect: Effect = USUAL.effect,
    error_rate: ErrorRate = USUAL.error_rate,
    seeds: Seeds = USUAL.seeds,
    sequential: Sequential = USUAL.sequential,
    vitals: Vitals = USUAL.vitals,
    update: Update = False,
    reason: Reason = "",
    fewest: Fewest = FEWEST_SEEDS,
    junit: Junit = None,
    markdown: Markdown = None,
    as_json: Json = False,
) -> None:
    """Whether any cell of a baseline has become worse, by more than chance and the margin.

    Exit status: 0 no; 1 yes, a regression; 2 wrong use; 3 a cell is missing, failed, diverged or damaged.

    Example: mopo-bench check --results runs/new --baseline runs/old
    """
    from ..check import checking, formats
    from ..check.baseline import default_path
    from ..check.baseline import update as write_baseline
    from ..runs.records import write_text

    if reason and not update:
        raise UserError("--reason goes with --update")
    if update:
        path = baseline or default_path()
        cells = write_baseline(path, existing_folder(results), reason, checked_count("--fewest", fewest))
        console.print(f"{len(cells)} cells are in {path}", highlight=False, soft_wrap=True)
        return
    report = checking.check(
        results,
        baseline,
        tasks=names(tasks),
        algorithms=names(algorithms),
        margin=margin,
        effect=effect,
        error_rate=error_rate,
        seeds=seeds,
        sequential=sequential,
        vitals=vitals,
    )
    if junit:
        write_text(junit, formats.junit(report) + "\n")
    if markdown:  # added: GitHub collects the summaries of several commands in one file
        before = markdown.read_text(encoding="utf-8") if markdown.exists() else ""
        write_text(markdown, before + formats.markdown(report) + "\n")
    if as_json:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        console.print(formats.table(report).to_rich())
    if report.exit_status:
        raise typer.Exit(report.exit_status)
