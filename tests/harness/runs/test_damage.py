"""A damaged file in a results folder is named, counts for nothing, and stops nothing else."""

import json
import math
import shutil
import warnings

import filelock
import pytest
import torch
from mopo_bench.common.errors import UserError
from mopo_bench.harness.runs.checkpoints import load_checkpoint, load_fit, save_tensors
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.reading import are_numbers, is_number
from mopo_bench.harness.runs.records import Store
from mopo_bench.harness.runs.runner import execute


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Two seeds of SAC, done, of two evaluations each."""
    results = tmp_path_factory.mktemp("whole")
    execute(plan("sac", results=results, seeds=(0, 1), steps=4, evaluate_every=2, episodes=2), jobs=1)
    return results


@pytest.mark.parametrize("value, sound", [
    (0, True), (-2.5, True), (1e254, True), (-1e254, True), (10**254, True), (1e256, False), (-1e256, False), (10**400, False),
    (math.inf, False), (-math.inf, False), (math.nan, False), (True, False), (None, False), ("1", False), ([1.0], False),
])  # fmt: skip
def test_a_number_is_finite_by_itself_and_in_a_list(value, sound):
    assert is_number(value) is sound
    assert are_numbers([value]) is are_numbers([1.0, value, 2]) is are_numbers([value, 1.0]) is sound


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
    "metric huge": {"metrics": {"a": 10**400}}, "metric NaN": {"metrics": {"a": None, "b": math.nan}},
    "vital huge": {"vitals": {"a": [1.0, None, 10**400]}}, "vital infinite": {"vitals": {"a": [[math.inf]]}},
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


def test_a_seed_whose_record_is_gone_is_named(whole, plan, command, tmp_path):
    """As of a folder that was copied halfway: the seed would be missing from the mean without a word."""
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    min(results.rglob("record.json")).unlink()
    (results / "plan.json").unlink()
    assert [run.seed for run in load_runs(results)] == [1]
    assert "seed-0: there are evaluations, and no record.json" in command("status", "--results", results).out
    assert "no record.json" in command("table", "scores", "--results", results, "--format", "markdown").out
    execute(plan("sac", results=results, seeds=(0, 1), steps=4, evaluate_every=2, episodes=2), jobs=1)
    assert [run.evaluations for run in load_runs(results)] == [run.evaluations for run in load_runs(whole)]


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


@pytest.mark.parametrize("name", ["record.json", "cell.json"])
def test_what_is_damaged_and_held_by_another_process_is_left(name, whole, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    damage(results, name, b"[]")
    path = min(results.rglob(name))
    cell = path.parent if name == "cell.json" else path.parents[1]
    with filelock.FileLock(path.parent / "lock"):
        assert Store(results).repair(cell, [0, 1]) == [] and path.read_bytes() == b"[]"
    assert len(Store(results).repair(cell, [0, 1])) == 1 and not path.exists()


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


@pytest.fixture(scope="module")
def fitted(plan, tmp_path_factory):
    """Two seeds of MOPO, done, each on a fit of its own."""
    results = tmp_path_factory.mktemp("fitted")
    execute(plan("mopo", results=results, seeds=(0, 1), steps=25))
    return results


@pytest.fixture
def of_fits(fitted, arguments, tmp_path):
    """A copy of it, the file of seed 0's fit, and the words of the command that made it."""
    results = tmp_path / "results"
    shutil.copytree(fitted, results)
    (path,) = results.glob("stages/dynamics/*/seed-0.pt")
    return results, path, [*arguments("mopo", results=results, seeds="2", steps=25), "--jobs", 1]


def flip(path):
    """A bit of a weight."""
    content, weight = bytearray(path.read_bytes()), torch.load(path, weights_only=True)["state"]["weights"][0]
    content[content.index(weight.numpy().tobytes()) + 1] ^= 4
    path.write_bytes(content)


def moved(path):
    """Whole and readable, and not what was fitted."""
    fit = torch.load(path, weights_only=True)
    fit["state"]["input_mean"] += 1
    save_tensors(path, fit)


