"""What the commands share: the console, listings, and options, those of a `RunRequest` made from its fields."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...common.errors import UserError
from ...common.settings import Choice, converted
from ...tasks.data.request import SOURCES, WINDOWS
from ..runs.request import RunRequest, option_of

# a file or a pipe has no width of its own, and COLUMNS is not asked: a parent's readline sets it to 80 unasked, which would
# break lines that a script reads. Names of folders, settings and errors are no markup
console = Console(width=None if sys.stdout.isatty() else 160, markup=False)


def whole(help: str, metavar: str = "INTEGER") -> Any:
    """An option for rows or steps, which may be written as 1e6, too."""
    return typer.Option(metavar=metavar, parser=_whole_number, help=help)


def _whole_number(text: str) -> int:
    try:
        return converted(text, int, "")
    except UserError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[str, typer.Option(help=f"{SOURCES}.")]
Window = Annotated[str, typer.Option(help=f"{Choice(*WINDOWS)} rows of the dataset.")]
Rows = Annotated[int | None, whole("Rows of a regenerated dataset.")]
DataSeed = Annotated[int, typer.Option(help="Seed of a regenerated dataset; jump and angle: odd is the second collection.")]
Clip = Annotated[bool, typer.Option(help="Accept actions outside the box, clipped.")]
Compiled = Annotated[str, typer.Option("--compile", help="auto: long runs, where a C++ compiler works; or on, off.")]


Results = Annotated[Path, typer.Option(help="Folder of run records.")]
DEFAULT_RESULTS = Path("runs")
Folders = Annotated[
    list[Path],
    typer.Option("--results", metavar="PATH", help="Folder of run records, or FOLDER:ALGORITHMS; may be given again."),
]
DEFAULT_FOLDERS = [DEFAULT_RESULTS]
Tasks = Annotated[str, typer.Option(help="Only these tasks, separated by commas.")]
Until = Annotated[int | None, whole("Count no evaluation after this step.", "STEP")]
Algorithms = Annotated[str, typer.Option(help="Only these algorithms, separated by commas.")]


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes `**asked` gets one option for each field of `RunRequest`, with its name and help text.

    An option that is not given is None, so that a suite's or a grid file's value holds; the request checks the rest.
    """
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.kind is not each.VAR_KEYWORD]
    asked = []
    for each in fields(RunRequest):
        if "help" not in each.metadata:
            continue
        kind: Any = str | None
        metavar: str | None = "TEXT"
        if isinstance(each.default, bool):
            kind, metavar = bool | None, None
        elif each.name in ("settings", "task_set"):
            kind = list[str] | None
        option = Annotated[
            kind, typer.Option(option_of(each.name), help=each.metadata["help"], metavar=metavar, show_default=False)
        ]
        asked.append(inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option))
    command.__signature__ = inspect.Signature([*asked, *(each.replace(kind=each.KEYWORD_ONLY) for each in own)])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in command.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return command


def names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def checked_count(option: str, number: int) -> int:
    if number < 1:
        raise UserError(f"{option} {number}: ask for at least 1")
    return number


CellKey = tuple[str, str, str]  # task, algorithm, identity


def cell_key(row: Mapping[str, Any]) -> CellKey:
    """What the seeds of one line have in common."""
    return row["task"], row["algorithm"], row["identity"]


def labels(rows: Iterable[Mapping[str, Any]]) -> dict[CellKey, str]:
    """By cell the algorithm and, in brackets, what sets it apart on its task, of what `ledger.choices_of` tells; else its
    identity. What another code made is called so."""
    rows = list(rows)
    cells = {cell_key(row): _choices(row) for row in rows}
    imported = {cell_key(row) for row in rows if row.get("imported")}
    found: dict[CellKey, str] = {}
    for task, algorithm in dict.fromkeys(cell[:2] for cell in cells):
        mine = {cell: choices for cell, choices in cells.items() if cell[:2] == (task, algorithm)}
        shared: set[str] = set.intersection(*mine.values())
        apart = {cell: sorted(choices - shared) for cell, choices in mine.items()}
        for cell, parts in sorted(apart.items(), key=lambda each: each[1]):
            named = parts if list(apart.values()).count(parts) == 1 else [*parts, cell[2]]
            named = [*named, "imported"] if cell in imported else named
            found[cell] = f"{algorithm} [{', '.join(named)}]" if named else algorithm
    return found


def _choices(row: Mapping[str, Any]) -> set[str]:
    if row["overrides"] is None:  # of a plan that did not say: nothing is known of it
        return {row["identity"]}
    chosen = {f"{name}={value}" for name, value in row["overrides"].items()}
    return chosen | {row["data"], f"{row['data_rows']:,} rows", f"window={row['window']}"}


def plain_table(*columns: str, fold: bool = True) -> Table:
    """A table without lines. fold: what is too wide for the terminal goes on below; otherwise no word is broken."""
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold", no_wrap=not fold)
    return table


def print_rows(rows: list[dict[str, Any]]) -> None:
    """A line per row, or, where lines would be longer than the terminal is wide, a block per row: no word is broken."""
    table = plain_table(*(column.replace("_", " ") for column in rows[0]), fold=False)
    for row in rows:
        table.add_row(*[Text(text(value)) for value in row.values()])
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        first, *others = row.items()
        console.print(Text(text(first[1]), "bold"))
        for name, value in others:
            if shown := text(value):
                console.print(Padding(Text(f"{name.replace('_', ' ')}: {shown}"), (0, 0, 0, 2), expand=False))


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
