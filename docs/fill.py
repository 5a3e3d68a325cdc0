"""Fills README.md and pages in docs/ from committed files and from the code: `python docs/fill.py`, from anywhere.

A block stands between `<!-- KIND ... -->` and `<!-- end of KIND -->`: `table ...` is what that command of `mopo-bench` prints
as Markdown in the root of the repository, `steps FOLDER` how evaluations rose as training went on, `verdicts` the claims on
MOPO by task; `commands` and `reference` come from the code (`reference.py`), `file PATH` is that file, others are the rows of
`FILES`, below `results/`. Nothing between two such lines is written by hand. The picture below a line `<!-- plot ... -->` is
what that command draws.
"""

import contextlib
import csv
import io
import itertools
import re
import runpy
from pathlib import Path
from typing import Any

from mopo_bench import load
from mopo_bench.harness.cli.app import app
from mopo_bench.harness.cli.options import markdown
from mopo_bench.harness.report.paper import HEADINGS, tasks_of
from mopo_bench.results.claims import BEST

ROOT = Path(__file__).resolve().parents[1]
FILLED = ("beyond", "causes", "commands", "data", "fidelity", "figures-and-appendices", "reference", "results", "small-tasks")
NAMES = ("README.md", *(f"docs/{name}.md" for name in FILLED))
PAGES = [ROOT / name for name in NAMES]
BLOCK = re.compile(
    r"(<!-- (table|steps|verdicts|batches|actors|first weights|claims|commands|reference|file)(?: ([^\n]*?))? -->\n)"
    r"(.*?)(<!-- end of \2 -->)",
    re.DOTALL,
)
PICTURE = re.compile(r"<!-- plot ([^\n]+?) -->\n!\[[^\]]*\]\(([^)]+)\)")
# how any table of run records is read: said under the first table of a page that it holds for, not under each
HOW_TO_READ = re.compile(
    r"- (mean10:|Score:|Zero Action,|In parentheses|The figure's bars|I:|M:|Mean ±|Bold:"
    r"|Each seed|In brackets|Clear|Best model-free|Nothing corrects)"
)
READ_ABOVE = "- How to read it is said under a table above."
RIVALS = ("mbpo", "bc", "sac", BEST)  # with which the table of verdicts compares MOPO
WORDS = {"more": "**above**", "less": "**below**", "not clear": "open", "too few seeds": "too few seeds"}
STEPS = (20_000, 50_000, 100_000, 200_000, 300_000, 500_000, 750_000, 1_000_000)
FILES = {
    "batches": ("collection/batches-seed0.csv", "collection/batches-seed1.csv"),
    "actors": ("collection/actors.csv",),
    "first weights": ("first_weights/scores.csv",),
    "claims": ("claims.csv",),
}


def made(kind: str, asked: str) -> str:
    """The Markdown of one block, without a last line break."""
    if kind == "table":
        with contextlib.chdir(ROOT), contextlib.redirect_stdout(io.StringIO()) as printed:
            app(["table", *asked.split(), "--format", "markdown"], standalone_mode=False)
        return printed.getvalue().strip()
    if kind == "steps":
        return markdown(by_steps(load(ROOT / asked)))
    if kind == "verdicts":
        return markdown(verdicts())
    if kind == "file":
        return (ROOT / asked).read_text(encoding="utf-8").strip()
    if kind in ("commands", "reference"):
        return runpy.run_path(str(ROOT / "docs" / "reference.py"))[kind]()
    rows = [row for name in FILES[kind] for row in rows_of(name)]
    rows = [{column: value for column, value in row.items() if not column.startswith("p by Holm")} for row in rows]  # too wide
    return markdown(without_repetition(rows, "claim", "of") if kind == "claims" else rows)


