"""What the rounding of a bundled replay buffer does to a fit of the dynamics model.

    python results/collection/rounding.py FOLDER TASK ROWS > results/collection/rounding.csv

FOLDER is that of the collection, with its checkpoint. The same fit (10 epochs, two seeds, the same draws) is made of the
buffer as it was collected, of the buffer as it is bundled, and of one in half precision; each is judged on rows that it
held out, in its own rounding. Rounding is harmless where its column differs from the first by less than one seed from another.
"""

import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.harness.collection.collect import Collection, OnlineTrainer
from mopo_bench.harness.runs.checkpoints import load_tensors
from mopo_bench.harness.runs.machine import prepare_process
from mopo_bench.tasks.data.compact import read_compact, write_compact
from mopo_bench.tasks.registry import get_task

EPOCHS, SEEDS = 10, (0, 1)


def as_bundled(dataset):
    with tempfile.TemporaryDirectory() as folder:
        write_compact(dataset, Path(folder) / "small.hdf5")
        return read_compact(Path(folder) / "small.hdf5", action_low=-1, action_high=1)


def in_half_precision(dataset):
    names = ("observations", "actions", "rewards", "next_observations")
    return replace(dataset, **{name: getattr(dataset, name).astype(np.float16).astype(np.float32) for name in names})


if __name__ == "__main__":
    folder, task, rows = Path(sys.argv[1]), get_task(sys.argv[2]), int(sys.argv[3])
    prepare_process()
    state = load_tensors(folder / "checkpoint.pt", "it cannot be compared")
    identity = state["identity"]
    trainer = OnlineTrainer(Collection(task, state["steps"], seed=identity["seed"], compiled=identity["compiled"]))
    trainer.load(state)
    collected = trainer.replay().head(rows)
    table = csv.writer(sys.stdout)
    table.writerow(["buffer", "seed", "rows", "epochs", "holdout_error", "reward_rmse", "observation_rmse", "nll"])
    for name, make in {"collected": lambda d: d, "bundled": as_bundled, "half precision": in_half_precision}.items():
        problem = task.offline_problem(make(collected))
        for seed in SEEDS:
            record = Dynamics.fit(problem, Dynamics.Config(max_epochs=EPOCHS), seed)[1]
            errors = record["holdout_errors"]
            elite = float(np.mean(sorted(record["holdout_error"])[: Dynamics.Config().elites]))
            numbers = (elite, errors[0], float(np.sqrt(np.mean(np.square(errors[1:])))), record["holdout_nll"])
            table.writerow([name, seed, rows, record["epochs"], *(f"{number:.5g}" for number in numbers)])
            sys.stdout.flush()
