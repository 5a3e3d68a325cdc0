"""`mopo-bench plot`: pictures of run records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..report.choices import METRICS, PICTURES
from .options import DEFAULT_FOLDERS, Algorithms, Folders, Tasks, Until

Picture: Any = StrEnum("Picture", list(PICTURES))  # type: ignore[misc]
Metric: Any = StrEnum("Metric", list(METRICS))  # type: ignore[misc]


def plot(
    name: Picture,
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")],
    results: Folders = DEFAULT_FOLDERS,
    tasks: Tasks = "",
    algorithms: Algorithms = "",
    until: Until = None,
    metric: Annotated[Metric | None, typer.Option(help="last (the paper's, the default); curves take none.")] = None,
) -> None:
    """A picture of run records, with a caption of what its numbers are made of.

    Example: mopo-bench plot curves --results runs --out curves.png
    """
    from .. import api

    api.plot(name.value, out, results, tasks, algorithms, metric.value if metric else None, until)
