"""One picture of a diagnosis, four panels, readable in grey."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.formats import DASH
from ..report.plots import panels, save, styled

if TYPE_CHECKING:
    from .diagnosing import Diagnosis

MARKS = {"dataset": ("o", "0.55"), "rollouts": ("^", "0.0")}  # marker and grey
TITLES = {"dataset": "dataset", "rollouts": "model rollouts", "policy": "policy's episodes"}
MOST_POINTS = 2_000  # that are drawn of one origin


@styled()
def draw(diagnosis: Diagnosis, out: Path) -> None:
    """Uncertainty against error, z-scores by dimension, growth along a rollout, the model's reward against the true one."""
    figure, ((against, spread), (along, rewards)) = panels(2, 2, (12, 9))
    _against(against, diagnosis)
    _spread(spread, diagnosis)
    _along(along, diagnosis)
    _rewards(rewards, diagnosis)
    figure.suptitle(diagnosis.table().title)
    save(figure, out)


def _against(axis: Any, diagnosis: Diagnosis) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = []
    for origin, (marker, grey) in MARKS.items():
        points = diagnosis.points[origin]
        x, y = _finite(points.answers.uncertainty, points.errors)
        rank = diagnosis.facts[origin]["rank_correlation"]
        label = f"{TITLES[origin]}, rank correlation {_number(rank, '.2f')}{_left_out(x, points.errors)}"
        axis.scatter(*_few(x, y), marker=marker, s=12, c=grey, alpha=0.6, linewidths=0, label=label, rasterized=True)
        shown.append(x)
    values = np.concatenate(shown)
    axis.set(xlabel="u(s, a)", ylabel="true error of the model's step", title="Does the uncertainty know the error?")
    axis.legend(fontsize="small")
    if not len(values):
        return
    if values.min() > 0:
        axis.set(xscale="log", yscale="log")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            scale.set_major_formatter("{x:g}")
            scale.set_minor_formatter(NullFormatter())
    ends = (values.min(), values.max())
    axis.plot(ends, ends, color="black", linewidth=1, linestyle=":", label="u = error")
    axis.legend(fontsize="small")


def _spread(axis: Any, diagnosis: Diagnosis) -> None:
    width, hatches = 0.28, ("", "///", "...")
    for place, (origin, found) in enumerate(diagnosis.facts.items()):
        scores = np.array([np.nan if each is None else each for each in found["z_scores"]])
        where = np.arange(len(scores)) + (place - 1) * width
        grey = ("0.75", "0.95", "0.4")[place]
        axis.bar(where, scores, width, color=grey, edgecolor="black", linewidth=0.6, hatch=hatches[place], label=TITLES[origin])
    axis.axhline(1, color="black", linewidth=1, linestyle=":")
    names = ["r", *(f"s{index}" for index in range(1, len(scores)))]
    axis.set_xticks(range(len(names)), names, fontsize="small" if len(names) < 12 else "xx-small")
    axis.set(yscale="log", ylabel="root mean square of z", title="Is the predicted spread right? (1: yes; above: too small)")
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(hatches))  # beside no bar


def _along(axis: Any, diagnosis: Diagnosis) -> None:
    rows = diagnosis.horizon
    steps = [row["step"] for row in rows]
    lines = {
        "uncertainty": ("u(s, a)", "-", "o"),
        "error": ("error of the step", "--", "s"),
        "drift": ("distance from the real path", ":", "^"),
    }
    for name, (label, style, marker) in lines.items():
        mean, low, high = (np.array([row[key] for row in rows], float) for key in (name, f"{name}_low", f"{name}_high"))
        axis.plot(steps, mean, linestyle=style, marker=marker, color="black", label=label)
        axis.fill_between(steps, low, high, color="black", alpha=0.1, linewidth=0)
    axis.set_xticks(steps if len(steps) <= 20 else steps[:: len(steps) // 10])
    axis.set(xlabel="step of a model rollout", title="How do errors grow? (mean; band: middle half)")
    axis.legend(fontsize="small")


def _rewards(axis: Any, diagnosis: Diagnosis) -> None:
    points = diagnosis.points["policy"]
    true, said = _finite(points.seen[:, 0], points.answers.means[..., 0].mean(0))
    label = f"a step{_left_out(said, points.seen)}"
    axis.scatter(*_few(true, said), marker="o", s=12, c="0.3", alpha=0.5, linewidths=0, label=label, rasterized=True)
    if len(said):
        ends = (said.min(), said.max())
        axis.plot(ends, ends, color="black", linewidth=1, linestyle=":", label="model = true")
    model, real = (_number(diagnosis.facts["policy"][name], ".3g") for name in ("model_reward", "true_reward"))
    title = f"Reward along the policy's episodes: model {model}, true {real}"
    axis.set(xlabel="true reward of a step", ylabel="the model's mean reward", title=title)
    axis.legend(fontsize="small")


def _finite(*columns: np.ndarray) -> list[np.ndarray]:
    """The entries of columns of one length at which all of them are finite: the others cannot be drawn."""
    kept = np.all([np.isfinite(column) for column in columns], axis=0)
    return [column[kept] for column in columns]


def _left_out(drawn: np.ndarray, all_there_are: np.ndarray) -> str:
    """How many points are not finite, for the legend; empty where all are."""
    missing = len(all_there_are) - len(drawn)
    return f" ({missing:,} of {len(all_there_are):,} not finite, not shown)" if missing else ""


def _number(value: float | None, form: str) -> str:
    """As a diagnosis has it: None stands for one that is not finite, or that nothing defines."""
    return DASH if value is None else f"{value:{form}}"


def _few(*columns: np.ndarray) -> list[np.ndarray]:
    """Evenly chosen entries of columns of one length, no more than can be told apart."""
    places = np.linspace(0, len(columns[0]) - 1, min(len(columns[0]), MOST_POINTS)).astype(int)
    return [column[places] for column in columns]
