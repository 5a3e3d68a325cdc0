"""What the paper claims, beside what runs of this project say: writes `claims.csv` from `baseline.csv` and published records.

    python results/claims.py

A claim is a comparison of two columns of one task, seed by seed on the seeds that both have, by Student's 95 % interval of the
differences of the last evaluations, in returns; of short runs on MuJoCo's tasks also of the means of the last ten, since one
evaluation is loud at so few steps. Nothing corrects for the number of comparisons.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mopo_bench import load
from mopo_bench.harness.report.choices import METRICS
from mopo_bench.harness.report.statistics import mean, mean_interval

HERE = Path(__file__).parent
EDGE = ("point-edge",)
SMALL = (*EDGE, "point-angle")
TABLE_1 = ("halfcheetah-mixed", "hopper-medium", "hopper-mixed", "walker2d-mixed")
TABLE_2 = ("halfcheetah-jump", "ant-angle")
FIGURE_1 = ("halfcheetah-mixed", "halfcheetah-jump")
KEPT_NEAR = ("bear", "brac-p", "brac-v")
KEPT_NEAR_RUN = (*SMALL, "halfcheetah-jump")  # where they were run
BEST = "the dataset's best episode"
RUN = ["task", "label", "seed"]
SHORT = ("table1-short", "table2-short", "ablation-short")
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
    ("The learned spread as a penalty, beside disagreement", "appendix D", EDGE + FIGURE_1, "mopo", "mopo [penalty=ensemble]"),
    ("The learned spread as a penalty, beside the true error", "appendix D", EDGE, "mopo", "mopo [penalty=true_error]"),
    ("The largest spread as a penalty, beside the mean one", "ours", EDGE, "mopo", "mopo [penalty=mean_std]"),
]


def returns() -> pd.DataFrame:
    """A row for each run: task, label of its column, seed, what stands for it by each metric, best episode of its dataset."""
    baseline = pd.read_csv(HERE / "baseline.csv", comment="#")[["task", "algorithm", "seed", "return"]]
    found = [baseline.rename(columns={"algorithm": "label", "return": "last"})]
    for folders in (("figure1",), ("ablation",), ("ci",), ("point-edge",), SHORT):
        records = load(HERE / "published" / folder for folder in folders)
        runs = records.runs.rename(columns={"return": "last"})
        if folders == SHORT:
            key = ["task", "identity", "seed"]
            ten = records.evaluations.groupby(key)["return_mean"].agg(lambda means: METRICS["mean10"].pick(means.to_numpy()))
            runs = runs.join(ten.rename("mean10"), on=key)
        found.append(runs.filter([*RUN, "last", "mean10", "data_return_max"]))
    return pd.concat(found, ignore_index=True).drop_duplicates(RUN)


def rows() -> Iterator[dict[str, str]]:
    """The lines of `claims.csv`."""
    runs = returns()
    best = runs.dropna(subset="data_return_max").groupby("task")["data_return_max"].first()
    for claim, where, tasks, left, right in CLAIMS:
        for task in tasks:
            row = {"claim": claim, "of": where, "task": task, "compared": f"{left} minus {right}"}
            for metric in ("last", "mean10"):
                by_seed = runs[runs.task == task].pivot(index="seed", columns="label", values=metric)
                other = best[task] if right == BEST else by_seed.get(right)
                there = left in by_seed and other is not None
                differences = (by_seed[left] - other).dropna().tolist() if there else []
                said, reading = read(differences)
                if metric == "last":
                    row["seeds"], reading = str(len(differences)), reading or "no runs"
                row |= {metric: said, f"reading by {metric}": reading}
            yield row


def read(differences: list[float]) -> tuple[str, str]:
    """A difference over seeds with its interval, and whether the left column is clearly the better one."""
    if not differences:
        return "", ""
    if (interval := mean_interval(differences)) is None:
        return f"{mean(differences):.1f}", "too few seeds"
    low, high = interval
    return f"{mean(differences):.1f} [{low:.1f}, {high:.1f}]", "more" if low > 0 else "less" if high < 0 else "not clear"


if __name__ == "__main__":
    found = list(rows())
    with (HERE / "claims.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"{len(found)} comparisons", file=sys.stderr)
