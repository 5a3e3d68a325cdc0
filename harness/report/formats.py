"""A table and its formats: markdown, LaTeX, CSV, HTML, JSON and the terminal."""

from __future__ import annotations

import html
import itertools
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ..runs.records import csv_text

DASH, DAGGER = "–", "†"
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", DAGGER: r"$^\dagger$", "Δ": r"$\Delta$", DASH: "--"}
)


@dataclass(frozen=True)
class Cell:
    """A label (`text`), or what one column says of one task: our number, and the paper's where there is one.

    mean, std, low and high (the 95 % interval of the mean), difference (ours minus the paper's) and the paper's numbers are
    in `unit`, "score" or "return". seeds: how many make the mean; diverged ones are not among them.
    """

    text: str = ""
    task: str = ""
    algorithm: str = ""  # the column's label; empty in a cell that is only text
    unit: str = ""
    data: str = ""
    steps: str = ""
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    bold: bool = False
    unfinished: bool = False
    diverged: int = 0
    paper_mean: float | None = None
    paper_std: float | None = None
    mark: str = ""  # on the paper's number
    difference: float | None = None

    def lines(self, intervals: bool = False) -> list[str]:
        """What a reader sees, one string a line, our mean first."""
        if not self.algorithm:
            return [self.text]
        lines = [_spread(self.mean, self.std) + "*" * self.unfinished]
        if intervals and self.low is not None:
            lines.append(f"[{self.low:z.1f}, {self.high:z.1f}]")
        if self.paper_mean is not None:
            lines.append(f"({_spread(self.paper_mean, self.paper_std)}){self.mark}")
        if self.difference is not None:
            lines.append(f"Δ {self.difference:+z.1f}")
        return lines + [f"{self.diverged} diverged"] * (self.diverged > 0)


def _spread(centre: float | None, std: float | None) -> str:
    return DASH if centre is None else f"{centre:z.1f}" + ("" if std is None else f" ± {std:.1f}")


@dataclass(frozen=True)
class Table:
    """Rows of cells under `columns`, and the notes without which the numbers mean little; one method for each format."""

    title: str
    metric: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    intervals: bool = False  # whether cells show them; `to_csv` and `to_json` always hold them

    def to_csv(self) -> str:
        """Tidy: one line for each task, data and algorithm; a number that does not exist is left empty."""
        names = ("mean", "std", "seeds", "low", "high", "paper_mean", "paper_std", "difference", "diverged", "unfinished")
        return csv_text(
            [
                {"task": cell.task, "data": cell.data, "algorithm": cell.algorithm, "metric": self.metric, "unit": cell.unit}
                | {name: getattr(cell, name) for name in names}
                | {"steps": cell.steps}
                for cell in itertools.chain.from_iterable(self.rows)
                if cell.algorithm
            ]
        ).rstrip("\n")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def to_markdown(self) -> str:
        def safe(text: str) -> str:
            return re.sub(r"([\\|*_`<>])", r"\\\1", text)

        def shown(cell: Cell) -> str:
            first, *more = map(safe, cell.lines(self.intervals))
            return "<br>".join([f"**{first}**" if cell.bold else first, *more])

        lines = [list(map(safe, self.columns)), ["---"] * len(self.columns)]
        lines += [list(map(shown, row)) for row in self.rows]
        body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([f"**{safe(self.title)}**", "", *body, "", *(f"- {safe(note)}" for note in self.notes)])

    def to_html(self) -> str:
        """One <table>, notes in its foot."""

        def shown(cell: Cell) -> str:
            first, *more = map(html.escape, cell.lines(self.intervals))
            return "<br>".join([f"<strong>{first}</strong>" if cell.bold else first, *more])

        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "\n".join(f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        notes = "<br>".join(map(html.escape, self.notes))
        return (
            f"<table>\n<caption>{html.escape(self.title)}</caption>\n<thead>\n<tr>{head}</tr>\n</thead>\n"
            f"<tbody>\n{body}\n</tbody>\n"
            f'<tfoot>\n<tr><td colspan="{len(self.columns)}"><small>{notes}</small></td></tr>\n</tfoot>\n</table>'
        )

    def to_latex(self) -> str:
        """A `table` for booktabs; each line of a cell is a line of the tabular."""

        def safe(text: str) -> str:
            return re.sub(r"(?<!\w)-(?=\d)", "$-$", text.translate(LATEX))

        def shown(row: list[Cell]) -> str:
            cells = [list(map(safe, cell.lines(self.intervals))) for cell in row]
            for cell, lines in zip(row, cells, strict=True):
                lines[0] = rf"\textbf{{{lines[0]}}}" if cell.bold else lines[0]
            return "\n".join(rf"{' & '.join(line)} \\" for line in itertools.zip_longest(*cells, fillvalue=""))

        layout = "".join("c" if cell.algorithm else "l" for cell in self.rows[0])
        body = "\n\\addlinespace\n".join(map(shown, self.rows))
        notes = "\n\n".join(map(safe, self.notes))
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{safe(self.title)}}}\n\\begin{{tabular}}{{{layout}}}\n\\toprule\n"
            f"{' & '.join(map(safe, self.columns))} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\n"
            f"\\footnotesize\n{notes}\n\\end{{table}}"
        )

    def to_rich(self) -> Any:
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        def shown(cell: Cell) -> Text:
            first, *more = cell.lines(self.intervals)
            return Text("\n").join([Text(first, "bold" if cell.bold else ""), *map(Text, more)])

        table = RichTable(title=Text(self.title), caption=Text("\n".join(self.notes)), caption_justify="left", show_lines=True)
        for column in self.columns:
            table.add_column(Text(column), overflow="fold")
        for row in self.rows:
            table.add_row(*map(shown, row))
        return table
