"""What tables, pictures and exports there are, and which number may stand for a run. Light: `--help` reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...common.errors import UserError
from .paper import LAYOUTS

TABLES = {  # what each shows, in a line
    **{name: layout.title for name, layout in LAYOUTS.items()},
    "scores": "every task and algorithm that was run, and how one compares with the others",
    "aggregate": "every algorithm over all its tasks: interquartile mean, optimality gap, probability of improvement",
}
PICTURES = {  # likewise
    "curves": "learning curves, a panel for each task and dataset, with intervals over seeds and the paper's numbers",
    "bars": "a bar for each algorithm, a panel for each task and dataset, with every seed and the paper's numbers",
    "profile": "performance profiles: the share of runs above each score",
    "heatmap": "every task and algorithm at once, as numbers and shades",
    "sweep": "an algorithm at several values of one setting or two, such as the penalty and the horizon, as numbers and shades",
}


class Export(NamedTuple):
    """A format of `mopo-bench export`: what it is, and the library that it needs, if any."""

    meaning: str
    library: str = ""


EXPORTS = {
    "csv": Export("runs, evaluations and fits as tidy files"),
    "parquet": Export("the same, for pandas and other tools", "pyarrow"),
    "tensorboard": Export("events, a folder for each run", "tensorboard"),
    "wandb": Export("offline runs, for `wandb sync`", "wandb"),
    "openrlbenchmark": Export("its cache, for its offline mode"),
}


class Metric(NamedTuple):
    """What stands for a run, in words and as a function."""

    meaning: str
    pick: Callable[[Any], float]  # from an array of the mean returns of a run's evaluations, in order


METRICS = {
    "last": Metric("the last evaluation, as in the paper", lambda returns: returns[-1]),
    "mean10": Metric(
        "the mean of the last 10 evaluations (a run with fewer counts all of its evaluations), as in the authors' plot script",
        lambda returns: returns[-10:].mean(),
    ),
    "best": Metric("the best evaluation, chosen with hindsight", lambda returns: returns.max()),
}


def get_metric(name: str) -> Metric:
    """The metric of this name; UserError that lists them for another."""
    if name not in METRICS:
        raise UserError(f"unknown metric {name!r}: --metric is one of {', '.join(METRICS)}")
    return METRICS[name]
