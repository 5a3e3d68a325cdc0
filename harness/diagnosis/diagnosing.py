"""A diagnosis of a trained run: how far u(s, a) tells where its model errs, and what that means for its policy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...common.settings import Count, converted
from ...common.streams import derived_seed, numpy_stream
from ...tasks.simulation import simulate
from ..report.formats import DASH, Entry, Table
from ..report.paper import REFERENCE
from ..runs.ledger import existing_folder
from ..runs.machine import caller_kept, prepare_process
from ..runs.records import csv_text, write_text
from . import measures
from .measures import number
from .model import Answers, TrainedModel

HEADS = {"dataset": "Dataset", "rollouts": "Model rollouts", "policy": "Policy's episodes"}
SMALLEST_WEIGHT = 0.01  # discount^step below which a step of an episode is left out of an occupancy
LINES = {  # of the table: what a set of points says, in words
    "points": "States and actions",
    "uncertainty": "Mean u(s, a)",
    "error": "Mean error of the model",
    "rank_correlation": "Rank correlation of u and error",
    "bounded": "Share of u above the error",
    "z_score": "z-score, root mean square",
    "nll": "Negative log-likelihood, nats",
    "model_reward": "Mean reward, the model's",
    "true_reward": "Mean reward, true",
    "epsilon_u": "epsilon_u, a step",
    "simulator_error": "Simulator's error, median",
    "simulator_error_99": "Simulator's error, 99 %",
}
NOTES = (
    "Needs the simulator, as no offline algorithm may: it is set to each state and takes one step, that of a point task "
    "without its noise.",
    "Error: the L2 distance of the elites' mean from the real (reward, next observation), in raw units. Rank correlation: "
    "Spearman's; 1 where u orders states as their errors do, 0 where it knows nothing of them.",
    "z-score: of the real step by the predicted mean and standard deviation, over elites and dimensions; 1 where the spread is "
    "right, more where it is too small. Of the dataset by its stored rows, else by the simulator's step.",
    "epsilon_u: the mean of u over the discounted occupancy in the model, 0 after an end (eq. 8 of the paper, times "
    "1 - discount); of the learned policy under model rollouts, of the behaviour policy, by its rows, under the dataset.",
    "Simulator's error: the distance of its step from the one that was stored or played. Where it is not near 0 there is "
    "noise, another simulator, or a state that the observation does not show whole, and the model's error is not known better.",
)


@dataclass(frozen=True)
class Points:
    """States and actions of one origin. truth: the simulator's (reward, s'), (n, 1 + obs); seen: what calibrates the spread."""

    step: np.ndarray  # (n,) of the rollout or the episode
    answers: Answers
    truth: np.ndarray
    seen: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return measures.errors(self.answers, self.truth)

    def facts(self) -> dict[str, Any]:
        """The numbers of these points, by the names of `LINES`."""
        uncertainty, error = self.answers.uncertainty, self.errors
        return {
            "points": len(error),
            "uncertainty": number(uncertainty.mean()),
            "error": number(error.mean()),
            "rank_correlation": measures.rank_correlation(uncertainty, error),
            "bounded": number((uncertainty >= error).mean()),
            **measures.calibration(self.answers, self.seen),
            "model_reward": number(self.answers.means[..., 0].mean()),
            "true_reward": number(self.seen[:, 0].mean()),
            **self._simulator_facts(),
        }

    def _simulator_facts(self) -> dict[str, Any]:
        """How far the simulator, set to a state, is from what happened there; nothing where only it says what happens."""
        if self.seen is self.truth:
            return {}
        apart = np.linalg.norm(self.seen - self.truth, axis=1)
        return {"simulator_error": number(np.median(apart)), "simulator_error_99": number(np.quantile(apart, 0.99))}


@dataclass(frozen=True)
class Diagnosis:
    """What was measured. about: the run. facts: by origin of the points, numbers by the names of `LINES`. horizon: by step of
    model rollouts, means over those that go on. points: by origin."""

    about: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, Any]]
    horizon: list[dict[str, Any]]
    points: Mapping[str, Points]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        about = {key: value for key, value in self.about.items() if not isinstance(value, Mapping)}
        return {"about": about, **{name: dict(found) for name, found in self.facts.items()}, "horizon": self.horizon}

    def table(self) -> Table:
        """A line for each number, a column for each origin."""
        lines = [
            [Entry(words), *(Entry(_shown(found.get(name))) for found in self.facts.values())] for name, words in LINES.items()
        ]
        about = self.about
        title = f"{about['task']}, {about['algorithm']} seed {about['seed']} at step {about['step']:,}"
        return Table(title, "", ["", *HEADS.values()], lines, list(NOTES))

    def save(self, folder: Path) -> list[Path]:
        """Writes numbers (.json), table (.md), points (.csv) and picture (.png) to a folder; their paths."""
        from .pictures import draw

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"diagnosis.{kind}" for kind in ("json", "md", "csv", "png")]
        write_text(paths[0], json.dumps(self.to_dict(), indent=1) + "\n")
        write_text(paths[1], self.table().to_markdown() + "\n")
        write_text(paths[2], csv_text(list(self._rows())))
        draw(self, paths[3])
        return paths

    def _rows(self) -> Any:
        for origin, points in self.points.items():
            columns = {
                "step": points.step,
                "uncertainty": points.answers.uncertainty,
                "error": points.errors,
                "model_reward": points.answers.means[..., 0].mean(0),
                "true_reward": points.seen[:, 0],
            }
            for row in zip(*columns.values(), strict=True):
                yield {"origin": origin, **{name: each.item() for name, each in zip(columns, row, strict=True)}}


@caller_kept()
def diagnose(
    task: str,
    algorithm: str = REFERENCE,
    seed: int = 0,
    results: Path | str = "runs",
    out: Path | str | None = None,
    identity: str = "",
    dataset: Path | str | None = None,
    rows: int = 1_000,
    length: int | None = None,
    episodes: int = 5,
) -> Diagnosis:
    """How far the uncertainty u(s, a) of a trained run's model is that of its true error, on the dataset, in model rollouts and
    along the episodes of its policy.

    rows: states of the dataset that are looked at, and from which rollouts start. length: steps of these; the run's own by
    default. episodes: of the policy in the real environment. out: a folder to write to. identity, dataset: as `load_policy`.
    Raises UserError where there is no such run, it has no dynamics model, or its task's state cannot be set from an
    observation.
    """
    for option, value in (("--rows", rows), ("--episodes", episodes), ("--length", 1 if length is None else length)):
        converted(value, Count, option)
    prepare_process()
    folder = existing_folder(results)
    model = TrainedModel.load(folder, task, algorithm, int(seed), identity, Path(dataset) if dataset else None)
    generator = numpy_stream(int(seed), "diagnosis")
    logged, age = _dataset_points(model, generator, rows)
    imagined, horizon = _rollout_points(model, generator, rows, length or model.length)
    points = {"dataset": logged, "rollouts": imagined, "policy": _policy_points(model, episodes)}
    facts = {name: each.facts() for name, each in points.items()}
    discount = model.task.problem.discount
    mean_length = float(model.dataset.episode_lengths().mean())
    facts["dataset"]["epsilon_u"] = measures.occupancy_mean(logged.answers.uncertainty, age, discount, mean_length)
    facts["rollouts"]["epsilon_u"] = _learned_epsilon(model, generator)
    found = Diagnosis({**model.policy.about, "length": length or model.length}, facts, horizon, points)
    if out is not None:
        found.save(Path(out))
    return found


def _dataset_points(model: TrainedModel, generator: np.random.Generator, rows: int) -> tuple[Points, np.ndarray]:
    """Rows with a known successor, at random, and how many steps after the start of its episode each stands."""
    data = model.dataset
    chosen = np.sort(generator.permutation(np.flatnonzero(data.valid_next))[:rows])
    observations, actions = data.observations[chosen], data.actions[chosen]
    stored = np.concatenate((data.rewards[chosen, None], data.next_observations[chosen]), 1).astype(np.float64)
    starts = data.episodes()[0]
    age = chosen - starts[np.searchsorted(starts, chosen, side="right") - 1]
    answers = model.ask(observations, actions)
    return Points(age, answers, model.truth(observations, actions), stored), age


def _rollout_points(
    model: TrainedModel, generator: np.random.Generator, rows: int, length: int
) -> tuple[Points, list[dict[str, Any]]]:
    """The live states of model rollouts; and by step: u, the error of the step, and how far the rollout is from where the real
    simulator is after the same actions."""
    starts = model.dataset.observations[np.sort(generator.integers(len(model.dataset), size=rows))]
    real, horizon, parts = starts.astype(np.float64), list[dict[str, Any]](), list[Points]()
    for age, step in enumerate(model.roll_out(starts, length, "rollouts"), 1):
        alive = step.alive
        truth = model.truth(step.observations[alive], step.actions[alive])
        answers = Answers(step.answers.uncertainty[alive], *(each[:, alive] for each in step.answers[1:]))
        parts.append(Points(np.full(alive.sum(), age), answers, truth, truth))
        real[alive] = model.truth(real[alive], step.actions[alive])[:, 1:]
        apart = np.linalg.norm(step.next_observations[alive] - real[alive], axis=1)
        facts = {"uncertainty": answers.uncertainty, "error": parts[-1].errors, "drift": apart}
        row: dict[str, Any] = {"step": age, "alive": int(alive.sum())}
        for name, values in facts.items():
            low, high = np.quantile(values, (0.25, 0.75))
            row |= {name: number(values.mean()), f"{name}_low": number(low), f"{name}_high": number(high)}
        horizon.append(row)
    columns = zip(*((part.step, part.truth, *part.answers) for part in parts), strict=True)
    ages, truth, *said = (np.concatenate(each, axis) for each, axis in zip(columns, (0, 0, 0, 1, 1), strict=True))
    return Points(ages, Answers(*said), truth, truth), horizon


def _policy_points(model: TrainedModel, episodes: int) -> Points:
    """Where the policy goes in the real environment, by its mode, and what that pays."""
    environment, box = simulate(model.task), model.task.problem.action_box
    rows: list[tuple[Any, ...]] = []
    for episode in range(episodes):
        observation, _ = environment.reset(seed=derived_seed(model.policy.about["seed"], "diagnosis", episode) % 2**31)
        for step in range(model.task.problem.max_episode_steps):
            action = model.policy(observation)
            successor, reward, terminated, truncated, _ = environment.step(action)
            rows.append((step, observation, action, np.array([float(reward), *successor])))
            if terminated or truncated:
                break
            observation = successor
    steps, observations, actions, seen = (np.array(each) for each in zip(*rows, strict=True))
    units = box.to_unit(actions)
    return Points(steps, model.ask(observations, units), model.truth(observations, units), seen)


def _learned_epsilon(model: TrainedModel, generator: np.random.Generator, rollouts: int = 100) -> float | None:
    """E of u over the discounted occupancy of the learned policy in the model, from first states of the dataset's episodes."""
    first, discount = model.dataset.episodes()[0], model.task.problem.discount
    starts = model.dataset.observations[generator.choice(first, rollouts)]
    longest = (
        math.ceil(math.log(SMALLEST_WEIGHT) / math.log(discount)) if discount < 1 else model.task.problem.max_episode_steps
    )
    values, steps = [], []
    for age, step in enumerate(model.roll_out(starts, min(longest, model.task.problem.max_episode_steps), "occupancy")):
        values.append(step.answers.uncertainty[step.alive])
        steps.append(np.full(step.alive.sum(), age))
    found = np.concatenate(values)
    return measures.occupancy_mean(found, np.concatenate(steps), discount, len(found) / rollouts)


def _shown(value: Any) -> str:
    return DASH if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
