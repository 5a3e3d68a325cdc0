"""Synthetic results folders, written as real ones are."""

import json
import os

import numpy as np
import pytest
from mopo_bench.harness.check.baseline import update
from mopo_bench.harness.runs.records import Store

TASK, STEPS = "point-angle", 8000  # a task without scores, so that returns are shown as they are


class Folder(Store):
    def add(
        self, returns, algorithm="mopo", task=TASK, identity="abc", *, first=0, steps=STEPS, state="done", episodes=20,
        vitals=None, fits=None, worse=None, overrides=None, digest="d" * 64, rules=None,
    ):  # fmt: skip
        """A seed from `first` on for each of `returns`. vitals, fits: by name a number, or one for each seed."""
        folder = self.cell_folder(task, algorithm, identity)
        data = {"label": f"{task}@regenerated", "source": "regenerated", "digest": digest, "window": "all", "rows": 1000}
        about = {"about": {"worse": worse}} if worse is not None else {}
        cell = {"task": task, "algorithm": algorithm, "config": {}, "overrides": overrides or {}, "data": data, **about}
        self.write_cell(folder, {**cell, "rules": rules or {"task": task}, "versions": {"learner": "1"}, "package": "0.1.0"})
        for index, value in enumerate(returns):

            def of_seed(numbers, index=index):
                return {k: float(np.broadcast_to(v, len(returns))[index]) for k, v in (numbers or {}).items()}

            rows = [
                {"step": step, "returns": [value] * episodes, "return_mean": value, "return_std": 0.0, **of_seed(vitals)}
                for step in (steps // 2, steps)
            ]
            record = {"seed": first + index, "state": state, "steps": steps, "evaluations": rows}
            record |= {"segments": [{"commit": "c0ffee"}], "stage_records": {"model": of_seed(fits)} if fits else {}}
            self.write_record(folder / f"seed-{first + index}", record)
        return folder

    def change(self, seed, **changes):
        """Changes the record of a seed of the only cell."""
        (path,) = self.root.glob(f"*/*/*/seed-{seed}/record.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Hundreds of small files are written, which need not outlive the machine."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def folder(tmp_path):
    """A results folder of this name."""
    return lambda name: Folder(tmp_path / name)


@pytest.fixture
def new(folder):
    return folder("new")


@pytest.fixture
def normal():
    """So many normal numbers; the same for the same seed."""
    return lambda mean, spread, count, seed=0: np.random.default_rng(seed).normal(mean, spread, count).tolist()


@pytest.fixture
def baseline(folder, normal, tmp_path):
    """A baseline file of twenty seeds of mopo at 100 ± 5."""
    old = folder("old")
    old.add(normal(100, 5, 20, seed=7))
    update(tmp_path / "baseline.csv", old.root, "the first")
    return tmp_path / "baseline.csv"
