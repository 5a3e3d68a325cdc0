"""The paper's own tables: how they are laid out, and their numbers, from `results/paper/`.

The only file of the harness that knows algorithms by name: the columns that the paper prints.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

from ... import results
from ...common.errors import unknown

REFERENCE = "mopo"  # the paper's own algorithm, with which the others are compared
DATASET_COLUMNS = {"batch mean": "return_mean", "batch max": "return_max"}  # read from a cell's data, not from its runs
PROBE_COLUMNS = {"zero action": "return_zero", "random actions": "return_random"}  # ours, and so is what they show; as above
HEADINGS = {  # as printed, in the order of columns
    "bc": "BC",
    "mopo": "MOPO",
    "mbpo": "MBPO",
    "sac": "SAC",
    "bear": "BEAR",
    "brac-v": "BRAC-v",
    "brac-p": "BRAC-p",
    "batch mean": "Batch Mean",
    "batch max": "Batch Max",
    "zero action": "Zero Action",
    "random actions": "Random Actions",
}
# Gradient steps behind the numbers of Table 1. MOPO's and MBPO's: 1000 epochs of 1000, the authors' configurations. The others
# were taken from D4RL, whose `train_bc.py` and scripts of BEAR and BRAC say 500 000; that its SAC had as many is from memory.
# Table 2 was run by MOPO's authors: there the budget is the task's own.
TABLE1_STEPS = {"bc": 500_000, "mopo": 1_000_000, "mbpo": 1_000_000, "sac": 500_000, "bear": 500_000, "brac-v": 500_000}
# Rows behind them, of the datasets of two million: MOPO's code (which ran MBPO, too) kept a ring of a million, so that the last
# rows train; D4RL's runs of BC and BRAC read the first. Both are inferred from code. Of SAC and BEAR it is not known.
TABLE1_WINDOWS = {"bc": "first_1m", "mopo": "last_1m", "mbpo": "last_1m", "brac-v": "first_1m"}
WINDOW_ROWS = 1_000_000  # that a window holds; it leaves nothing out of a dataset of fewer


@dataclass(frozen=True)
class Layout:
    """How a table of the paper is laid out: `heads` stand over the cells that `leading` makes of a task, then `columns`."""

    title: str
    unit: str
    heads: tuple[str, ...]
    leading: Callable[[str], tuple[str, ...]]
    columns: tuple[str, ...]
    steps: Mapping[str, int] = field(default_factory=dict)  # behind the numbers of a column, where not the task's own budget
    windows: Mapping[str, str] = field(default_factory=dict)  # behind the numbers of a column, where it is known
    average: bool = False  # whether rows are alike enough for one


def _quality_and_domain(task: str) -> tuple[str, ...]:
    domain, _, quality = task.partition("-")
    return quality, domain


LAYOUTS = {
    "table1": Layout(
        "Table 1: normalised scores on D4RL's MuJoCo tasks",
        "score",
        ("Dataset type", "Environment"),
        _quality_and_domain,
        ("bc", "mopo", "mbpo", "sac", "bear", "brac-v"),
        steps=TABLE1_STEPS,
        windows=TABLE1_WINDOWS,
        average=True,
    ),
    "table2": Layout(
        "Table 2: average returns on the out-of-distribution tasks",
        "return",
        ("Environment",),
        lambda task: (task,),
        ("batch mean", "batch max", "mopo", "mbpo", "sac", "bear", "brac-p", "brac-v"),
    ),
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
    if name not in LAYOUTS:
        raise unknown("table of the paper", name, LAYOUTS, "mopo-bench table --help")
    return {
        (row["task"], row["algorithm"]): PaperNumber(
            float(row["mean"]), float(row["std"]) if row["std"] else None, int(row["seeds"]) if row["seeds"] else None
        )
        for row in _paper_rows(name)
    }


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a table of the paper, in its order; `name` is "table1" or "table2"."""
    return tuple(dict.fromkeys(task for task, _ in paper_table(name)))


def printed_number(task: str, algorithm: str) -> tuple[str, PaperNumber] | None:
    """The unit ("score" or "return") and the number that the paper prints for an algorithm on a task, in Table 1 or 2.

    None where it prints none, and for the cells that stand under the wrong environment (`swapped_cells`).
    """
    place = (task, HEADINGS.get(algorithm, ""))
    for name in ("table1", "table2"):
        if place in paper_table(name) and place not in swapped_cells():
            return LAYOUTS[name].unit, paper_table(name)[place]
    return None


@cache
def swapped_cells() -> Mapping[tuple[str, str], float]:
    """The cells of Table 1 that contradict the authors' own raw returns, with the score that these give."""
    rows = [row for row in _paper_rows("table1_baseline_returns") if row["printed"]]
    return {
        (row["task"], row["algorithm"]): float(row["normalized"])
        for row in rows
        if abs(float(row["normalized"]) - float(row["printed"])) > 0.05  # both are rounded to one digit
    }