def without_repetition(rows: list[dict[str, str]], *columns: str) -> list[dict[str, str]]:
    """The rows, with nothing in these columns where they say what they say in the row before."""
    shown = rows[:1]
    for before, row in itertools.pairwise(rows):
        same = all(before[column] == row[column] for column in columns)
        shown.append({**row, **dict.fromkeys(columns, "")} if same else row)
    return shown


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file below `results/`."""
    with (ROOT / "results" / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def verdicts() -> list[dict[str, str]]:
    """A row for each task, the paper's first: what MOPO has more than each of `RIVALS`, by both metrics where both are there.

    A word says what the readings have in common.
    """
    claims = {(row["task"], row["compared"]): row for row in rows_of("claims.csv")}
    rows = []
    for task in dict.fromkeys(task for task, compared in claims if compared == f"mopo minus {RIVALS[0]}"):
        mine = {rival: claims.get((task, f"mopo minus {rival}")) for rival in RIVALS}
        run = [claim for claim in mine.values() if claim]
        seeds = list(dict.fromkeys(claim["seeds"] for claim in run))
        row = {"task": task, "unit": run[0]["unit"], "seeds": " and ".join(seeds)}
        for rival, claim in mine.items():
            heading = f"minus {HEADINGS.get(rival, rival)}"
            if claim is None:
                row[heading] = "not run"
                continue
            readings = {claim[f"reading by {metric}"].split(",")[0] for metric in ("last", "mean10") if claim[metric]}
            word = WORDS[readings.pop()] if len(readings) == 1 else WORDS["not clear"]
            also = f"<br>mean10: {claim['mean10']}" if claim["mean10"] else ""
            count = f"<br>seeds: {claim['seeds']}" if len(seeds) > 1 else ""
            row[heading] = f"{word}<br>{claim['last']}{also}{count}"
        rows.append(row)
    return sorted(rows, key=lambda row: not any(row["task"] in tasks_of(name) for name in ("table2", "table1")))


def by_steps(records: Any) -> list[dict[str, str]]:
    """A row for each run: mean and range of all its evaluations from one of `STEPS` to the next, in the unit of the task."""
    labels = records.runs.set_index(["task", "identity", "seed"])["label"]
    rows = []
    for (task, identity, seed), run in records.evaluations.groupby(["task", "identity", "seed"], sort=False):
        values = run.set_index("step")["return_mean" if run["score"].isna().all() else "score"].sort_index()
        digits = 0 if run["score"].isna().all() else 1
        row = {"task": task, "column": labels[task, identity, seed], "seed": str(seed)}
        for before, step in itertools.pairwise((0, *STEPS)):
            part = values[(values.index > before) & (values.index <= step)]
            text = f"{part.mean():.{digits}f} ({part.min():.{digits}f} to {part.max():.{digits}f})" if len(part) else "–"
            ended = f", to {values.index.max():,}" if before < values.index.max() < step else ""
            row[f"{before:,} to {step:,}"] = text + ended
        rows.append(row)
    return rows


def filled(page: Path) -> str:
    """The text of a page with every block made anew."""
    said: set[str] = set()

    def block(found: re.Match[str]) -> str:
        text = made(found[2], found[3])
        return f"{found[1]}{without_repeats(text, said) if found[2] == 'table' else text}\n{found[5]}"

    return BLOCK.sub(block, page.read_text(encoding="utf-8"))


def without_repeats(text: str, said: set[str]) -> str:
    """The Markdown of tables without the notes on how to read them that were `said` before, to which it adds its own."""
    lines: list[str] = []
    told = False  # of the table at hand
    for line in text.split("\n"):
        told = told and not line.startswith("**")
        repeated = line in said
        if HOW_TO_READ.match(line):
            said.add(line)
        if not repeated:
            lines.append(line)
        elif not told:
            lines.append(READ_ABOVE)
            told = True
    return "\n".join(lines)


def pictures() -> dict[Path, str]:
    """By file of the pictures that `mopo-bench plot` draws, its words."""
    found = ((page, *picture) for page in PAGES for picture in PICTURE.findall(page.read_text(encoding="utf-8")))
    return {page.parent / name: words for page, words, name in found}


def draw(words: str, out: Path) -> None:
    """Draws a picture of committed records."""
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(io.StringIO()):
        app(["plot", *words.split(), "--out", str(out)], standalone_mode=False)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page), encoding="utf-8")
    for picture, words in pictures().items():
        draw(words, picture)
