"""Writes `scores.csv` beside this file: what first weights and the form of Adam do to scores, from folders of run records.

    python results/first_weights/compare.py RESULTS [RESULTS ...]

A row is an algorithm on a task under one of them, with the seeds that were run under each; algorithms that were run under one
alone are left out.
"""

import csv
import sys
from pathlib import Path

from mopo_bench.harness.report.statistics import aggregate, mean, standard_deviation
from mopo_bench.harness.runs.ledger import load_runs

OUT = Path(__file__).with_name("scores.csv")


def compared(folders):
    """Rows by task, algorithm, and what is compared; a cell of before the settings had PyTorch's of both."""
    found = {}
    for run in (run for folder in folders for run in load_runs(folder) if run.state == "done"):
        config = run.cell["config"]
        forms = [config.get("initialisation", "torch"), config.get("adam", "torch"), config.get("dynamics.adam", "")]
        if "dynamics.networks" in config and not forms[2]:
            forms[2] = "torch"
        key = (run.cell["task"], run.cell["about"]["title"], *forms)
        found.setdefault(key, {})[run.record["seed"]] = aggregate(run.record["evaluations"])
    for (task, title, initialisation, adam, dynamics), returns in sorted(found.items()):
        others = [set(other) for key, other in found.items() if key[:2] == (task, title)]
        if len(others) == 1:
            continue
        shared = sorted(set.intersection(*others))
        values = [returns[seed] for seed in shared]
        yield {
            "task": task,
            "algorithm": title,
            "first weights": initialisation,
            "adam": adam,
            "of the dynamics": dynamics,
            "seeds": ", ".join(map(str, shared)),
            "return mean": f"{mean(values):.1f}",
            "return std": "" if len(values) < 2 else f"{standard_deviation(values):.1f}",
            "return of each": ", ".join(f"{value:.1f}" for value in values),
        }


if __name__ == "__main__":
    rows = list(compared(map(Path, sys.argv[1:])))
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
