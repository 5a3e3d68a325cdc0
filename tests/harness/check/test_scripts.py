"""The scripts beside the published results: false alarms, and defects that are seeded to see whether the check catches them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mopo_bench.harness.check.baseline import update

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "results" / "check"
SMALL = {"batch_size": 32, "hidden": "16,16", "rollout_states": 100, "rollout_every": 10, "dynamics.hidden": "16,16,16"}
SMALL |= {"dynamics.max_epochs": 1, "behaviour.steps": 20, "warmup_steps": 5}


def script(name, *words):
    return subprocess.run([sys.executable, SCRIPTS / name, *map(str, words)], capture_output=True, text=True)


def test_false_alarms_are_counted_with_their_interval(folder, normal, tmp_path):
    old, path = folder("old"), tmp_path / "baseline.csv"
    old.add(normal(100, 5, 40), vitals={"loss": normal(1, 0.1, 40, 1)})
    update(path, old.root, "why")
    done = script("false_alarms.py", path, "--behind", 20, "--out", tmp_path / "alarms.md")
    assert done.returncode == 0, done.stderr
    count, rate, low, high = re.search(r"\| any \| (\d+) of 500 \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", done.stdout).groups()
    assert float(low) < float(rate) < float(high) and float(rate) == pytest.approx(int(count) / 500, abs=5e-4)
    assert float(rate) < 0.12 and (tmp_path / "alarms.md").read_text() == done.stdout
    assert "too few seeds" in script("false_alarms.py", path, "--behind", 40).stderr
    assert "at least 500" in script("false_alarms.py", path, "--draws", 10).stderr


@pytest.mark.slow
def test_every_seeded_defect_changes_its_runs(tmp_path):
    """Of one tiny run of each of its algorithms, and the control changes none. Or a table of what is caught says nothing."""
    small = [word for key, value in SMALL.items() for word in ("--set", f"all.{key}={value}")]
    budget = ["--tasks", "point-angle", "--seeds", "3,", "--steps", 40, "--episodes", 2, *small]
    control = script("defects.py", "--baseline", tmp_path, "--work", tmp_path / "clean", "--defects", "none", *budget)
    assert (tmp_path / "clean" / "none" / "point-angle").is_dir(), control.stderr  # no baseline to check it against, yet
    clean = tmp_path / "clean" / "none"
    done = script("defects.py", "--baseline", clean, "--work", tmp_path / "work", *budget)
    assert done.returncode == 0, done.stderr
    seeded = {path.parent.name for path in (tmp_path / "work").glob("*/report.json")}
    names = [line.partition(":")[0] for line in script("defects.py", "--list").stdout.splitlines()]
    assert sorted(seeded) == sorted(names), done.stdout
    before = evaluations(clean)
    same = {name for name in names for key, rows in evaluations(tmp_path / "work" / name).items() if rows == before[key]}
    assert same == {"none"}


def evaluations(folder):
    """By algorithm and seed, what was evaluated."""
    records = folder.glob("point-angle/*/*/seed-*/record.json")
    return {(path.parts[-4], path.parts[-2]): json.loads(path.read_text())["evaluations"] for path in records}
