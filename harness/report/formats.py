"""A table of entries, and its formats: the terminal, markdown, LaTeX, CSV, HTML and JSON."""

from __future__ import annotations

import html
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..runs.records import csv_text

DASH, DAGGER, DOUBLE_DAGGER = "–", "†", "‡"
PAGE_WIDTH = 160  # characters that a line of an A4 page holds in print of some six points; Table 2 of the paper has 151
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        DAGGER: r"$^\dagger$",
        DOUBLE_DAGGER: r"$^\ddagger$",
        "Δ": r"$\Delta$",
        DASH: "--",
    }
)


@dataclass(frozen=True)
class Entry:
    """A label (`text`), or what one column says of one task: our number, and the paper's where there is one.

    mean, std, low and high (the 95 % interval of the mean), difference (ours minus the paper's) and the paper's numbers are
    in `unit`, "score" or "return". seeds: how many make the mean or the difference; diverged ones are not among them.
    """

    text: str = ""
    reading: bool = False  # whether the text says what a number means, which another metric may see otherwise
    task: str = ""
    algorithm: str = ""  # the column's label; empty in an entry that is only text
    unit: str = ""
    data: str = ""  # the dataset's name
    steps: str = ""
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    bold: bool = False
    unfinished: bool = False
    points: list[float] = field(default_factory=list)  # of two seeds, which are too few for an interval
    diverged: int = 0
    overvalued: int = 0  # seeds whose critics predict more than their rewards allow
    label: str = ""  # of the column
    identity: str = ""
    overrides: str = ""
    paper_mean: float | None = None
    paper_std: float | None = None
    paper_sure: str = ""  # of the paper's number: "S", seen in a source, "I", inferred, or "M", from memory
    mark: str = ""  # on the paper's number
    difference: float | None = None
    beside_metric: str = ""  # of a second mean, of the same runs
    beside_mean: float | None = None
    beside_std: float | None = None
    beside_low: float | None = None  # of a second difference
    beside_high: float | None = None

    def lines(self, intervals: bool = False) -> list[str]:
        """What a reader sees, one string a line, our mean first."""
        if not self.algorithm:
            return [self.text]
        lines = [_spread(self.mean, self.std) + "*" * self.unfinished + DOUBLE_DAGGER * (self.overvalued > 0)]
        if intervals and self.low is not None:
            lines.append(bracketed(self.low, self.high))
        if intervals and self.points:
            lines.append(" and ".join(f"{point:z.1f}" for point in self.points))
        if self.beside_mean is not None:
            lines.append(f"{self.beside_metric}: {_spread(self.beside_mean, self.beside_std)}")
            if self.beside_low is not None:
                lines.append(bracketed(self.beside_low, self.beside_high))
        if self.paper_mean is not None:
            lines.append(f"({_spread(self.paper_mean, self.paper_std)}){self.mark}")
        if self.difference is not None:
            lines.append(f"Δ {self.difference:+z.1f}")
        return lines + [f"{self.diverged} of {self.seeds + self.diverged} diverged"] * (self.diverged > 0)


def bracketed(*bounds: float | None) -> str:
    """The bounds of an interval with one digit; more where one would read as 0: its sign says whether a difference is clear."""

    def shown(bound: float) -> str:
        small = 1e-6 < abs(bound) < 0.05
        return f"{float(f'{bound:.1g}'):f}".rstrip("0") if small else f"{bound:z.1f}"

    return f"[{', '.join(shown(bound) for bound in bounds if bound is not None)}]"


def _beside(entry: Entry, other: Entry, metric: str) -> Entry:
    """An entry with what another says of the same runs by that metric."""
    if entry.reading and entry.text != other.text:
        return replace(entry, text=f"{entry.text}; by {metric} {other.text}")
    if not entry.seeds or not other.seeds:
        return entry
    low, high = (other.low, other.high) if other.std is None else (None, None)
    return replace(entry, beside_metric=metric, beside_mean=other.mean, beside_std=other.std, beside_low=low, beside_high=high)


def _spread(centre: float | None, std: float | None) -> str:
    """A mean and, where there is one, its standard deviation, with one digit each; a dash for nothing."""
    return DASH if centre is None else f"{centre:z.1f}" + ("" if std is None else f" ± {std:.1f}")


