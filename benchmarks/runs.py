"""Runs in processes of their own, for `bench_runs.py` and `growth.py`: they say as JSON what they took.

python runs.py epoch --seed 0 --results FOLDER [--compile]     "0" when ready, then an epoch's seconds for every line read
python runs.py memory --batch FILE [--compile]                 memory of a run on FILE
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import parts
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.fast.stepping import updater
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.harness.runs.cell import Cell, describe_dataset
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.harness.runs.machine import prepare_process
from mopo_bench.harness.runs.trial import Trial
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.registry import get_task
from parts import sized


def epochs(seed: int, results: Path, compiled: bool) -> None:
    """A run of the harness, an epoch at a time: all that `mopo-bench run` does between two evaluations."""
    task, algorithm = get_task(parts.TASK), get_algorithm("mopo")
    overrides = {
        "rollout_length": parts.ROLLOUT_LENGTH,
        "rollout_states": sized(50_000, 2_000),
        "rollout_every": sized(1_000, 50),
        "dynamics.max_epochs": 1,  # the arithmetic of a rollout is the same after one
    }
    cell = Cell(
        task,
        algorithm,
        algorithm.configure(task_settings(algorithm, task.name), overrides),
        overrides,
        parts.request(),
        describe_dataset(load_dataset(task, parts.request())),
        steps=1,
        seeds=(seed,),
        results=results,
        evaluate_every=10**9,  # at the end of each call of `run` only
        episodes=sized(10, 2),
    )
    trial = Trial(cell)
    trial.steps.update = updater(trial.learner, compiled)  # whatever a run would choose by itself
    trial.run()  # one step: compiled by now
    print(0, flush=True)
    for _ in sys.stdin:
        trial.cell = replace(cell, steps=trial.step + sized(1_000, 50))
        print(parts.timed(trial.run), flush=True)


def memory(file: Path, compiled: bool) -> None:
    """A run in small that holds all that a long one does: memory grows with rows and rollouts, not with steps."""
    problem = parts.problem_of_file(file)
    # Narrow networks: an epoch on a million rows takes minutes with the real ones, whose activations are a few MB.
    narrow = parts.configs("mopo", **{"dynamics.hidden": (8, 8, 8, 8), "dynamics.max_epochs": 1})["dynamics"]
    Dynamics.fit(problem, narrow, 0)
    fit = parts.memory_of_process()["peak"]
    parts.forget_peak()
    training = parts.Training("mopo", compiled=compiled, problem=problem, rollout_states=sized(50_000, 2_000))
    training.experience.refresh(0, training.learner)
    training.experience.ring.rows.add_(0)  # as if all its rollouts had been made
    training.steps(sized(200, 20))
    task = get_task(parts.TASK)
    Evaluator(task).returns(training.act, [reset_seeds(0, 0, sized(10, 2))])
    found = parts.memory_of_process()
    print(json.dumps({"fit": fit, "training": found["peak"], "own": found["own"], "files": found["files"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("epoch", "memory"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--batch", type=Path)
    options = parser.parse_args()
    prepare_process()
    torch.manual_seed(options.seed)
    if options.what == "epoch":
        epochs(options.seed, options.results, options.compile)
    else:
        memory(options.batch, options.compile)


if __name__ == "__main__":
    main()
