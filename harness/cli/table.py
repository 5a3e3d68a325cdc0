"""`mopo-bench table`: tables from run records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer

from ...common.errors import UserError
from ..report.formats import FORMATS
from ..report.paper import REFERENCE
from ..report.statistics import METRICS
from ..report.tables import TABLES
from .options import DEFAULT_RESULTS, Results, console, existing_folder

Name = Annotated[str, typer.Argument(click_type=click.Choice(list(TABLES)), metavar="|".join(TABLES))]
Format = Annotated[str, typer.Option("--format", click_type=click.Choice(list(FORMATS)))]
Metric = Annotated[str, typer.Option(click_type=click.Choice(list(METRICS)), help="last is the paper's.")]
Reference = Annotated[str | None, typer.Option(help="The algorithm that `scores` compares with the others.")]
Out = Annotated[Path | None, typer.Option(help="Write to this file.")]


def table(
    name: Name,
    results: Results = DEFAULT_RESULTS,
    reference: Reference = None,
    format_: Format = "text",
    metric: Metric = "last",
    out: Out = None,
) -> None:
    """A table from run records, beside the paper's.

    Example: mopo-bench table table1 --results runs --format markdown
    """
    from ..api import make_table
    from ..runs.records import write_text

    if name != "scores":
        existing_folder(results)
    made = make_table(name, results, format_, metric, reference=reference or REFERENCE)
    if out is None:
        if isinstance(made, str):
            print(made)
        else:
            console.print(*made, sep="\n")
        return
    if not isinstance(made, str):
        raise UserError(f"--out {out}: name a --format to write ({', '.join(FORMATS)})")
    write_text(out, made + "\n")
