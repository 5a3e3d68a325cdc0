"""Makes batches by D4RL's protocol: SAC trained online until it is as good as the batch should be.

The run is a function of its seed alone: every episode draws its start and its exploration noise from streams named by its
number, and a checkpoint is taken only between episodes, so that a run that was killed goes on to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..algorithms.registry import version_of
from ..algorithms.replay import Layout, Ring
from ..algorithms.sac import SAC
from ..tasks.behaviour import BehaviourPolicy
from ..tasks.dataset import OfflineDataset, write_hdf5
from ..tasks.environments import make_environment
from ..tasks.errors import UserError
from ..tasks.streams import derived_seed, numpy_stream
from ..tasks.task import Task
from .evaluation import Evaluator, reset_seeds
from .machine import describe_machine, prepare_process
from .stepping import StepStreams, updater
from .store import csv_text, identity_hash, load_tensors, replace_file, write_text


@dataclass(frozen=True)
class Collection:
    """SAC online, as rlkit ran it for D4RL: one update per environment step after `random_steps` of uniform actions."""

    task: Task
    target_return: float  # training stops when 10 deterministic episodes average this
    max_steps: int
    seed: int = 0
    random_steps: int = 1_000
    evaluate_every: int = 1_000  # hopper goes from 970 to 2750 within 5 000 steps: a coarser look overshoots
    evaluation_episodes: int = 10
    compiled: bool = False

    def run(self, folder: Path, report: Callable[[dict[str, Any]], None] = lambda row: None) -> BehaviourPolicy:
        """Trains, or goes on training, in `folder`; returns the policy.

        In the folder stay `policy.npz`, `curve.csv` and `replay.hdf5`, the replay buffer: D4RL's *mixed* of that policy.
        """
        prepare_process()
        trainer = OnlineTrainer(self)
        checkpoint = folder / "checkpoint.pt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from None
        if checkpoint.exists():
            trainer.load(self.read(checkpoint))
        while not trainer.reached(self.target_return) and trainer.steps < self.max_steps:
            trainer.episode()
            if trainer.steps - trainer.evaluated_at >= self.evaluate_every or trainer.steps >= self.max_steps:
                report(trainer.evaluate())
                state = trainer.state()
                replace_file(checkpoint, partial(torch.save, state))
                write_text(folder / "curve.csv", csv_text(trainer.curve))
        policy = trainer.policy()
        policy.save(folder / "policy.npz")
        write_hdf5(trainer.replay(), folder / "replay.hdf5")
        return policy

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, as it stands in a checkpoint; not how far or how often."""
        return {
            "task": identity_hash(self.task.identity()),
            "name": self.task.name,
            "seed": self.seed,
            "random_steps": self.random_steps,
            "compiled": self.compiled,
            "sac": version_of(SAC),
        }

    def command(self) -> str:
        """That makes this collection again."""
        options = {"seed": self.seed, "target": f"{self.target_return:g}", "steps": self.max_steps}
        options["evaluate-every"] = self.evaluate_every
        written = " ".join(f"--{name} {value}" for name, value in options.items())
        return f"mopo-bench data collect {self.task.name} {written}{' --compile' if self.compiled else ''} --out FOLDER"

    def read(self, checkpoint: Path) -> dict[str, Any]:
        """The state in a checkpoint of this same collection; else UserError."""
        state = load_tensors(checkpoint, "delete it to start again")
        if state.get("identity") != self.identity():
            raise UserError(f"{checkpoint} belongs to another collection, {state.get('identity')}; choose another --out")
        return state


def medium_return(task: Task) -> float:
    """A third of the expert's return, where D4RL stopped its *medium* policies."""
    if task.reference_returns is None:
        raise UserError(f"{task.name} has no expert to be a third of: say where to stop with --target")
    return task.reference_returns[1] / 3


