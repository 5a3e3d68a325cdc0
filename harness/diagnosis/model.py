"""The policy and the dynamics model of a trained run, asked together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...algorithms.learning.dynamics import Dynamics, Prediction
from ...algorithms.learning.experience import Experience
from ...algorithms.learning.registry import get_algorithm
from ...algorithms.learning.rollouts import ModelRollouts
from ...common.errors import UserError
from ...common.streams import torch_stream
from ...tasks.data.dataset import OfflineDataset
from ...tasks.registry import get_task
from ...tasks.task import Task, TrueStep
from ...tasks.true_step import true_step
from ..runs.checkpoints import load_checkpoint, load_fit, stage_path
from ..runs.policies import Policy, find_run, policy_of, with_parameters
from ..runs.records import Store

AT_ONCE = 2_000  # states of which all networks are asked together


class Answers(NamedTuple):
    """Of n states and actions: u(s, a) as the run computes it, and what every elite predicts of (reward, s'), raw units."""

    uncertainty: np.ndarray  # (n,)
    means: np.ndarray  # (elites, n, 1 + obs)
    stds: np.ndarray  # (elites, n, 1 + obs)


class ModelStep(NamedTuple):
    """One step of model rollouts: where they stand, what the policy does, where the model says that it leads."""

    observations: np.ndarray  # (n, obs)
    actions: np.ndarray  # (n, act) in [-1, 1]
    alive: np.ndarray  # (n,) bool: not over before this step
    answers: Answers
    next_observations: np.ndarray  # (n, obs), sampled
    rewards: np.ndarray  # (n,), sampled


@dataclass(frozen=True)
class TrainedModel:
    """A trained run, with the simulator beside its model. length: the steps of its own rollouts."""

    task: Task
    policy: Policy
    dataset: OfflineDataset  # actions in [-1, 1]
    experience: ModelRollouts
    dynamics: Dynamics
    true_step: TrueStep
    length: int

    @classmethod
    def load(cls, results: Path, task: str, algorithm: str, seed: int, identity: str, dataset: Path | None) -> TrainedModel:
        """Raises UserError where there is no such run, it has no dynamics model, or its task's state cannot be set."""
        kind = get_algorithm(algorithm)
        if not issubclass(kind.experience, ModelRollouts):
            raise UserError(f"{algorithm} rolls out no dynamics model: a diagnosis is of an algorithm that does")
        run = find_run(results, task, algorithm, seed, identity)
        chosen = with_parameters(get_task(task), run.cell.get("rules", {}).get("parameters", {}))
        simulator = true_step(chosen)
        policy = policy_of(run, results, dataset)
        learner = policy.learner
        assert learner is not None
        config = kind.configure({key: value for key, value in run.cell["config"].items() if key in kind.defaults()})
        configs = kind.build_configs(config)
        problem: Any = learner.problem  # it looks for its dataset when that is asked for
        stages = {}
        for name, stage in kind.experience.stages.items():
            path = stage_path(results, name, run.record.get("stages", {}).get(name, "unknown"), seed)
            fitted = load_fit(path)["state"]
            stages[name] = stage(problem, configs[name], [fitted])
        small, _ = kind.experience.short_refresh(configs["experience"], "cpu")  # no ring of a run's size is filled here
        experience = kind.experience(problem, small, [seed], stages=stages, true_step=simulator)
        checkpoint = load_checkpoint(Store(results).cell_folder(run.task, run.algorithm, run.identity) / f"seed-{seed}")
        assert checkpoint is not None  # the policy is from it
        # a model may have changed since it was fitted; rollouts are not made again
        Experience.load_states(experience, [checkpoint["experience"]], learner)
        parts = (chosen, policy, problem.dataset, experience, experience.dynamics, simulator)
        return cls(*parts, configs["experience"].rollout_length)

    def ask(self, observations: np.ndarray, actions: np.ndarray) -> Answers:
        """What the model says of states (n, obs) at actions (n, act) in [-1, 1], without a random number."""
        found = []
        for first in range(0, len(observations), AT_ONCE):
            seen, done = (
                torch.as_tensor(each[first : first + AT_ONCE], dtype=torch.float32)[None] for each in (observations, actions)
            )
            still = torch.zeros(*seen.shape[:2], seen.shape[2] + 1)
            found.append(self._answers(self.dynamics.sample(seen, done, still[..., 0], still)))
        return Answers(*(np.concatenate(each, axis) for each, axis in zip(zip(*found, strict=True), (0, 1, 1), strict=True)))

    def truth(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The real (reward, s'), (n, 1 + obs), of the simulator set to each state."""
        successors, rewards = self.true_step(observations.astype(np.float64), actions.astype(np.float64))
        return np.concatenate((rewards[:, None], successors), 1)

    def roll_out(self, starts: np.ndarray, length: int, name: str) -> Iterator[ModelStep]:
        """Rolls the policy out in the model from states (n, obs), sampled as in training; `name` is its random stream's."""
        learner = self.policy.learner
        assert learner is not None
        stream = torch_stream(int(self.policy.about["seed"]), "diagnosis", name)
        observations, alive = torch.as_tensor(starts, dtype=torch.float32)[None], np.ones(len(starts), bool)
        for _ in range(length):
            count, size, width = len(starts), self.task.problem.action_size, observations.shape[2]
            actions = learner.act(observations, torch.randn(1, count, size, generator=stream))
            uniform = torch.rand(1, count, generator=stream, dtype=torch.float64)
            step = self.dynamics.sample(observations, actions, uniform, torch.randn(1, count, width + 1, generator=stream))
            said = (step.next_observations[0].numpy(), step.rewards[0].numpy())
            yield ModelStep(observations[0].numpy(), actions[0].numpy(), alive, self._answers(step), *said)
            alive = alive & ~step.terminals[0].numpy()
            observations = torch.where(step.terminals[..., None], observations, step.next_observations)
            if not alive.any():
                return

    def _answers(self, prediction: Prediction) -> Answers:
        assert prediction.means is not None and prediction.stds is not None
        elites = self.dynamics.elites[0]
        uncertainty = self.experience.uncertainty(prediction)[0]
        return Answers(uncertainty.numpy(), *(each[0, elites].numpy() for each in (prediction.means, prediction.stds)))
