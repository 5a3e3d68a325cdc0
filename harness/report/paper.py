"""The paper's numbers, from `results/paper/`, and the columns of its tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

from ... import results
from ...common.errors import unknown

PRINTED = {"bc": "BC", "mopo": "MOPO", "mbpo": "MBPO", "sac": "SAC", "bear": "BEAR", "brac-v": "BRAC-v", "brac-p": "BRAC-p"}
BATCH = {"batch mean": "return_mean", "batch max": "return_max"}  # columns that come from the batch, not from runs
COLUMNS = {
    "table1": ("bc", "mopo", "mbpo", "sac", "bear", "brac-v"),
    "table2": ("batch mean", "batch max", "mopo", "mbpo", "sac", "bear", "brac-p", "brac-v"),
}


class PaperNumber(NamedTuple):
    """One printed cell; `std` and `seeds` are None where the paper prints none."""

    mean: float
    std: float | None
    seeds: int | None


def _paper_rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((resources.files(results) / "paper" / f"{name}.csv").read_text().splitlines()))


@cache
def paper_table(name: str) -> Mapping[tuple[str, str], PaperNumber]:
    """Table 1 (scores) or 2 (returns) as printed, by (task, algorithm as printed); `name` is "table1" or "table2"."""
    if name not in COLUMNS:
        raise unknown("table of the paper", name, COLUMNS, "mopo-bench table --help")
    return {
        (row["task"], row["algorithm"]): PaperNumber(
            float(row["mean"]), float(row["std"]) if row["std"] else None, int(row["seeds"]) if row["seeds"] else None
        )
        for row in _paper_rows(name)
    }


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a table of the paper, in its order; `name` is "table1" or "table2"."""
    return tuple(dict.fromkeys(task for task, _ in paper_table(name)))


@cache
def swapped_cells() -> Mapping[tuple[str, str], float]:
    """The cells of Table 1 that contradict the authors' own raw returns, with the score that these give."""
    rows = [row for row in _paper_rows("table1_baseline_returns") if row["printed"]]
    return {
        (row["task"], row["algorithm"]): float(row["normalized"])
        for row in rows
        if abs(float(row["normalized"]) - float(row["printed"])) > 0.05  # both are rounded to one digit
    }
