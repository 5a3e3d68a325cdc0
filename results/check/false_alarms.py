"""How often the regression check raises an alarm where nothing has changed, counted on seeds of one baseline.

    python results/check/false_alarms.py runs/base                       # prints, as Markdown
    python results/check/false_alarms.py results/baseline.csv --draws 2000 --out results/check/false_alarms.md

Each draw holds out some seeds of every cell at random, takes them for new ones, and checks them against the other seeds with
the check's own code. The interval is Clopper and Pearson's, of the draws as if they were independent: they are of the same
seeds, so that what is chance in these seeds stays in all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from mopo_bench.common.errors import UserError
from mopo_bench.harness.check.baseline import BaselineCell, load_baseline
from mopo_bench.harness.check.checking import REGRESSION, CellReport, Options, compare
from mopo_bench.harness.check.recorded import RETURN, SCORE, Recorded
from mopo_bench.harness.runs.records import write_text
from scipy import stats

FEWEST_DRAWS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, help="a baseline file, or a folder of run records")
    parser.add_argument("--draws", type=int, default=FEWEST_DRAWS)
    parser.add_argument("--new", type=int, default=5, help="seeds of each cell that are held out in a draw")
    parser.add_argument("--behind", type=int, help="seeds of each cell behind the limits; all that are not held out by default")
    parser.add_argument("--error-rate", type=float, default=0.05)
    parser.add_argument("--margin", type=float, default=0.0, help="0: the error rate is that of the tests themselves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a Markdown file")
    asked = parser.parse_args()
    try:
        text = report(asked)
    except UserError as error:
        sys.exit(f"{error}")
    print(text, end="")
    if asked.out:
        write_text(asked.out, text)


def report(asked: argparse.Namespace) -> str:
    """The rates of false alarms, as Markdown."""
    cells = load_baseline(asked.baseline)
    if asked.draws < FEWEST_DRAWS:
        raise UserError(f"--draws {asked.draws}: at least {FEWEST_DRAWS}, or the interval says nothing")
    if small := [str(cell.name) for cell in cells if len(cell.seeds) < asked.new + (asked.behind or 3)]:
        raise UserError(f"{asked.baseline}: too few seeds to hold {asked.new} out: {', '.join(small)}")
    options = Options(margin=asked.margin, error_rate=asked.error_rate, seeds=asked.new)
    generator = np.random.default_rng(asked.seed)
    alarms, alone = Counter[str](), Counter[str]()
    for _ in range(asked.draws):
        found = draw(cells, asked.new, asked.behind, options, generator)
        alarms.update(kinds(found))
        alone.update(
            f"{cell.title}, {each.quantity}" for cell in found for each in cell.findings if each.p_value <= asked.error_rate
        )
    lines = [
        "# False alarms of the regression check",
        "",
        f"{asked.draws} draws: {asked.new} seeds of each of {len(cells)} cells held out, checked against "
        f"{asked.behind or 'all'} others; error rate {asked.error_rate:g}, margin {asked.margin:g}.",
        f"Made by `{' '.join(['python', 'results/check/false_alarms.py', *sys.argv[1:]])}`.",
        "",
        "| alarm | draws | rate | 95 % interval |",
        "| --- | --- | --- | --- |",
        *(rate_line(name, alarms[name], asked.draws) for name in ("any", "returns or scores", "vitals")),
        "",
        f"Each test alone at {asked.error_rate:g}, uncorrected, the ten that reject most often:",
        "",
        "| test | draws | rate | 95 % interval |",
        "| --- | --- | --- | --- |",
        *(rate_line(name, count, asked.draws) for name, count in alone.most_common(10)),
    ]
    return "\n".join(lines) + "\n"


def draw(
    cells: list[BaselineCell], new: int, behind: int | None, options: Options, generator: np.random.Generator
) -> list[CellReport]:
    """One check of held-out seeds of every cell."""
    known, recorded = [], []
    for cell in cells:
        seeds = generator.permutation(sorted(cell.seeds)).tolist()
        others = seeds[new:] if behind is None else seeds[new : new + behind]
        known.append(replace(cell, seeds={seed: cell.seeds[seed] for seed in others}))
        recorded.append(as_recorded(cell, seeds[:new]))
    found, _ = compare(known, recorded, {}, options)
    return found


def as_recorded(cell: BaselineCell, seeds: list[int]) -> Recorded:
    """The seeds as their records would stand in a results folder."""
    records = {}
    for seed in seeds:
        numbers = {name: value for name, value in cell.seeds[seed].items() if name not in (RETURN, SCORE)}
        value = cell.seeds[seed][RETURN]
        row = {**numbers, "step": cell.steps, "returns": [value] * cell.episodes, "return_mean": value}
        before = [{**row, "step": cell.steps - cell.interval}] * (cell.interval < cell.steps)
        records[seed] = {"seed": seed, "state": "done", "steps": cell.steps, "evaluations": [*before, row]}
    return Recorded(cell.name, cell.identity, cell.vitals, records)


def kinds(found: list[CellReport]) -> list[str]:
    """Which alarms a check raised."""
    wrong = {each.quantity in (RETURN, SCORE) for cell in found for each in cell.findings if each.verdict == REGRESSION}
    return ["any"] * bool(wrong) + ["returns or scores"] * (True in wrong) + ["vitals"] * (False in wrong)


def rate_line(name: str, count: int, draws: int) -> str:
    low, high = stats.binomtest(count, draws).proportion_ci(0.95, method="exact")
    return f"| {name} | {count} of {draws} | {count / draws:.3f} | {low:.3f} to {high:.3f} |"


if __name__ == "__main__":
    main()
