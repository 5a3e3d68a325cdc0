"""Whether a dataset can stand for the paper's: upright, moving, better than nothing, of growing skill, as good as it says.

A training run can end in a local optimum, an ant that stands or a halfcheetah that runs on its back, and what is learned from
its log is then no evidence for or against an algorithm. `tasks.task.Acceptance` says what is asked of a task's dataset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...tasks.data.dataset import OfflineDataset
from ...tasks.simulation import checked_specification
from ...tasks.task import Acceptance, Task
from .probes import probe_returns

EXPERT_ROWS = 0.4  # the share of its rows, from its best episodes, by which a dataset's expert is judged: it fills half


class Check(NamedTuple):
    """One thing asked of a dataset: what was measured, in words with its number, what is asked, and whether it holds."""

    name: str
    found: str
    wanted: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.found}, {'as asked' if self.holds else 'FAILS'} ({self.wanted})"


def check_dataset(dataset: OfflineDataset, task: Task) -> list[Check]:
    """All that the task asks of its dataset; an empty list where it asks nothing. Rewards must be the task's own."""
    asked = task.recipe.acceptance
    if asked is None:
        return []
    checks = [*_posture(dataset, asked), *_returns(dataset, task, asked)]
    if asked.growing:
        first, last = _mean_returns(dataset)
        found = f"episodes of the first tenth return {first:.0f}, of the last {last:.0f}"
        checks.append(Check("growing skill", found, f"{asked.margin:.0f} more", last >= first + asked.margin))
    if asked.expert is not None:
        best = _best_episodes(dataset)
        checks.append(Check("expert", f"best episodes return {best:.0f}", f"at least {asked.expert:.0f}", best >= asked.expert))
    return checks


def _posture(dataset: OfflineDataset, asked: Acceptance) -> list[Check]:
    end = dataset.observations[-max(1, len(dataset) // 10) :].astype(np.float64)
    checks = []
    if asked.pitch is not None:
        pitch = max(np.median(np.abs(rows[:, asked.pitch])) for rows in (dataset.observations, end))
        wanted = f"below {asked.upright:g} rad"
        checks.append(Check("upright", f"median |pitch| {pitch:.2f} rad", wanted, bool(pitch < asked.upright)))
    if asked.speed is not None:
        speed = end[:, asked.speed].mean()
        wanted = f"above {asked.moving:g} m/s"
        checks.append(Check("moving", f"mean v_x of the last tenth {speed:.2f} m/s", wanted, bool(speed > asked.moving)))
    return checks


def _returns(dataset: OfflineDataset, task: Task, asked: Acceptance) -> list[Check]:
    best, idle = dataset.describe()["return_max"], probe_returns(task, checked_specification(task))
    names = {"return_zero": "zero action", "return_random": "random actions"}
    return [
        Check(
            f"better than {names[probe]}",
            f"best episode {best:.0f}",
            f"at least {value:.0f} + {asked.margin:.0f}",
            bool(best >= value + asked.margin),
        )
        for probe, value in idle.items()
    ]


def _mean_returns(dataset: OfflineDataset) -> tuple[float, float]:
    """Mean returns of the episodes that begin in the first tenth of the rows, and of those that end in the last."""
    whole = dataset.whole_episodes()
    starts, stops, returns = (each[whole] for each in (*dataset.episodes(), dataset.episode_returns()))
    first = returns[starts <= len(dataset) / 10]
    last = returns[stops > min(len(dataset) * 0.9, stops[-1] - 1)]
    return float(first.mean()), float(last.mean())


def _best_episodes(dataset: OfflineDataset) -> float:
    """The mean return of the best episodes, as many as fill `EXPERT_ROWS` of the rows."""
    whole = dataset.whole_episodes()
    lengths, returns = dataset.episode_lengths()[whole], dataset.episode_returns()[whole]
    order = np.argsort(-returns)
    filled = np.cumsum(lengths[order]) <= EXPERT_ROWS * len(dataset)
    return float(returns[order][: max(1, filled.sum())].mean())
