"""`mopo-bench table`: tables from run records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..report.choices import METRICS, TABLES
from ..report.formats import FORMATS, SUFFIXES
from ..report.paper import REFERENCE
from .options import DEFAULT_FOLDERS, Algorithms, Folders, Tasks, Until, console

TableName: Any = StrEnum("TableName", list(TABLES))  # type: ignore[misc]
Format: Any = StrEnum("Format", list(FORMATS))  # type: ignore[misc]
Metric: Any = StrEnum("Metric", list(METRICS))  # type: ignore[misc]
LAST = Metric("last")
Reference = Annotated[str | None, typer.Option(help="The algorithm that `scores` and `aggregate` compare with the others.")]
Holm = Annotated[bool, typer.Option("--holm", help="Correct the comparisons of `scores` for their number.")]
Out = Annotated[Path | None, typer.Option(help=f"Write to this file; {', '.join(SUFFIXES)} say in which format.")]


def table(
    name: TableName,
    results: Folders = DEFAULT_FOLDERS,
    tasks: Tasks = "",
    algorithms: Algorithms = "",
    until: Until = None,
    reference: Reference = None,
    holm: Holm = False,
    format_: Annotated[Format | None, typer.Option("--format", help="text, or as --out says.")] = None,
    metric: Annotated[Metric, typer.Option(help="last is the paper's.")] = LAST,
    beside: Annotated[Metric | None, typer.Option(help="Another metric, whose means and differences stand below.")] = None,
    out: Out = None,
) -> None:
    """A table from run records, beside the paper's.

    Example: mopo-bench table table1 --results runs --format markdown
    """
    from .. import api

    chosen, second = format_.value if format_ else None, beside.value if beside else None
    asked: dict[str, Any] = {"metric": metric.value, "reference": reference or REFERENCE, "holm": holm, "beside": second}
    asked |= {"tasks": tasks, "algorithms": algorithms, "until": until}
    if out is not None:
        api.table(name.value, results, chosen, out=out, **asked)
        return
    made = api.make_table(name.value, results, chosen or "text", **asked)
    if isinstance(made, str):
        print(made)
    else:
        console.print(*made, sep="\n")
