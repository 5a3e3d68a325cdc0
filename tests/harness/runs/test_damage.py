"""A damaged file in a results folder is named, counts for nothing, and stops nothing else."""

import json
import math
import shutil

import pytest
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Two seeds of SAC, done, of two evaluations each."""
    results = tmp_path_factory.mktemp("whole")
    execute(plan("sac", results=results, seeds=(0, 1), steps=4, evaluate_every=2, episodes=2), jobs=1)
    return results


TEXTS = {
    "empty": b"",
    "half": b'{"seed": 0, "sta',
    "zeros": b"\0" * 99,
    "latin-1": b'{"a": "\xe9"}',
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "number": b"12",
    "deep": b"[" * 100_000 + b"]" * 100_000,
}
LAST = {
    "NaN": {"return_mean": math.nan}, "infinite": {"return_mean": math.inf}, "text": {"return_mean": "12"},
    "mean null": {"return_mean": None}, "true": {"return_mean": True}, "other mean": {"return_mean": 9999.0},
    "mean list": {"return_mean": [1]}, "returns text": {"returns": "abc"}, "returns null": {"returns": None},
    "no returns": {"returns": []}, "step text": {"step": "4"}, "step negative": {"step": -5},
    "value": {"value": {"highest": 1}}, "metrics": {"metrics": 3},
}  # fmt: skip
RECORD = {
    "steps huge": {"steps": 10**30}, "steps text": {"steps": "4"}, "steps null": {"steps": None}, "steps half": {"steps": 4.5},
    "none": {"evaluations": []}, "null": {"evaluations": None}, "dict": {"evaluations": {"a": 1}},
    "numbers": {"evaluations": [1, 2]}, "finished": {"state": "finished"}, "state null": {"state": None},
    "state list": {"state": ["done"]}, "Done": {"state": "Done"}, "seed 7": {"seed": 7}, "seed 1": {"seed": 1},
    "seed text": {"seed": "0"}, "seed climbs": {"seed": "0/../../../escaped"}, "segments": {"segments": [1]},
    "stages": {"stages": [1]}, "traceback": {"traceback": 5}, "seconds": {"seconds": "x"},
    "seconds at": {"seconds_at": {"4": "x"}},
}  # fmt: skip
CELL = {
    "task": {"task": "hopper-medium"}, "algorithm": {"algorithm": "mopo"}, "climbs": {"task": "../../etc"}, "five": {"task": 5},
    "list": {"task": ["a"]}, "null": {"algorithm": None}, "data": {"data": None}, "config": {"config": None},
    "versions": {"versions": [1]}, "overrides": {"overrides": ["a"]}, "package": {"package": None},
    "identity": {"identity": "deadbeef"}, "settings": {"settings": {"tau": 3}},
}  # fmt: skip
CASES = [
    *(("record.json", f"text {name}", text) for name, text in TEXTS.items()),
    *(("cell.json", f"text {name}", text) for name, text in TEXTS.items()),
    *(("plan.json", f"text {name}", text) for name, text in TEXTS.items() if name != "object"),
    *(
        ("record.json", f"last {name}", lambda value, new=new: value["evaluations"][-1].update(new))
        for name, new in LAST.items()
    ),
    *(("record.json", name, lambda value, new=new: value.update(new)) for name, new in RECORD.items()),
    *(("cell.json", name, lambda value, new=new: value.update(new)) for name, new in CELL.items()),
    ("cell.json", "return_zero null", lambda value: value["data"].update(return_zero=None)),
    ("cell.json", "no rows", lambda value: value["data"].pop("rows")),
    ("record.json", "reversed", lambda value: value["evaluations"].reverse()),
]


def damage(results, name, change):
    path = next(iter(sorted(results.rglob(name))))
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))


@pytest.mark.parametrize("name, case, change", CASES, ids=[f"{name} {case}" for name, case, _ in CASES])
def test_damage_is_named_and_counts_for_nothing(name, case, change, whole, command, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    damage(results, name, change)
    numbers = {run.seed: run.evaluations for run in load_runs(whole)}
    left = {run.seed: run.evaluations for run in load_runs(results)}
    assert left == {seed: numbers[seed] for seed in {"record.json": [1], "cell.json": [], "plan.json": [0, 1]}[name]}
    status = command("status", "--results", results)
    assert status.code == 0 and "not believed: " in status.out and name in status.out
    table = command("table", "scores", "--results", results, "--format", "markdown")
    assert table.code == (2 if name == "cell.json" else 0)


@pytest.mark.parametrize("name", ["record.json", "cell.json", "plan.json"])
def test_the_next_run_puts_it_aside_and_has_the_same_numbers(name, whole, plan, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    damage(results, name, b"[]")
    again = plan("sac", results=results, seeds=(0, 1), steps=4, evaluate_every=2, episodes=2)
    execute(again, jobs=1)
    assert len(again.ledger.repaired) == 1 and name in again.ledger.repaired[0]
    assert len(list(results.rglob(f"{name}.damaged"))) == 1
    assert [run.evaluations for run in load_runs(results)] == [run.evaluations for run in load_runs(whole)]
    assert {run.state for run in load_runs(results)} == {"done"}


@pytest.mark.parametrize(
    "copy", ["sac-old", "sac/backup", "sac/*/seed-00", "sac/*/seed-0.bak", "sac/*/seed-1 copy", "sac/*/seed-2"]
)
def test_a_copy_counts_for_nothing(copy, whole, command, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    (identity,) = (results / "point-angle/sac").iterdir()
    source = {1: identity.parent, 2: identity}.get(len(copy.split("/")), identity / "seed-0")
    shutil.copytree(source, results / "point-angle" / copy.replace("*", identity.name))
    assert [run.seed for run in load_runs(results)] == [0, 1]
    assert "not believed" in command("status", "--results", results).out
    assert "Not believed" in command("table", "scores", "--results", results, "--format", "markdown").out


def test_text_of_a_failure_is_printed_as_it_is(whole, command, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    damage(
        results, "record.json", lambda value: value.update(state="failed", steps=4, traceback="x\n[red]boom\x1b[2J [/nosuch]")
    )
    damage(results, "plan.json", lambda value: [entry.update(steps=8) for entry in value.values()])
    status = command("status", "--results", results)
    assert status.code == 0 and "\x1b" not in status.out and "[red]boom" in status.out and "[/nosuch]" in status.out
