"""`mopo-bench status`: how far a grid is."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from ...common.errors import UserError, seeds_in_words
from ..runs.ledger import Ledger, existing_folder
from ..runs.reading import printable
from ..runs.records import DAMAGED, STATES, state_in_words
from .options import DEFAULT_RESULTS, CellKey, Json, Results, cell_key, console, labels, plain_table


def status(results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """How far the grid is: done, unfinished (begun, at work or stopped), failed, diverged, missing, damaged (a file
    is not to be believed; the next run puts it aside). With --json "running" is unfinished.

    Example: mopo-bench status --results runs
    """
    rows, faults = Ledger(existing_folder(results)).survey()
    if not rows and not faults:
        raise UserError(f"no run was planned or recorded in {results}: name a folder of `mopo-bench run` with --results")
    if as_json:
        print(json.dumps(rows, indent=1))
        for fault in faults:
            print(f"not believed: {fault}", file=sys.stderr)
        return
    columns = labels(rows)
    console.print(summary(rows, columns))
    for row in rows:
        if row["state"] in ("failed", "diverged"):
            name = printable(f"{row['task']}/{columns[cell_key(row)]}/seed-{row['seed']}")
            console.print(f"{row['state']}: {name}: {row.get('message', '')}", markup=False)
    seeds: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        for text in row.get("warnings", ()):
            seeds.setdefault((printable(f"{row['task']}/{columns[cell_key(row)]}"), text), []).append(row["seed"])
    for (name, text), warned in seeds.items():
        console.print(f"warning: {name}, {seeds_in_words(warned)}: {text}", markup=False)
    for fault in faults:
        console.print(f"not believed: {fault}", markup=False)


def summary(rows: list[dict[str, Any]], columns: dict[CellKey, str]) -> Table:
    """A line per cell, as `columns` call it: how many of its seeds are in which state, and the steps done of those wanted."""
    states = [state for state in (*STATES, DAMAGED) if any(row["state"] == state for row in rows)]
    table = plain_table("task", "algorithm", *map(state_in_words, states), "steps")
    for cell, column in columns.items():
        chosen = [row for row in rows if cell_key(row) == cell]
        counts = [str(sum(row["state"] == state for row in chosen) or "") for state in states]
        done, wanted = sum(row["steps"] for row in chosen), sum(max(row["of"], row["steps"]) for row in chosen)
        table.add_row(Text(printable(cell[0])), Text(printable(column)), *counts, f"{done:,} of {wanted:,}")
    return table
