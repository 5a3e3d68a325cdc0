"""`mopo-bench report`: a static site of run records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_FOLDERS, Algorithms, Folders, Tasks, Until, console


def report(
    out: Annotated[Path, typer.Option(help="A new or empty folder, or one of a report, which is written anew.")],
    results: Folders = DEFAULT_FOLDERS,
    tasks: Tasks = "",
    algorithms: Algorithms = "",
    until: Until = None,
    films: Annotated[Path | None, typer.Option(help="Folder of what `render` drew: 'TASK.png', 'TASK any words.mp4'.")] = None,
) -> None:
    """A static site of run records: an overview and a page for each task, with curves, every seed, warnings, and the command
    that repeats it. It opens from disk, without a network.

    Example: mopo-bench report --results runs --out site
    """
    from .. import api

    page = api.report(out, results, films, tasks, algorithms, until)
    console.print(f"{page}", highlight=False, markup=False, soft_wrap=True)