def other_protocol(path):
    """Torch warns of it in words of its own, and reads the rest."""
    path.write_bytes(path.read_bytes().replace(b"\x80\x02", b"\x80\xb7", 1))


def test_torch_has_no_word_in_it(whole, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    path = min(results.rglob("checkpoint.pt"))
    other_protocol(path)
    with warnings.catch_warnings(record=True, action="always") as said:
        assert load_checkpoint(path.parent)["step"] == 4
    assert not said


SEEN_BY_STATUS = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("{}"),
    "a byte": flip,
    "another protocol": other_protocol,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}
SEEN_BY_RUN = {
    "another seed's": lambda path: shutil.copy(path.with_name("seed-1.pt"), path),
    "other numbers": moved,
    "a list": lambda path: save_tensors(path, [1]),
    "no record": lambda path: save_tensors(path, {"state": {}}),
}


@pytest.mark.parametrize("case", SEEN_BY_STATUS | SEEN_BY_RUN)
def test_a_damaged_fit_is_put_aside_and_fitted_anew(case, fitted, of_fits, command, evaluations):
    """Also where its run is done: whoever loads its policy needs it."""
    results, path, words = of_fits
    (SEEN_BY_STATUS | SEEN_BY_RUN)[case](path)
    with pytest.raises(UserError, match="run its grid again, which puts it aside and fits it anew"):
        load_fit(path)
    status = " ".join(command("status", "--results", results).out.split())
    assert (f"not believed: stages/dynamics/{path.parent.name}/seed-0.pt: it " in status) == (case in SEEN_BY_STATUS)
    finished = command(*words)
    said = " ".join(finished.out.split())
    assert finished.code == 3 and f"damaged: stages/dynamics/{path.parent.name}/seed-0.pt: it " in said
    assert "it is kept as seed-0.pt.damaged, and fitted anew" in said
    kept = path.with_name("seed-0.pt.damaged")
    assert kept.exists() or kept.is_symlink()
    anew, before = load_fit(path)["state"], load_fit(fitted / path.relative_to(results))["state"]
    assert all(map(torch.equal, anew["weights"], before["weights"]))
    assert evaluations(results) == evaluations(fitted)
    assert "not believed" not in command("status", "--results", results).out
    assert command(*words).code == 0  # once


def test_a_run_that_goes_on_stands_on_the_fit_that_was_made_anew(of_fits, plan, evaluations, tmp_path):
    results, path, _ = of_fits
    flip(path)
    longer = {"seeds": (0, 1), "steps": 50}
    assert len(execute(plan("mopo", results=results, **longer))["done"]) == 2
    execute(plan("mopo", results=tmp_path / "undisturbed", **longer))
    assert evaluations(results) == evaluations(tmp_path / "undisturbed")


def test_what_was_kept_of_a_fit_and_is_damaged_is_put_aside(of_fits, command, evaluations, fitted):
    results, path, words = of_fits
    shutil.rmtree(results / "point-angle")
    flip(path.rename(path.with_name("seed-0.part.pt")))
    assert "seed-0.part.pt: it is not as it was written" in " ".join(command("status", "--results", results).out.split())
    finished = command(*words)
    assert finished.code == 3 and "kept as seed-0.part.pt.damaged, and begun anew" in " ".join(finished.out.split())
    assert evaluations(results) == evaluations(fitted)


def test_a_damaged_fit_that_is_being_worked_on_is_left(of_fits, plan):
    results, path, _ = of_fits
    flip(path)
    here = plan("mopo", results=results, seeds=(0, 1), steps=25)
    with filelock.FileLock(path.with_suffix(".lock")):
        assert execute(here) == {} and here.ledger.repaired == []
    assert not path.with_name("seed-0.pt.damaged").exists()


def test_a_fit_that_was_put_aside_by_a_command_that_was_killed_is_made_anew(of_fits, plan):
    results, path, _ = of_fits
    path.rename(path.with_name("seed-0.pt.damaged"))
    execute(plan("mopo", results=results, seeds=(0, 1), steps=25))
    assert load_fit(path)["state"]
