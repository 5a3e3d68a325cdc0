"""Do ways of running one thing give the same scores, but for noise? python benchmarks/agreement.py FOLDER [--seeds N]

SAC and MOPO on point-angle, each seed alone and eager with the fast matrix products, and beside it the same seeds
    group      trained six at a time
    compiled   by compiled steps
    plain      eager, with torch's default matrix products
    gpu        six at a time on a GPU, where there is one
Of one seed they draw the same random numbers (but on a GPU) and differ by rounding, which training amplifies.

Run records stay in FOLDER, so that a stopped comparison goes on. Makes agreement.csv, a row per run, and agreement.md beside
this file.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mopo_bench.harness import api
from mopo_bench.harness.report.statistics import aggregate, difference_interval, mean, mean_interval
from mopo_bench.harness.runs import machine, trial
from mopo_bench.harness.runs.records import Run

TASK, ALGORITHMS, STEPS, GROUP = "point-angle", ("sac", "mopo"), 8_000, 6
WAYS: dict[str, dict[str, Any]] = {
    "alone": {"compiled": "off"},
    "group": {"compiled": "off", "group": GROUP},
    "compiled": {"compiled": "on"},
    "plain": {"compiled": "off"},
    "gpu": {"device": "cuda", "group": GROUP},
}
METRICS = {"last": "last evaluation", "mean10": f"mean of all {STEPS // 1000} evaluations"}


def run(way: str, seeds: int, folder: Path) -> list[Run]:
    precision = machine.matmul_precision
    if way == "plain":
        machine.matmul_precision = trial.matmul_precision = lambda device="cpu": "highest"
    elif way != "gpu":  # with the same fits
        shared = folder / "alone" / "stages"
        if way != "alone" and shared.exists():
            shutil.copytree(shared, folder / way / "stages", dirs_exist_ok=True)
    options = {"device": "cpu", **WAYS[way]}
    try:
        return api.run(
            tasks=[TASK], algorithms=ALGORITHMS, seeds=range(seeds), steps=STEPS, results=folder / way, jobs=1, **options
        )
    finally:
        machine.matmul_precision = trial.matmul_precision = precision


def rows_of(way: str, runs: list[Run]) -> list[dict[str, Any]]:
    return [
        {
            "algorithm": each.algorithm,
            "way": way,
            "seed": each.seed,
            **{metric: round(aggregate(each.evaluations, metric), 2) for metric in METRICS},
            **{key: each.record["segments"][-1][key] for key in ("device", "compiled", "matmul", "commit")},
            "group": len(each.record["segments"][-1]["group"]),
            "torch": each.record["segments"][-1]["versions"]["torch"],
        }
        for each in sorted(runs, key=lambda each: (each.algorithm, each.seed))
    ]


def report(rows: pd.DataFrame) -> str:
    lines = [
        "# Ways of running the same thing",
        "",
        f"{TASK}, {rows.seed.nunique()} seeds, {STEPS:,} steps; torch {rows.torch.iloc[0]}. Undiscounted returns: mean, and",
        "the difference from the seeds run alone, eager, with the fast matrix products, with its 95 % interval: Welch's, as if",
        "the seeds were others, and that of each seed's own difference.",
        "",
        "| | way | mean | difference | Welch | by seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for metric, meaning in METRICS.items():
        for algorithm in ALGORITHMS:
            mine = rows[rows.algorithm == algorithm].pivot(index="seed", columns="way", values=metric)
            base = mine["alone"]
            lines.append(f"| {algorithm}, {meaning} | alone | {mean(base):.1f} | | | |")
            for way in (name for name in WAYS if name in mine and name != "alone"):
                pairs = (mine[way] - base).to_numpy()
                welch, paired = difference_interval(mine[way], base), mean_interval(pairs)
                cells = [
                    f"{np.mean(pairs):+.1f}",
                    *(f"[{each[0]:.1f}, {each[1]:.1f}]" if each else "" for each in (welch, paired)),
                ]
                lines.append(f"| | {way} | {mean(mine[way]):.1f} | {' | '.join(cells)} |")
    if "gpu" not in set(rows.way):
        lines += ["", "gpu: not measured."]
    return "\n".join([*lines, "", "Made by `python benchmarks/agreement.py FOLDER`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2 * GROUP)
    options = parser.parse_args()
    here, rows = Path(__file__).parent, []
    for way in WAYS:
        if way == "gpu" and not torch.cuda.is_available():
            continue
        rows += rows_of(way, run(way, options.seeds, options.folder))
        print(f"{way}: {len(rows)} rows so far", flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(here / "agreement.csv", index=False)
    (here / "agreement.md").write_text(report(table))


if __name__ == "__main__":
    main()
