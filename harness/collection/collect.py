"""Makes datasets by D4RL's protocol: SAC is trained online until it is as good as the dataset should be.

The run is a function of its seed alone: every episode draws its start and its exploration noise from streams named by its
number, and checkpoints are written only between episodes, so that a resumed run gives the same numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import torch

from ...algorithms.learning.fast.compiling import Compile, checked, compiler_trouble, decide
from ...algorithms.learning.fast.stepping import updater
from ...algorithms.learning.replay import Layout, Ring
from ...algorithms.learning.steps import StepStreams
from ...algorithms.sac import SAC
from ...common.errors import UserError
from ...common.streams import derived_seed, numpy_stream
from ...tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from ...tasks.data.dataset import OfflineDataset, joined
from ...tasks.data.hdf5 import write_hdf5
from ...tasks.data.relabelling import with_own_rewards
from ...tasks.environments import make_environment, recorded_step
from ...tasks.task import Task
from ..runs.checkpoints import load_tensors, save_tensors
from ..runs.evaluation import Evaluator, reset_seeds
from ..runs.machine import describe_machine, prepare_process
from ..runs.records import csv_text, identity_hash, write_text

# Collections keep the first weights and the Adam with which the bundled policies were made, whatever the offline defaults are.
ONLINE_SAC = SAC.Config(initialisation="torch", adam="torch")


@dataclass(frozen=True)
class Collection:
    """SAC online, as rlkit ran it for D4RL: one update per environment step after `random_steps` of uniform actions.

    It learns in the environment of the task's dataset, `Task.as_collected`. A run is named by that environment, not by the
    task: tasks that differ in their dataset alone (medium, mixed, medium-expert) resume one another's checkpoint.
    """

    task: Task
    steps: int  # of the environment, at most
    target_return: float | None = None  # the medium policy's is the first whose 10 deterministic episodes average this
    stop_at_target: bool = True
    seed: int = 0
    random_steps: int = 1_000
    evaluate_every: int = 1_000  # hopper goes from 970 to 2750 within 5 000 steps: a coarser look overshoots
    snapshot_every: int = 5_000
    evaluation_episodes: int = 10
    compiled: bool = False

    # raised by hand when a collection's numbers change: a golden trace notices; of its own, since SAC's counts defaults, too
    version: ClassVar[str] = "1.1"

    def run(self, folder: Path, report: Callable[[dict[str, Any]], None] = lambda row: None) -> OnlineTrainer:
        """Trains in `folder`, from its checkpoint where it has one.

        The folder then holds `curve.csv`, a row for each evaluation; `snapshots/STEPS.npz`, the policy at the first evaluation
        after each `snapshot_every` steps; `medium.npz`, the first policy that reached the target; `best.npz`, the one with the
        highest return; `policy.npz`, the last.
        """
        prepare_process()
        trainer = OnlineTrainer(self)
        checkpoint = folder / "checkpoint.pt"
        (folder / "snapshots").mkdir(parents=True, exist_ok=True)
        if checkpoint.exists():
            trainer.load(self.read(checkpoint))
        while trainer.steps < self.steps and not (self.stop_at_target and trainer.medium_point() is not None):
            trainer.episode()
            if trainer.steps - trainer.evaluated_at >= self.evaluate_every or trainer.steps >= self.steps:
                report(trainer.evaluate())
                for name in trainer.worth_keeping():
                    trainer.policy().save(folder / name)
                write_text(folder / "curve.csv", csv_text(trainer.curve))
                # last, so that whatever a checkpoint knows of is already there
                save_tensors(checkpoint, trainer.state())
        trainer.policy().save(folder / "policy.npz")
        return trainer

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of a run, which a checkpoint records; the number of steps and of evaluations does not."""
        task = self.task.as_collected()
        rules = {key: value for key, value in task.identity().items() if key != "task"}
        return {
            "environment": task.environment,
            "rules": identity_hash(rules),
            "seed": self.seed,
            "random_steps": self.random_steps,
            "compiled": self.compiled,
            "sac": self.version,
        }

    def command(self, **options: int) -> str:
        """The command that makes this collection; `options` are further ones of the command."""
        chosen: dict[str, Any] = {"seed": self.seed, "steps": self.steps, "evaluate-every": self.evaluate_every, **options}
        if self.target_return is not None:
            chosen["target"] = self.target_return
        chosen["compile"] = "on" if self.compiled else "off"
        written = " ".join(f"--{name} {value}" for name, value in chosen.items())
        return f"mopo-bench data collect {self.task.name} {written} --out FOLDER"

    def read(self, checkpoint: Path) -> dict[str, Any]:
        """The state in a checkpoint. Raises UserError where that is of another collection."""
        state = load_tensors(checkpoint, "delete it to start again")
        if state.get("identity") != self.identity():
            raise UserError(f"{checkpoint} belongs to another collection, {state.get('identity')}; choose another --out")
        return state


