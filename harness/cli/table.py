"""`mopo-bench table`: tables from run records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...common.errors import UserError
from .options import DEFAULT_RESULTS, Results, console, existing_folder


class Format(StrEnum):
    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"
    json = "json"


class Metric(StrEnum):
    last = "last"
    mean10 = "mean10"
    best = "best"


class TableName(StrEnum):
    table1 = "table1"
    table2 = "table2"
    scores = "scores"


def table(
    name: TableName,
    results: Results = DEFAULT_RESULTS,
    format_: Annotated[Format, typer.Option("--format")] = Format.text,
    metric: Annotated[Metric, typer.Option(help="last is the paper's.")] = Metric.last,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """A table from run records, beside the paper's.

    Example: mopo-bench table table1 --results runs --format markdown
    """
    from ..api import make_table
    from ..runs.records import write_text

    if name is not TableName.scores:
        existing_folder(results)
    text = make_table(name.value, results, format_.value, metric.value)
    if out is None:
        if isinstance(text, str):
            print(text)
        else:
            console.print(*text, sep="\n")
        return
    if not isinstance(text, str):
        raise UserError(f"--out {out}: name a --format to write (markdown, latex, csv, html, json)")
    write_text(out, text + "\n")
