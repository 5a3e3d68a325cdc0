"""What the paper claims, beside what runs of this project say: writes `claims.csv` from `baseline.csv` and published records.

    python results/claims.py

A claim is a comparison of two columns of one task, seed by seed on the seeds that both have, by Student's 95 % interval of the
differences of the last evaluations, in scores where the task has them, else in returns; of short runs on MuJoCo's tasks also of
the means of the last ten, since one evaluation is loud at so few steps. "more" and "less" say that the interval leaves out 0;
"not by Holm" that it would not, were it corrected by Holm's rule for the number of intervals, of both metrics together. Nothing
is clear where a seed of one of the columns diverged, since the mean is that of the others.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mopo_bench import load, table
from mopo_bench.harness.report.formats import bracketed
from mopo_bench.harness.report.groups import in_unit, unit_of
from mopo_bench.harness.report.statistics import Difference, difference_of, holm
from mopo_bench.harness.runs.request import suites

HERE = Path(__file__).parent
SMALL = ("point-edge", "point-angle")
TASKS = (*SMALL, *suites()["table1"]["tasks"], *suites()["table2"]["tasks"])
BEST = "the dataset's best episode"
FOLDERS = ("figure1", "ablation", "ci", "point-edge", "check", "table1-short", "table2-short", "ablation-short")
METRICS = ("last", "mean10")
READING, P_VALUE = "reading by ", "p by Holm, "  # of the columns of a metric
# claim, where the paper makes it, the column that is to be better, the column beside it
CLAIMS = [
    ("A model, even without a penalty, is worth more than none", "Figure 1", "mbpo", "sac"),
    ("An ensemble is worth more than one network", "Figure 1", "mbpo", "mbpo-single"),
    ("The penalty is worth more than none", "Tables 1, 2", "mopo", "mbpo"),
    ("MOPO is above cloning the data", "Table 1", "mopo", "bc"),
    ("MOPO is above SAC on the data", "Tables 1, 2", "mopo", "sac"),
    *(("MOPO is above a policy kept near the data", "Tables 1, 2", "mopo", near) for near in ("bear", "brac-p", "brac-v")),
    ("MOPO goes beyond what the data shows", "Table 2", "mopo", BEST),
    ("The learned spread as a penalty, beside disagreement", "appendix D", "mopo", "mopo [penalty=ensemble]"),
    ("The learned spread as a penalty, beside the true error", "appendix D", "mopo", "mopo [penalty=true_error]"),
    ("The largest spread as a penalty, beside the mean one", "ours", "mopo", "mopo [penalty=mean_std]"),
]


def metrics_of(task: str) -> tuple[str, ...]:
    """By what a task's runs are compared."""
    return METRICS[:1] if task in SMALL else METRICS


FAMILY = len(CLAIMS) * sum(len(metrics_of(task)) for task in TASKS)  # intervals that Holm's rule counts, run or not


def columns() -> dict[tuple[str, str, str], Any]:
    """By metric, task and label of a column, what stands for each seed, and the best episode, in the unit of the task."""
    baseline = pd.read_csv(HERE / "baseline.csv", comment="#")[["task", "algorithm", "seed", "return"]]
    baseline = baseline.rename(columns={"algorithm": "label"})
    folders = [HERE / "published" / name for name in FOLDERS]
    by_task = load(folders).runs.groupby("task")
    if several := [task for task, digests in by_task["data_digest"].nunique().items() if digests > 1]:
        raise SystemExit(f"{several[0]} is published on several datasets, whose seeds do not compare: keep the runs on one")
    found, best = {}, by_task["data_return_max"].first()
    for metric in METRICS:
        rows = pd.DataFrame(json.loads(table("scores", folders, "json", metric)))[["task", "label", "seed", "return"]]
        if metric == "last":
            rows = pd.concat([baseline, rows], ignore_index=True).drop_duplicates(["task", "label", "seed"])
        else:
            rows = rows[~rows.task.isin(SMALL)]
        for (task, label), column in rows.groupby(["task", "label"]):
            found[metric, task, label] = column.set_index("seed")["return"].map(lambda value, task=task: shown(task, value))
            found[metric, task, BEST] = shown(task, best[task])
    return found


def diverged() -> set[tuple[str, str]]:
    """Task and label of each column of which a seed diverged."""
    runs = load([HERE / "published" / name for name in FOLDERS]).runs
    return set(runs.loc[runs["state"] == "diverged", ["task", "label"]].itertuples(index=False, name=None))


def shown(task: str, value: float) -> float:
    """A return in the unit of its task."""
    return in_unit(unit_of(task), task, value)


def rows() -> list[dict[str, str]]:
    """The lines of `claims.csv`: the comparisons that have runs."""
    found, lost = columns(), diverged()
    lines: list[dict[str, str]] = []
    said_of: dict[tuple[int, str], Difference] = {}
    for claim, where, left, right in CLAIMS:
        for task in TASKS:
            row = {"claim": claim, "of": where, "task": task, "unit": unit_of(task), "compared": f"{left} minus {right}"}
            row |= {"seeds": "0"} | {what + metric: "" for metric in METRICS for what in ("", READING, P_VALUE)}
            for metric in metrics_of(task):
                ours, other = found.get((metric, task, left)), found.get((metric, task, right))
                pairs = [] if ours is None or other is None else (ours - other).dropna().tolist()
                if pairs:
                    row["seeds"], said_of[len(lines), metric] = str(len(pairs)), difference_of(pairs)
            if row["seeds"] != "0":
                lines.append(row)
    tested = {key: difference.p_value for key, difference in said_of.items() if difference.p_value is not None}
    not_run = [1.0] * (FAMILY - len(tested))
    adjusted = dict(zip(tested, holm([*tested.values(), *not_run]), strict=False))
    for key, difference in said_of.items():
        place, metric = key
        columns_of = {(lines[place]["task"], label) for label in lines[place]["compared"].split(" minus ")}
        read = "not clear, a seed diverged" if columns_of & lost else reading(difference, adjusted.get(key, 1.0))
        lines[place] |= {metric: said(difference), READING + metric: read}
        if key in adjusted:
            lines[place][P_VALUE + metric] = f"{adjusted[key]:.2g}"
    return lines


def said(found: Difference) -> str:
    """A difference over seeds with its interval, if it has one."""
    text = f"{found.mean:.1f}"
    return f"{text} {bracketed(*found.interval)}" if found.interval else text


def reading(found: Difference, adjusted: float) -> str:
    """Whether the left column is clearly the better one; `adjusted` is the p-value by Holm's rule."""
    if found.interval is None:
        return "too few seeds"
    if found.interval[0] <= 0 <= found.interval[1]:
        return "not clear"
    return ("more" if found.mean > 0 else "less") + ", not by Holm" * (adjusted > 0.05)


if __name__ == "__main__":
    found = rows()
    print(f"{len(found)} comparisons; Holm's rule counts {FAMILY} intervals", file=sys.stderr)
    with (HERE / "claims.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