class OnlineTrainer:
    """SAC, its replay buffer and where it stands in the environment; always between two episodes when seen from outside."""

    def __init__(self, plan: Collection):
        self.plan, task = plan, plan.task
        self.learner = SAC(task.problem, SAC.Config(), [plan.seed])
        self.layout = Layout(task.observation_size, task.action_size)
        self.buffer = Ring(1, plan.max_steps + task.max_episode_steps, self.layout.width, torch.float32, "cpu")
        self.environment = make_environment(task.environment, **task.parameters)
        self.evaluator = Evaluator(task)
        self.streams = StepStreams(self.learner)
        self.update = updater(self.learner, plan.compiled)
        self.steps = self.evaluated_at = 0
        self.episode_ends: list[int] = []  # row after each episode's last
        self.curve: list[dict[str, Any]] = []
        self.recent_returns: list[float] = []
        self.started, self.seconds_before = time.monotonic(), 0.0

    def episode(self) -> None:
        """One episode of exploration, with one update after each of its steps once the random steps are over."""
        plan, task, box = self.plan, self.plan.task, self.plan.task.action_box
        stream = numpy_stream(plan.seed, task.environment, "exploration", len(self.episode_ends))
        noise = stream.standard_normal((task.max_episode_steps, 1, 1, task.action_size)).astype(np.float32)
        uniform = stream.uniform(-1, 1, (task.max_episode_steps, task.action_size)).astype(np.float32)
        observation, _ = self.environment.reset(seed=derived_seed(plan.seed, "exploration", len(self.episode_ends)) % 2**31)
        total = 0.0
        for step in range(task.max_episode_steps):
            if self.steps < plan.random_steps:
                action = uniform[step]
            else:
                seen = torch.as_tensor(observation, dtype=torch.float32).view(1, 1, -1)
                action = self.learner.act(seen, torch.as_tensor(noise[step]))[0, 0].numpy()
            successor, reward, terminated, _, _ = self.environment.step(box.from_unit(action))
            row = np.concatenate((observation, action, [float(reward), not terminated], successor)).astype(np.float32)
            self.buffer.write(0, torch.as_tensor(row)[None])
            observation, self.steps, total = successor, self.steps + 1, total + float(reward)
            if self.steps > plan.random_steps:
                uniform_rows, update_noise = self.streams.at(self.steps)
                self.update(self.layout.batch(self.buffer.draw(uniform_rows)), update_noise, None)
            if terminated:
                break
        self.episode_ends.append(self.steps)
        self.recent_returns.append(total)

    def evaluate(self) -> dict[str, Any]:
        """Deterministic episodes; adds a row to the curve."""
        plan = self.plan
        seeds = [reset_seeds(plan.seed, self.steps, plan.evaluation_episodes)]
        returns = self.evaluator.returns(lambda seen: self.learner.act(torch.as_tensor(seen)).numpy(), seeds)[0]
        row = {
            "steps": self.steps,
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std(ddof=1)),
            "episode_return_mean": float(np.mean(self.recent_returns)),
            "seconds": round(self.seconds_before + time.monotonic() - self.started, 1),
        }
        self.curve.append(row)
        self.evaluated_at, self.recent_returns = self.steps, []
        return row

    def reached(self, target: float) -> bool:
        return bool(self.curve) and self.curve[-1]["return_mean"] >= target

    def policy(self) -> BehaviourPolicy:
        plan = self.plan
        last = self.curve[-1] if self.curve else {"return_mean": None, "return_std": None}
        about = {
            "policy": f"SAC trained online for {self.steps} steps",
            "task": plan.task.name,
            "seed": plan.seed,
            "steps": self.steps,
            "return_mean": last["return_mean"],
            "return_std": last["return_std"],
            "evaluation_episodes": plan.evaluation_episodes,
            "target_return": plan.target_return,
            "command": plan.command(),
            "machine": describe_machine(),
        }
        return BehaviourPolicy([weight[0].numpy().copy() for weight in self.learner.actor.weights], about)

    def replay(self) -> OfflineDataset:
        """Every transition so far, in order, with the environment's own actions."""
        size, box = self.buffer.size[0], self.plan.task.action_box
        rows = self.layout.batch(self.buffer.rows[:, :size])
        terminals = rows.alive[0].numpy() == 0
        timeouts = np.zeros(size, bool)
        timeouts[np.array(self.episode_ends) - 1] = True
        return OfflineDataset(
            observations=rows.observations[0].numpy().copy(),
            actions=box.from_unit(rows.actions[0].numpy().copy()),
            rewards=rows.rewards[0].numpy().copy(),
            next_observations=rows.next_observations[0].numpy().copy(),
            terminals=terminals,
            timeouts=timeouts & ~terminals,
            valid_next=np.ones(size, bool),
            provenance={"source": "regenerated", "policy": {**self.policy().about, "policy": "SAC's replay buffer"}},
        )

    def state(self) -> dict[str, Any]:
        size = self.buffer.size[0]
        return {
            "identity": self.plan.identity(),
            "learner": self.learner.state(0),
            "rows": self.buffer.rows[0, :size].clone(),
            "steps": self.steps,
            "episode_ends": self.episode_ends,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.learner.load_states([state["learner"]])
        if len(state["rows"]) > self.buffer.capacity:
            raise UserError(f"the collection has {len(state['rows'])} steps already: ask for --steps of at least as many")
        self.buffer.write(0, state["rows"])
        self.steps, self.episode_ends, self.curve = state["steps"], state["episode_ends"], state["curve"]
        self.evaluated_at = self.curve[-1]["steps"]
        self.seconds_before = self.curve[-1]["seconds"]
