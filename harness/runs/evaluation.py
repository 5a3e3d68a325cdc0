"""Rollouts in the real environment: while training waits, or beside it in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from ...algorithms.learning.learner import Learner
from ...common.errors import UserError
from ...common.streams import derived_seed
from ...common.trees import tree_map
from ...tasks.simulation import simulate
from ...tasks.task import Task
from .cell import Cell, build
from .fits import fit_stage
from .interrupts import end_with, ignore_interrupts, interrupts_held, stop_if_asked
from .machine import prepare_process, usable_cores
from .private_joblib import ProcessPoolExecutor, end, ready_to_start

Act = Callable[[np.ndarray], np.ndarray]


class Episodes(NamedTuple):
    """What n episodes of each of S seeds gave: returns (S, n), plain and discounted, lengths (S, n) in steps, and first
    observations (S, n, obs).
    """

    returns: np.ndarray
    discounted: np.ndarray
    lengths: np.ndarray
    first: np.ndarray


class Evaluated(NamedTuple):
    """Undiscounted returns (S, n), and vitals of the evaluation, (S,) each."""

    returns: np.ndarray
    vitals: dict[str, np.ndarray]


class Begun(NamedTuple):
    """An evaluation that was begun."""

    ended: Callable[[float], bool]  # whether it has, waited for so many seconds at most
    result: Callable[[], Evaluated]  # waits for it


IDLE_SECONDS = 60  # after which a process that evaluates ends


class Evaluator:
    """Runs episodes side by side, with one policy call a step for all of them; environments are kept between calls.

    specification: as the environment was registered with Gymnasium where the run was planned; this process may not know it.
    """

    def __init__(self, task: Task, specification: EnvSpec | None = None):
        self.task, self.specification = task, specification
        self.environments: list = []

    def returns(self, act: Act, seeds: Sequence[Sequence[int]]) -> np.ndarray:
        """Undiscounted returns (S, n) of `act`, see `episodes`."""
        return self.episodes(act, seeds).returns

    def episodes(self, act: Act, seeds: Sequence[Sequence[int]]) -> Episodes:
        """Plays episodes with `act`, observations (S, n, obs) to unit actions (S, n, act).

        `seeds` (S, n) are the resets'. An episode that has ended keeps its last observation until all have ended. One with an
        action that is not finite ends there, and returns NaN.
        """
        task, groups, episodes = self.task, len(seeds), len(seeds[0])
        while len(self.environments) < groups * episodes:
            self.environments.append(simulate(task, self.specification))
        flat = [int(seed) for row in seeds for seed in row]
        environments = self.environments[: len(flat)]
        first = [environment.reset(seed=seed)[0] for environment, seed in zip(environments, flat, strict=True)]
        observations = np.stack(first).astype(np.float32)
        returns, discounted, lengths = np.zeros(len(flat)), np.zeros(len(flat)), np.zeros(len(flat), int)
        running = list(range(len(flat)))
        starts = observations.reshape(groups, episodes, -1).copy()
        box = task.problem.action_box
        for step in range(task.problem.max_episode_steps):
            stop_if_asked()
            actions = act(observations.reshape(groups, episodes, -1)).reshape(len(flat), -1)
            sound: Any = np.isfinite(actions).all(axis=1)
            actions = box.from_unit(actions)
            for index in list(running):
                if not sound[index]:
                    returns[index] = np.nan
                    running.remove(index)
                    continue
                observation, reward, terminated, truncated, _ = environments[index].step(actions[index])
                observations[index] = observation
                returns[index] += reward
                lengths[index] += 1
                discounted[index] += task.problem.discount**step * reward
                if terminated or truncated:
                    running.remove(index)
            if not running:
                break
        shape = groups, episodes
        return Episodes(returns.reshape(shape), discounted.reshape(shape), lengths.reshape(shape), starts)


def evaluated(evaluator: Evaluator, learner: Learner, starts: Sequence[Sequence[int]]) -> Evaluated:
    """The learner's episodes from resets with these seeds (S, n); how long they are, and how wrong its critics, if it has some.

    episode_length: the episodes' mean number of steps, which is below the task's where a terminal state ended some.
    value_error: the critics' value of the first state and the policy's action there minus the discounted return that followed,
    in the mean over episodes. Even of perfect critics it is not 0: they look beyond the cut of an episode, and value what they
    learn from, rewards less penalties, with an entropy bonus, where an algorithm has them. What comes of these alone is about
    (temperature * entropy - penalty) / (1 - discount), by the metrics and vitals of those names, where an episode is long.
    """
    act = acting(learner)
    played = evaluator.episodes(act, starts)
    seen, actions = (torch.as_tensor(each).to(learner.device, learner.dtype) for each in (played.first, act(played.first)))
    vitals, values = {"episode_length": played.lengths.mean(1)}, learner.action_value(seen, actions)
    if values is not None:
        vitals["value_error"] = (values.float().cpu().numpy() - played.discounted).mean(1)
    return Evaluated(played.returns, vitals)


def reset_seeds(seed: int, step: int, episodes: int) -> list[int]:
    """Reset seeds of an evaluation: by training seed and step, so that every algorithm meets the same starts."""
    return [derived_seed(seed, "evaluation", step, episode) % 2**31 for episode in range(episodes)]


def acting(learner: Learner) -> Act:
    """The learner's mode, for an `Evaluator`. UserError where it leaves [-1, 1], of which environments make what they like."""

    def act(observations: np.ndarray) -> np.ndarray:
        seen = torch.as_tensor(observations).to(learner.device, learner.dtype)
        actions = learner.act(seen).float().cpu().numpy()
        if (largest := float(np.abs(actions).max())) > 1 + 1e-6:
            raise UserError(f"{type(learner).__name__}.act: expected actions in [-1, 1], got one of size {largest:.6g}")
        return actions

    return act


