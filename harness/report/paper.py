"""The paper's own tables, and its figure 1 as one: how they are laid out, and their numbers, from `results/paper/`.

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
    "mbpo-single": "MBPO, one network",
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
    """How a table of the paper is laid out: `heads` stand over the cells that `leading` makes of a task, then `columns`.

    own: the columns that no other table has; a task on which one of them was run has a row, whether the paper has it or not.
    by_parameters: whether a task with other parameters has a row, too, "ant-angle [angle=45.0]".
    apart: settings that make a column of their own, "mopo [penalty=none]". transposed: tasks run across, algorithms down.
    notes: what is to be known of the paper's part of the table.
    """

    title: str
    unit: str
    heads: tuple[str, ...]
    leading: Callable[[str], tuple[str, ...]]
    columns: tuple[str, ...]
    steps: Mapping[str, int] = field(default_factory=dict)  # behind the numbers of a column, where not the task's own budget
    windows: Mapping[str, str] = field(default_factory=dict)  # behind the numbers of a column, where it is known
    average: bool = False  # whether rows are alike enough for one
    own: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    transposed: bool = False
    by_parameters: bool = False
    notes: tuple[str, ...] = ()


def _quality_and_domain(task: str) -> tuple[str, ...]:
    domain, _, quality = task.partition("-")
    return quality, domain


# Of appendix D: MOPO with its usual penalty, the others, the one that is no offline algorithm, and MBPO.
PENALTIES = ("max_std_elites", "mean_std", "max_variance", "max_covariance", "ensemble", "none", "true_error")
BY_PENALTY = tuple(f"mopo [penalty={penalty}]" for penalty in PENALTIES)
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
    "figure1": Layout(
        "Figure 1: average returns without a penalty",
        "return",
        ("Environment",),
        lambda task: (task,),
        ("sac", "mbpo-single", "mbpo"),
        own=("mbpo-single",),
        notes=(
            "The figure's bars are not printed as numbers: those beside ours are of the paper's tables of the same runs. That "
            "its task of D4RL is halfcheetah-mixed, and its other one halfcheetah-jump, is inferred. MBPO with one network is "
            "the paper's MBPO without ensemble.",
        ),
    ),
    "ablation": Layout(
        "Appendix D: average returns by penalty",
        "return",
        ("Variant",),
        lambda task: (task,),
        ("mopo", *BY_PENALTY, "mbpo", "mbpo-single"),
        own=(*BY_PENALTY, "mbpo-single"),
        apart=("penalty",),
        transposed=True,
        notes=(
            "MOPO's own penalty is max_std. Each penalty has the coefficient of the task, which was chosen for max_std. The "
            "paper has one row for no penalty and another for MBPO, where here they are the same computation.",
        ),
    ),
    "appendix-e": Layout(
        "Appendix E: average returns at other goals",
        "return",
        ("Environment",),
        lambda task: (task,),
        ("batch mean", "batch max", "mopo"),
        by_parameters=True,
        notes=("The paper's appendix turns ant-angle further; other weights of halfcheetah-jump's height are ours.",),
    ),
}
SURE = {  # of a number of the paper, where it was not read there
    "I": "inferred from another number of the authors",
    "M": "from memory: a hint, and no reference",
}


class PaperNumber(NamedTuple):
    """One printed cell; `std` and `seeds` are None where the paper prints none. sure: "S", read in a source, or see `SURE`."""

    mean: float
    std: float | None
    seeds: int | None
    sure: str = "S"


def heading_of(column: str) -> str:
    """What stands over a column of the paper's: "MOPO [penalty=none]" of "mopo [penalty=none]"."""
    name, bracket, variant = column.partition(" [")
    return f"{HEADINGS[name]}{bracket}{variant}"


def _paper_rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((resources.files(results) / "paper" / f"{name}.csv").read_text().splitlines()))


@cache
def paper_table(name: str) -> Mapping[tuple[str, str], PaperNumber]:
    """The numbers of a table of `LAYOUTS`, in its unit, by (task, algorithm as printed)."""
    if name not in LAYOUTS:
        raise unknown("table of the paper", name, LAYOUTS, "mopo-bench table --help")
    return {
        (row["task"], row["algorithm"]): PaperNumber(
            float(row["mean"]),
            float(row["std"]) if row["std"] else None,
            int(row["seeds"]) if row["seeds"] else None,
            row.get("sure", "S"),
        )
        for row in _paper_rows(name)
    }


def rows_of(name: str) -> tuple[str, ...]:
    """The rows of a table of the paper, in its order, tasks with parameters among them; `name` is one of `LAYOUTS`."""
    return tuple(dict.fromkeys(task for task, _ in paper_table(name)))


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a table of the paper, in its order; `name` is one of `LAYOUTS`."""
    return tuple(dict.fromkeys(row.partition(" [")[0] for row in rows_of(name)))


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
