"""What the paper claims, beside what runs of this project say: writes `claims.csv` from `baseline.csv` and published records.

    python results/claims.py

A claim is a comparison of two columns of one task, seed by seed on the seeds that both have, by Student's 95 % interval of the
differences of the last evaluations, in returns. Nothing corrects for the number of comparisons.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mopo_bench import load
from mopo_bench.harness.report.statistics import mean, mean_interval

HERE = Path(__file__).parent
EDGE = ("point-edge",)
SMALL = (*EDGE, "point-angle")
TABLE_1 = ("halfcheetah-mixed", "hopper-mixed", "walker2d-mixed")
TABLE_2 = ("halfcheetah-jump", "ant-angle")
FIGURE_1 = ("halfcheetah-mixed", "halfcheetah-jump")
KEPT_NEAR = ("bear", "brac-p", "brac-v")
KEPT_NEAR_RUN = (*SMALL, "halfcheetah-jump")  # where they were run
BEST = "the dataset's best episode"
# claim, where the paper makes it, tasks, the column that is to be better, the column beside it
CLAIMS = [
    ("A model, even without a penalty, is worth more than none", "Figure 1", SMALL + FIGURE_1, "mbpo", "sac"),
    ("An ensemble is worth more than one network", "Figure 1", SMALL + FIGURE_1, "mbpo", "mbpo-single"),
    ("The penalty is worth more than none", "Tables 1, 2", SMALL + TABLE_1 + TABLE_2, "mopo", "mbpo"),
    ("MOPO is above cloning the data", "Table 1", SMALL + TABLE_1, "mopo", "bc"),
    ("MOPO is above cloning the data", "ours", TABLE_2, "mopo", "bc"),
    ("MOPO is above SAC on the data", "Tables 1, 2", SMALL + TABLE_1 + TABLE_2, "mopo", "sac"),
    *(("MOPO is above a policy kept near the data", "Tables 1, 2", KEPT_NEAR_RUN, "mopo", near) for near in KEPT_NEAR),
    ("MOPO goes beyond what the data shows", "Table 2", SMALL + TABLE_1 + TABLE_2, "mopo", BEST),
    ("The learned spread as a penalty, beside disagreement", "appendix D", EDGE, "mopo", "mopo [penalty=ensemble]"),
    ("The learned spread as a penalty, beside the true error", "appendix D", EDGE, "mopo", "mopo [penalty=true_error]"),
    ("The largest spread as a penalty, beside the mean one", "ours", EDGE, "mopo", "mopo [penalty=mean_std]"),
]


def returns() -> pd.DataFrame:
    """A row for each run: task, label of its column, seed, return of its last evaluation, best episode of its dataset."""
    baseline = pd.read_csv(HERE / "baseline.csv", comment="#")[["task", "algorithm", "seed", "return"]]
    found = [baseline.rename(columns={"algorithm": "label"})]
    for folder in ("figure1", "ablation", "table1-short", "table2-short", "ci", "point-edge"):
        records = load(HERE / "published" / folder)
        runs = records.runs[["task", "label", "seed", "return", "data_return_max"]]
        found.append(runs)
    return pd.concat(found, ignore_index=True).drop_duplicates(["task", "label", "seed"])


def rows() -> Iterator[dict[str, str]]:
    """The lines of `claims.csv`."""
    runs = returns()
    best = runs.dropna(subset="data_return_max").groupby("task")["data_return_max"].first()
    for claim, where, tasks, left, right in CLAIMS:
        for task in tasks:
            by_seed = runs[runs.task == task].pivot(index="seed", columns="label", values="return")
            other = best[task] if right == BEST else by_seed.get(right)
            there = left in by_seed and other is not None
            differences = (by_seed[left] - other).dropna().tolist() if there else []
            interval = mean_interval(differences) if differences else None
            yield {
                "claim": claim,
                "of": where,
                "task": task,
                "compared": f"{left} minus {right}",
                "seeds": str(len(differences)),
                "difference": f"{mean(differences):.1f}" if differences else "",
                "interval": "" if interval is None else "[{:.1f}, {:.1f}]".format(*interval),
                "reading": reading(interval) if differences else "no runs",
            }


def reading(interval: tuple[float, float] | None) -> str:
    """Whether the left column is clearly the better one."""
    if interval is None:
        return "too few seeds"
    return "more" if interval[0] > 0 else "less" if interval[1] < 0 else "not clear"


if __name__ == "__main__":
    found = list(rows())
    with (HERE / "claims.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"{len(found)} comparisons", file=sys.stderr)
