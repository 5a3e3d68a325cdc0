"""A table in a terminal: cut into blocks of columns where it is too wide, so that no word and no number is broken."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

Shown = tuple[list[str], bool, bool]  # the lines of an entry, whether the first is bold, whether it is a number
FRAME = 3  # what each column takes beside its text: a line and a space on both sides; the table one line more


@dataclass(frozen=True)
class Column:
    """One column: its heading and its entries; a column of words may be wrapped, one of numbers not."""

    head: str
    entries: list[Shown]

    @property
    def of_words(self) -> bool:
        return not any(number for _, _, number in self.entries)

    @property
    def least(self) -> int:
        """The width below which something breaks."""
        whole = [] if self.of_words else [line for lines, _, _ in self.entries for line in lines]
        wrapped = [line for lines, _, _ in self.entries for line in lines] if self.of_words else []
        return max(map(len, [*whole, *(part for line in [self.head, *wrapped] for part in _parts(line))]), default=1)

    @property
    def most(self) -> int:
        """The width at which nothing is wrapped."""
        return max(len(line) for lines in [[self.head], *(lines for lines, _, _ in self.entries)] for line in lines)


@dataclass(frozen=True)
class TerminalTable:
    """What rich prints of a table: one below the other as many blocks of columns as the width asks for, then the notes."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    notes: Sequence[str]

    @property
    def title(self) -> Text:
        return Text(self.name)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.color_system is None  # a file, or a terminal without styles
        rows = [[_starred(entry) if plain else entry for entry in row] for row in self.rows]
        columns = [Column(head, [row[place] for row in rows]) for place, head in enumerate(self.columns)]
        title: Text | None = self.title
        for block in blocks(columns, options.max_width):
            yield _drawn(block, options.max_width, title)
            title = None
        yield from (Text(note) for note in self.notes)
        if plain and any(bold for row in self.rows for _, bold, _ in row):
            yield Text("Bold is written **so**, since this output has no styles.")


def _starred(entry: Shown) -> Shown:
    """The entry with what is bold marked by characters, as Markdown does it."""
    (first, *more), bold, number = entry
    return [f"**{first}**" if bold else first, *more], bold, number


def blocks(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """The columns in blocks that fit the width, each led by the words at the left of the first number.

    Where one block is not enough these words are put into one column, as few of them as make it enough, else all.
    """
    count = next((place for place, column in enumerate(columns) if not column.of_words), len(columns))
    for merged in range(1, max(1, count) + 1):
        leading = [_stacked(columns[:merged]), *columns[merged:count]]
        if _least([*leading, *columns[count:]]) <= width:
            break
    block = list(leading)
    for column in columns[count:]:
        if len(block) > len(leading) and _least([*block, column]) > width:
            yield block
            block = list(leading)
        block.append(column)
    yield block


def _least(block: Sequence[Column]) -> int:
    return sum(column.least + FRAME for column in block) + 1


def _stacked(columns: Sequence[Column]) -> Column:
    """Columns of words as one, their entries below each other."""
    together = zip(*(column.entries for column in columns), strict=True)
    entries = [([line for lines, _, _ in row for line in lines], False, False) for row in together]
    return columns[0] if len(columns) == 1 else Column(", ".join(column.head for column in columns), entries)


def _drawn(block: Sequence[Column], width: int, title: Text | None) -> Table:
    """A table of the columns, the room that is left given to those that are wrapped."""
    table, room = Table(title=title, title_justify="left", show_lines=True), width - _least(block)
    drawn = []
    for column in block:
        wide = column.least + max(0, min(room, column.most - column.least))
        room -= wide - column.least
        table.add_column(_wrapped(column.head, wide), width=wide, overflow="fold")
        drawn.append([_entry(entry, wide) for entry in column.entries])
    for row in zip(*drawn, strict=True):
        table.add_row(*row)
    return table


def _entry(entry: Shown, width: int) -> Text:
    (first, *more), bold, _ = entry
    return Text("\n").join([_wrapped(first, width, "bold" if bold else ""), *(_wrapped(line, width) for line in more)])


def _wrapped(line: str, width: int, style: str = "") -> Text:
    return Text("\n".join(textwrap.wrap(line, width)), style)


def _parts(line: str) -> list[str]:
    """What a line may be broken into: words, and parts of them after a hyphen."""
    return textwrap.wrap(line, 1, break_long_words=False) or [""]