def medium_return(task: Task) -> float:
    """The return at which D4RL stopped its *medium* policies: a third of the expert's."""
    if task.references is None:
        raise UserError(f"{task.name} has no expert to be a third of: say where to stop with --target or --steps")
    return task.references.max / 3


def collect(
    task: Task,
    folder: Path,
    *,
    steps: int | None = None,
    rows: int = 1_000_000,
    target: float | None = None,
    compiled: str | bool = "auto",
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    **options: Any,
) -> OfflineDataset:
    """Makes the task's dataset by D4RL's protocol, and writes it to `folder/NAME.hdf5`; resumes what the folder holds.

    The dataset is the parts of the recipe's `protocol`, one after another: *random*, *medium* and *expert* are `rows` steps of
    a stochastic policy, which is a randomly initialised one, the first that reached the target, and the best; *mixed* is the
    replay buffer up to the medium policy, *replay* all of it; *policy* (of a task without protocol) is rows of the last policy.
    Where the task collects under another reward, all of it is relabelled.

    steps: training steps at most; 1M by default, as in the paper.
    compiled: "auto", "on" (True) or "off" (False), see `compiling.py`.
    options: of `Collection`.
    """
    protocol = task.recipe.protocol or ("policy",)
    to_medium = {"medium", "mixed", "expert"} & set(protocol)
    if target is None and (to_medium or (protocol == ("policy",) and steps is None)):
        target = medium_return(task)
    whole_run = {"expert", "replay"} & set(protocol)
    steps = steps or 1_000_000
    compiled = _compiled(compiled, steps, folder) if protocol != ("random",) else False
    plan = Collection(task, steps, target, stop_at_target=not whole_run, compiled=compiled, **options)
    with _folder_to_itself(folder):
        if protocol == ("random",):
            parts = [roll_out(task, BehaviourPolicy.random(task, plan.seed), rows, plan.seed)]
        else:
            trainer = plan.run(folder, report)
            if to_medium and trainer.medium_point() is None:
                best = max(row["return_mean"] for row in trainer.curve)
                raise UserError(
                    f"{folder}: the medium return of {target:.0f} was not reached in {trainer.steps} steps (best {best:.0f}); "
                    "resume with a larger --steps, or lower --target"
                )
            parts = [_part(part, trainer, folder, rows) for part in protocol]
        dataset = with_own_rewards(joined(parts), task)
        notes = {"source": "collected", "task": task.name, "protocol": list(protocol), "command": plan.command(rows=rows)}
        dataset = replace(dataset, provenance={**dataset.provenance, **notes})
        write_hdf5(dataset, folder / f"{task.name}.hdf5")
    return dataset


def _compiled(wanted: str | bool, steps: int, folder: Path) -> bool:
    """Whether steps are compiled; "auto" resumes a collection as it was begun, since the two give different numbers."""
    checkpoint = folder / "checkpoint.pt"
    if checked(wanted) is Compile.auto and os.path.exists(checkpoint):  # False, too, for a folder that may not be entered
        begun = bool(load_tensors(checkpoint, "delete it to start again").get("identity", {}).get("compiled"))
        if begun and (trouble := compiler_trouble()):
            raise UserError(f"{checkpoint} is of a compiled collection, and {trouble}; choose another folder with --out")
        return begun
    return decide(wanted, steps).compiled


