"""What the commands share: the console, listings, options of several commands, and those that are counts or lists."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...algorithms.learning.fast.compiling import Compile
from ...common.errors import UserError
from ...common.settings import Choice
from ...tasks.data.request import SOURCES, WINDOWS

console = Console(width=None if sys.stdout.isatty() else 160)  # a file or a pipe has no width of its own
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[str, typer.Option(help=f"{SOURCES}.")]
Window = Annotated[str, typer.Option(help=f"{Choice(*WINDOWS)} rows of the dataset.")]
Rows = Annotated[int | None, typer.Option(help="Rows of a regenerated dataset.")]
DataSeed = Annotated[int, typer.Option(help="Seed of a regenerated dataset; jump and angle: odd is the second collection.")]
Clip = Annotated[bool, typer.Option(help="Accept actions outside the box, clipped.")]
Compiled = Annotated[Compile, typer.Option("--compile", help="auto: long runs, where a C++ compiler works; or on, off.")]


def names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def checked_count(option: str, number: int) -> int:
    if number < 1:
        raise UserError(f"{option} {number}: ask for at least 1")
    return number


def print_rows(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold")
    for index, column in enumerate(rows[0]):
        table.add_column(column.replace("_", " "), no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*[text(value) for value in row.values()])
    console.print(table)


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [[column.replace("_", " ") for column in rows[0]], ["---"] * len(rows[0])]
    lines += [[text(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(each) for each in value)
    return "" if value is None else str(value)