@dataclass(frozen=True)
class Table:
    """Rows of entries under `columns`, and the notes without which the numbers mean little; `FORMATS` names its formats."""

    title: str
    metric: str
    columns: list[str]
    rows: list[list[Entry]]
    notes: list[str] = field(default_factory=list)
    intervals: bool = False  # whether entries show them; `to_csv` and `to_json` always hold them

    def beside(self, other: Table, meaning: str) -> Table:
        """The table with the numbers of another of the same runs, by another metric of this meaning, on lines of their own.

        Means keep their standard deviation, differences, which have none, their interval. A reading that is another by that
        metric says both.
        """
        rows = [
            [_beside(*pair, other.metric) for pair in zip(row, others, strict=True)]
            for row, others in zip(self.rows, other.rows, strict=True)
        ]
        return replace(self, rows=rows, notes=[f"{other.metric}: of the same seeds, by {meaning}.", *self.notes])

    def to_csv(self) -> str:
        """Tidy: one line for each task, dataset and algorithm; a number that does not exist is left empty."""
        names = ["mean", "std", "seeds", "low", "high", "paper_mean", "paper_std", "difference", "diverged", "unfinished"]
        names += ["overvalued", "paper_sure"]
        if any(entry.beside_metric for row in self.rows for entry in row):
            names += ["beside_metric", "beside_mean", "beside_std"]
        return csv_text(
            [
                {
                    "task": entry.task,
                    "data": entry.data,
                    "algorithm": entry.algorithm,
                    "metric": self.metric,
                    "unit": entry.unit,
                }
                | {name: getattr(entry, name) for name in names}
                | {name: getattr(entry, name) for name in ("steps", "label", "identity", "overrides")}
                for entry in itertools.chain.from_iterable(self.rows)
                if entry.algorithm
            ]
        ).rstrip("\n")

    def to_json(self) -> str:
        """Every field of the table and of its entries."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def to_markdown(self) -> str:
        """A table of GitHub's markdown, the notes listed below it."""

        def safe(text: str) -> str:
            return re.sub(r"([\\|*_`<>])", r"\\\1", text)

        def shown(entry: Entry) -> str:
            first, *more = map(safe, entry.lines(self.intervals))
            return "<br>".join([f"**{first}**" if entry.bold else first, *more])

        lines = [list(map(safe, self.columns)), ["---"] * len(self.columns)]
        lines += [list(map(shown, row)) for row in self.rows]
        body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([f"**{safe(self.title)}**", "", *body, "", *(f"- {safe(note)}" for note in self.notes)])

    def to_html(self) -> str:
        """One <table> with the notes in its foot."""

        def shown(entry: Entry) -> str:
            first, *more = map(html.escape, entry.lines(self.intervals))
            return "<br>".join([f"<strong>{first}</strong>" if entry.bold else first, *more])

        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "\n".join(f"<tr>{''.join(f'<td>{shown(entry)}</td>' for entry in row)}</tr>" for row in self.rows)
        notes = "<br>".join(map(html.escape, self.notes))
        return (
            f"<table>\n<caption>{html.escape(self.title)}</caption>\n<thead>\n<tr>{head}</tr>\n</thead>\n"
            f"<tbody>\n{body}\n</tbody>\n"
            f'<tfoot>\n<tr><td colspan="{len(self.columns)}"><small>{notes}</small></td></tr>\n</tfoot>\n</table>'
        )

    def to_latex(self) -> str:
        """A `table` for booktabs and graphicx, no wider than the page; each line of an entry is a line of the tabular.

        Columns that would be too small beside each other stand in several tabulars, one below the other.
        """

        def safe(text: str) -> str:
            return re.sub(r"(?<!\w)-(?=\d)| - ", lambda found: found[0].replace("-", "$-$"), text.translate(LATEX))

        def shown(cells: Iterable[list[str]]) -> str:
            return "\n".join(rf"{' & '.join(line)} \\" for line in itertools.zip_longest(*cells, fillvalue=""))

        def lines(entry: Entry) -> list[str]:
            first, *more = map(safe, entry.lines(self.intervals))
            return [rf"\textbf{{{first}}}" if entry.bold else first, *more]

        def tabular(places: Sequence[int]) -> str:
            layout = "".join("c" if self.rows[0][place].algorithm else "l" for place in places)
            heads = [list(map(safe, self._head(place))) for place in places]
            deepest = max(map(len, heads))
            head = shown([""] * (deepest - len(each)) + each for each in heads)
            body = "\n\\addlinespace\n".join(shown(lines(row[place]) for place in places) for row in self.rows)
            return (
                "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"
                f"\\begin{{tabular}}{{{layout}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}}}"
            )

        notes = "\n\n".join(map(safe, self.notes))
        title = re.sub(r"^Table (\d+): ", r"Table \1 of the paper: ", self.title)  # LaTeX numbers it anew
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{safe(title)}}}\n"
            + "\n\n\\medskip\n".join(map(tabular, self._blocks()))
            + f"\n\n\\medskip\\raggedright\\footnotesize\n{notes}\n\\end{{table}}"
        )

    def _head(self, place: int) -> list[str]:
        """The lines of a column's heading, which is broken between words where it is wider than the column's numbers."""
        if not self.rows[0][place].algorithm:
            return [self.columns[place]]
        return textwrap.wrap(
            self.columns[place], max(10, self._width(place)), break_long_words=False, break_on_hyphens=False
        ) or [""]

    def _width(self, place: int) -> int:
        """Characters of a column's widest entry."""
        return max(len(line) for row in self.rows for line in row[place].lines(self.intervals))

    def _blocks(self) -> list[list[int]]:
        """Places of columns, in as few blocks as the page's width asks for, each led by the words left of the first number."""
        leading = [place for place, _ in itertools.takewhile(lambda each: not each[1].algorithm, enumerate(self.rows[0]))]
        others = range(len(leading), len(self.columns))
        widths = [2 + max(self._width(place), *map(len, self._head(place))) for place in range(len(self.columns))]
        for count in range(1, len(others)):
            parts = [others[len(others) * part // count : len(others) * (part + 1) // count] for part in range(count)]
            blocks = [[*leading, *part] for part in parts]
            if all(sum(widths[place] for place in block) <= PAGE_WIDTH for block in blocks):
                return blocks
        return [[*leading, place] for place in others] or [leading]

    def to_rich(self) -> Any:
        """For rich to print in a terminal of any width."""
        from .terminal import TerminalTable

        rows = [[(entry.lines(self.intervals), entry.bold, bool(entry.algorithm)) for entry in row] for row in self.rows]
        return TerminalTable(self.title, self.columns, rows, self.notes)


FORMATS: dict[str, Callable[[Table], Any]] = {
    "text": Table.to_rich,
    "markdown": Table.to_markdown,
    "latex": Table.to_latex,
    "csv": Table.to_csv,
    "html": Table.to_html,
    "json": Table.to_json,
}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html", ".json": "json"}  # of files, by format


def span(numbers: Iterable[int]) -> str:
    """The range of some numbers, "6000 to 8000", or the one that all of them are."""
    numbers = sorted(set(numbers))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
