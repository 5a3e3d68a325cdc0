"""`mopo-bench export`: run records for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..report.choices import EXPORTS
from .options import DEFAULT_FOLDERS, Algorithms, Folders, Tasks, Until, console

Export: Any = StrEnum("Export", list(EXPORTS))  # type: ignore[misc]


def export(
    to: Annotated[
        Export, typer.Option(metavar="NAME", help=" ".join(f"{name}: {each.meaning}." for name, each in EXPORTS.items()))
    ],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    results: Folders = DEFAULT_FOLDERS,
    tasks: Tasks = "",
    algorithms: Algorithms = "",
    until: Until = None,
) -> None:
    """Run records for other tools.

    Example: mopo-bench export --to tensorboard --results runs --out events
    """
    from .. import api

    for path in api.export(to.value, out, results, tasks, algorithms, until):
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
