"""`mopo-bench status`: how far a grid is."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..runs.ledger import Ledger, existing_folder
from ..runs.records import STATES
from .options import DEFAULT_RESULTS, Json, Results, console


def status(results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """How far the grid is: done, running (begun, not finished), failed, diverged, missing.

    Example: mopo-bench status --results runs
    """
    rows = Ledger(existing_folder(results)).status()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    console.print(summary(rows))
    for row in rows:
        if row["state"] in ("failed", "diverged"):
            name = f"{row['task']}/{row['algorithm']}/seed-{row['seed']}"
            console.print(f"{row['state']}: {name}: {escape(row.get('message', ''))}")
    for row in rows:
        for text in row.get("warnings", ()):
            console.print(f"warning: {row['task']}/{row['algorithm']}/seed-{row['seed']}: {escape(text)}")


def summary(rows: list[dict[str, Any]]) -> Table:
    """A line per task and algorithm: how many of its seeds are in which state, and the steps done of those wanted."""
    table = Table("task", "algorithm", *STATES, "steps", box=None, header_style="bold")
    for task, algorithm in dict.fromkeys((row["task"], row["algorithm"]) for row in rows):
        chosen = [row for row in rows if (row["task"], row["algorithm"]) == (task, algorithm)]
        counts = [str(sum(row["state"] == state for row in chosen) or "") for state in STATES]
        done, wanted = sum(row["steps"] for row in chosen), sum(max(row["of"], row["steps"]) for row in chosen)
        table.add_row(task, algorithm, *counts, f"{done:,} of {wanted:,}")
    return table