@contextmanager
def _folder_to_itself(folder: Path) -> Iterator[None]:
    """Locks the folder, since two runs in it would mix their policies. Raises UserError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(f"another collection is at work in {folder}: wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out") from None


def _part(part: str, trainer: OnlineTrainer, folder: Path, rows: int) -> OfflineDataset:
    if part == "replay":
        return trainer.replay()
    if part == "mixed":
        return trainer.replay().head(trainer.medium_point() or trainer.steps)
    if part == "medium":
        policy = _policy_of(trainer, folder)
    else:
        policy = BehaviourPolicy.load(folder / {"expert": "best.npz", "policy": "policy.npz"}[part])
    # two logs of one run begin in other states
    seed = trainer.plan.seed if part != "expert" else derived_seed(trainer.plan.seed, part) % 2**31
    return roll_out(trainer.task, policy, rows, seed)


def _policy_of(trainer: OnlineTrainer, folder: Path) -> BehaviourPolicy:
    """The medium policy, under whichever name it was saved, since the run may have had another target, or none."""
    wanted = {"steps": trainer.medium_point(), "seed": trainer.plan.seed}
    for path in (folder / "medium.npz", *sorted(folder.glob("*.npz")), *sorted(folder.glob("snapshots/*.npz"))):
        if path.exists() and wanted.items() <= (policy := BehaviourPolicy.load(path)).about.items():
            return policy
    raise UserError(
        f"{folder} keeps no policy of step {wanted['steps']}, the first whose return reached {trainer.plan.target_return:.0f}: "
        "ask for the --target with which it was trained, or collect into another folder with --out"
    )


class OnlineTrainer:
    """SAC online with its replay buffer; between calls of its methods it always stands between two episodes."""

    def __init__(self, plan: Collection):
        self.plan, self.task = plan, plan.task.as_collected()
        task = self.task
        self.learner = SAC(task.problem, ONLINE_SAC, [plan.seed])
        self.layout = Layout(task.problem.observation_size, task.problem.action_size)
        self.buffer = Ring(1, plan.steps + task.problem.max_episode_steps, self.layout.width, torch.float32, "cpu")
        self.environment = make_environment(task.environment, **task.parameters)
        self.evaluator = Evaluator(task)
        self.streams = StepStreams(self.learner)
        self.update = updater(self.learner, plan.compiled)
        self.steps = self.evaluated_at = 0
        self.extras: dict[str, np.ndarray] = {}  # what a dataset stores in addition to the transitions, a row per step
        self.episode_ends: list[int] = []  # row after each episode's last
        self.curve: list[dict[str, Any]] = []
        self.recent_returns: list[float] = []
        self.started, self.seconds_before = time.monotonic(), 0.0

    def episode(self) -> None:
        """Takes one episode of exploration, with one update after each of its steps once the random steps are over."""
        plan, task, problem = self.plan, self.task, self.task.problem
        stream = numpy_stream(plan.seed, task.environment, "exploration", len(self.episode_ends))
        noise = stream.standard_normal((problem.max_episode_steps, 1, 1, problem.action_size)).astype(np.float32)
        uniform = stream.uniform(-1, 1, (problem.max_episode_steps, problem.action_size)).astype(np.float32)
        observation, total = self._reset(), 0.0
        for step in range(problem.max_episode_steps):
            if self.steps < plan.random_steps:
                action = uniform[step]
            else:
                seen = torch.as_tensor(observation, dtype=torch.float32).view(1, 1, -1)
                action = self.learner.act(seen, torch.as_tensor(noise[step]))[0, 0].numpy()
            observation, reward, terminated = self._step(observation, action)
            total += reward
            if self.steps > plan.random_steps:
                uniform_rows, update_noise = self.streams.at(self.steps)
                self.update(self.layout.batch(self.buffer.draw(uniform_rows)), update_noise, None)
            if terminated:
                break
        self.episode_ends.append(self.steps)
        self.recent_returns.append(total)

    def _reset(self) -> np.ndarray:
        seed = derived_seed(self.plan.seed, "exploration", len(self.episode_ends)) % 2**31
        return self.environment.reset(seed=seed)[0]

    def _step(self, observation: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Takes an action in [-1, 1] and stores what happens; gives the successor, the reward, and whether it is terminal."""
        box, recorded = self.task.problem.action_box, self.task.recipe.recorded
        successor, reward, terminated, extras = recorded_step(self.environment, box.from_unit(action), recorded)
        row = np.empty(self.layout.width, np.float32)
        self.layout.fill(row, observation, action, reward, not terminated, successor)
        self.buffer.write(0, torch.as_tensor(row)[None])
        self._store(extras)
        self.steps += 1
        return successor, reward, terminated

    def repeat(self, actions: np.ndarray, episode_ends: Sequence[int]) -> None:
        """Fills the empty buffer by taking the actions (N, act) of a run anew, without learning from what happens."""
        for stop in episode_ends:
            observation = self._reset()
            for action in actions[self.steps : stop]:
                observation, _, _ = self._step(observation, action)
            self.episode_ends.append(self.steps)

    def _store(self, extras: dict[str, np.ndarray]) -> None:
        for name, value in extras.items():
            if name not in self.extras:
                if self.steps > 0:
                    raise UserError(f"the collection so far stores no {name}: start again in another folder with --out")
                self.extras[name] = np.zeros((self.buffer.capacity, *value.shape), np.float32)
            self.extras[name][self.steps] = value

    def evaluate(self) -> dict[str, Any]:
        """Evaluates the deterministic policy, and adds a row to the curve."""
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

    def medium_point(self) -> int | None:
        """The step of the first evaluation that reached the target; None where none has."""
        target = self.plan.target_return
        return next((row["steps"] for row in self.curve if target is not None and row["return_mean"] >= target), None)

    def worth_keeping(self) -> list[str]:
        """Names of the files in which the policy of the last evaluation is to be saved."""
        *_, before, now = [0, 0, *(row["steps"] for row in self.curve)]
        every, best = self.plan.snapshot_every, max(row["return_mean"] for row in self.curve)
        wanted = {
            f"snapshots/{now:08d}.npz": before // every < now // every,
            "medium.npz": self.medium_point() == now,
            "best.npz": self.curve[-1]["return_mean"] == best,
        }
        return [name for name, holds in wanted.items() if holds]

    def policy(self) -> BehaviourPolicy:
        plan = self.plan
        last = self.curve[-1] if self.curve else {"return_mean": None, "return_std": None}
        about = {
            "policy": f"SAC trained online for {self.steps} steps",
            "task": self.task.name,
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
        size, box = self.buffer.size[0], self.task.problem.action_box
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
            extras={name: values[:size] for name, values in self.extras.items()},
            provenance={"source": "regenerated", "policy": {**self.policy().about, "policy": "SAC's replay buffer"}},
        )

    def state(self) -> dict[str, Any]:
        size = self.buffer.size[0]
        return {
            "identity": self.plan.identity(),
            "learner": self.learner.state(0),
            "rows": self.buffer.rows[0, :size].clone(),
            "extras": {name: torch.as_tensor(values[:size]) for name, values in self.extras.items()},
            "steps": self.steps,
            "episode_ends": self.episode_ends,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.learner.load_states([state["learner"]])
        if len(state["rows"]) > self.buffer.capacity:
            raise UserError(f"the collection has {len(state['rows'])} steps already: ask for --steps of at least as many")
        self.buffer.write(0, state["rows"])
        for name, values in state["extras"].items():
            self.extras[name] = np.zeros((self.buffer.capacity, *values.shape[1:]), np.float32)
            self.extras[name][: len(values)] = values.numpy()
        self.steps, self.episode_ends, self.curve = state["steps"], state["episode_ends"], state["curve"]
        self.evaluated_at = self.curve[-1]["steps"]
        self.seconds_before = self.curve[-1]["seconds"]