def evaluation_processes(cell: Cell, group: int) -> int:
    """How many evaluate beside the training of so many seeds; 0: training waits. On a GPU it would wait for long."""
    if cell.evaluation_processes is not None:
        return cell.evaluation_processes
    return 0 if cell.device == "cpu" else min(group, max(1, usable_cores() - 1))


class EvaluationHere:
    """In this process, at once."""

    processes = 0

    def __init__(self, cell: Cell):
        self.evaluator = Evaluator(cell.task, cell.specification)

    def begin(self, learner: Learner, states: Sequence[dict[str, Any]], starts: Sequence[Sequence[int]]) -> Begun:
        """Evaluates the learner as it is now, which is in `states` by seed, from resets with these seeds (S, n)."""
        found = evaluated(self.evaluator, learner, starts)
        return Begun(lambda seconds: True, lambda: found)

    def close(self) -> None:
        """There is nothing to end."""


class EvaluationBeside:
    """In processes of their own, a seed at a time, by copies of the policies on the CPU; training goes on meanwhile."""

    def __init__(self, cell: Cell, processes: int):
        self.cell, self.processes = replace(cell, device="cpu"), processes
        ready_to_start()
        self.executor = ProcessPoolExecutor(processes, timeout=IDLE_SECONDS, initializer=end_with, initargs=(os.getpid(),))

    def begin(self, learner: Learner, states: Sequence[dict[str, Any]], starts: Sequence[Sequence[int]]) -> Begun:
        with interrupts_held():  # processes are started; they end with the one they work for
            jobs = [
                self.executor.submit(evaluate, self.cell.with_seeds(seed), as_arrays(state), list(resets))
                for seed, state, resets in zip(self.cell.seeds, states, starts, strict=True)
            ]
        return Begun(lambda seconds: not wait(jobs, seconds).not_done, lambda: _together([job.result() for job in jobs]))

    def close(self) -> None:
        end(self.executor)


def _together(seeds: Sequence[Evaluated]) -> Evaluated:
    """Evaluations of one seed each as that of a group."""
    vitals = {name: np.concatenate([each.vitals[name] for each in seeds]) for name in seeds[0].vitals}
    return Evaluated(np.concatenate([each.returns for each in seeds]), vitals)


def as_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """A tensor would go to another process as a handle to shared memory, of which a system has few."""
    return tree_map(lambda each: each.cpu().numpy() if isinstance(each, torch.Tensor) else each, state)


def as_tensors(state: dict[str, Any]) -> dict[str, Any]:
    return tree_map(lambda each: torch.from_numpy(each) if isinstance(each, np.ndarray) else each, state)


_at_hand: dict[str, Any] = {}  # of the cell that this process evaluated last: environments, and a learner for each seed


def evaluate(cell: Cell, state: dict[str, Any], resets: Sequence[int]) -> Evaluated:
    """The evaluation of the cell's one seed in this state of its learner."""
    if _at_hand.get("folder") != cell.folder:
        ignore_interrupts()
        prepare_process()
        _at_hand.update(folder=cell.folder, evaluator=Evaluator(cell.task, cell.specification), learners={})
    learners = _at_hand["learners"]
    if cell.seeds not in learners:
        fits = {name: [fit_stage(cell, name, seed)["state"] for seed in cell.seeds] for name in cell.algorithm.stages}
        learners[cell.seeds] = build(cell, fits)[0]
    learners[cell.seeds].load_states([as_tensors(state)])
    return evaluated(_at_hand["evaluator"], learners[cell.seeds], [resets])
