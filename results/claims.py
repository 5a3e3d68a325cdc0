"""What the paper claims, beside what runs of this project say: writes `claims.csv` from `baseline.csv` and published records.

    python results/claims.py

A claim is a comparison of two columns of one task, seed by seed on the seeds that both have, by Student's 95 % interval of the
differences of the last evaluations, in scores where the task has them, else in returns; of short runs on MuJoCo's tasks also of
the means of the last ten, since one evaluation is loud at so few steps. "more" and "less" say that the interval leaves out 0;
"not by Holm" that it would not, were it corrected by Holm's rule for the number of rows that have one by this metric.
"""

import csv
import sys
from pathlib import Path

import pandas as pd
from mopo_bench import load
from mopo_bench.harness.report.choices import METRICS
from mopo_bench.harness.report.groups import in_unit, unit_of
from mopo_bench.harness.report.statistics import Difference, difference_of, holm

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
    """A row for each run: task, label of its column, seed, what stands for it by each metric, best episode of its dataset; the
    last three in the unit of the task."""
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
    runs = pd.concat(found, ignore_index=True).drop_duplicates(RUN)
    for name in ("last", "mean10", "data_return_max"):
        runs[name] = [in_unit(unit_of(task), task, value) for task, value in zip(runs.task, runs[name], strict=True)]
    return runs


def rows() -> list[dict[str, str]]:
    """The lines of `claims.csv`."""
    runs = returns()
    best = runs.dropna(subset="data_return_max").groupby("task")["data_return_max"].first()
    table = []
    for claim, where, tasks, left, right in CLAIMS:
        for task in tasks:
            row = {"claim": claim, "of": where, "task": task, "unit": unit_of(task), "compared": f"{left} minus {right}"}
            table.append(row | {"seeds": "0", "last": "", "reading by last": "no runs", "mean10": "", "reading by mean10": ""})
    for metric in ("last", "mean10"):
        found = {}
        for place, row in enumerate(table):
            left, right = row["compared"].split(" minus ")
            by_seed = runs[runs.task == row["task"]].pivot(index="seed", columns="label", values=metric)
            other = best[row["task"]] if right == BEST else by_seed.get(right)
            pairs = [] if left not in by_seed or other is None else (by_seed[left] - other).dropna().tolist()
            if pairs:
                found[place] = difference_of(pairs)
                row |= {metric: said(found[place]), f"reading by {metric}": reading(found[place])}
                row["seeds"] = str(len(pairs)) if metric == "last" else row["seeds"]
        tested = [place for place in found if found[place].p_value is not None]
        kept = holm([found[place].p_value for place in tested])
        for place, adjusted in zip(tested, kept, strict=True):
            if adjusted > 0.05 and table[place][f"reading by {metric}"] in ("more", "less"):
                table[place][f"reading by {metric}"] += ", not by Holm"
    return table


def said(found: Difference) -> str:
    """A difference over seeds with its interval, if it has one."""
    text = f"{found.mean:.1f}"
    return f"{text} [{found.interval[0]:.1f}, {found.interval[1]:.1f}]" if found.interval else text


def reading(found: Difference) -> str:
    """Whether the left column is clearly the better one."""
    if found.interval is None:
        return "too few seeds"
    return "more" if found.interval[0] > 0 else "less" if found.interval[1] < 0 else "not clear"


if __name__ == "__main__":
    found = rows()
    with (HERE / "claims.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"{len(found)} comparisons", file=sys.stderr)
