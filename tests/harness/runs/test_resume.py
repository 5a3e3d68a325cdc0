"""A run that was stopped, in whatever way, goes on to the numbers of an undisturbed one, all digits."""

import csv
import os
import shutil
import signal

import pytest
import torch
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute

STEPS, EVERY = 400, 25


@pytest.fixture(scope="module")
def undisturbed(plan, evaluations, tmp_path_factory):
    """MOPO and SAC, seeds 0 and 1, in one process and in one go."""
    results = tmp_path_factory.mktemp("undisturbed")
    execute(plan("mopo", "sac", results=results, seeds=(0, 1), steps=STEPS), jobs=1)
    found = evaluations(results)
    assert len({str(rows) for rows in found.values()}) == 4  # else equality would say nothing
    return found


def until(rows, step):
    return {key: value for key, value in rows.items() if key <= step}


def csv_steps(results):
    """By seed folder, the `step` column of evaluations.csv."""
    files = sorted(results.glob("*/*/*/seed-*/evaluations.csv"))
    return [[int(row["step"]) for row in csv.DictReader(path.read_text().splitlines())] for path in files]


def interrupted(name, call):
    """The algorithm of that name, interrupted by the user in its update number `call` (from 0)."""
    kind = get_algorithm(name)

    class Interrupted(kind.learner):
        calls = 0
        derived = kind.learner.derived | {"calls"}  # counted anew when it is resumed

        def update(self, batch, noise, phase):
            if self.calls == call:
                raise KeyboardInterrupt
            self.calls += 1
            return super().update(batch, noise, phase)

    Interrupted.__module__ = kind.learner.__module__  # to have the identity of the algorithm itself
    return Algorithm(name, Interrupted, kind.experience, kind.settings)


@pytest.mark.parametrize("algorithm", ["mopo", "sac"])
def test_killed_run_goes_on(algorithm, plan, arguments, start, wait_for, evaluations, undisturbed, tmp_path):
    process = start(*arguments(algorithm, results=tmp_path, steps=STEPS))
    wait_for(lambda: any(len(steps) >= 4 for steps in csv_steps(tmp_path)), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (run,) = load_runs(tmp_path)
    assert run.state == "running" and 0 < run.steps < STEPS
    if algorithm == "mopo":
        history = torch.load(tmp_path.joinpath(*_seed_folder(run), "checkpoint.pt"))["experience"]["history"]
        assert history[0]["step"] > 0, "no refresh has been overwritten yet: this run would not exercise a wrapped ring"

    outcome = execute(plan(algorithm, results=tmp_path, steps=STEPS), jobs=1)

    assert outcome == {"done": [f"point-angle/{algorithm}/seed-0"]}
    assert evaluations(tmp_path)[algorithm, 0] == undisturbed[algorithm, 0]
    assert csv_steps(tmp_path) == [list(range(EVERY, STEPS + 1, EVERY))]
    (run,) = load_runs(tmp_path)
    assert [segment["from_step"] > 0 for segment in run.record["segments"]] == [False, True]


def _seed_folder(run):
    return run.task, run.algorithm, run.identity, f"seed-{run.seed}"


@pytest.mark.slow
def test_killed_workers_go_on(plan, arguments, start, wait_for, evaluations, undisturbed, tmp_path):
    words = [*arguments("mopo", "sac", results=tmp_path, seeds="2", steps=STEPS), "--jobs", "2"]
    process = start(*words)
    wait_for(lambda: any(len(steps) >= 2 for steps in csv_steps(tmp_path)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any(run.state == "running" for run in load_runs(tmp_path))
    execute(plan("mopo", "sac", results=tmp_path, seeds=(0, 1), steps=STEPS), jobs=2)
    assert evaluations(tmp_path) == undisturbed
    assert csv_steps(tmp_path) == [list(range(EVERY, STEPS + 1, EVERY))] * 4


# Before the first checkpoint, right after one, between two refreshes, in the step of a refresh.
@pytest.mark.parametrize("call", [10, 50, 63, 100])
def test_interrupted_anywhere(call, plan, evaluations, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        execute(plan(interrupted("mopo", call), results=tmp_path, steps=200), jobs=1)
    execute(plan("mopo", results=tmp_path, steps=200), jobs=1)
    assert evaluations(tmp_path)["mopo", 0] == until(undisturbed["mopo", 0], 200)


def test_interrupted_twice(plan, evaluations, undisturbed, tmp_path):
    for call in (60, 35):  # the second time counted from the checkpoint at 50
        with pytest.raises(KeyboardInterrupt):
            execute(plan(interrupted("mopo", call), results=tmp_path, steps=200), jobs=1)
    execute(plan("mopo", results=tmp_path, steps=200), jobs=1)
    assert evaluations(tmp_path)["mopo", 0] == until(undisturbed["mopo", 0], 200)


@pytest.mark.parametrize("algorithm", ["mopo", "sac"])
def test_extended_run_equals_a_long_one(algorithm, plan, evaluations, undisturbed, tmp_path):
    """First to a step that is no multiple of anything, where one evaluation more is made."""
    execute(plan(algorithm, results=tmp_path, steps=110), jobs=1)
    execute(plan(algorithm, results=tmp_path, steps=200), jobs=1)
    found = evaluations(tmp_path)[algorithm, 0]
    assert found.pop(110)
    assert found == until(undisturbed[algorithm, 0], 200)


def test_evaluating_more_often_changes_nothing(plan, evaluations, undisturbed, tmp_path):
    execute(plan("mopo", results=tmp_path, steps=200, evaluate_every=10), jobs=1)
    found = evaluations(tmp_path)["mopo", 0]
    assert len(found) == 20
    for step in (50, 100, 150, 200):
        assert found[step] == undisturbed["mopo", 0][step]


def test_workers_give_the_same_numbers(plan, evaluations, undisturbed, tmp_path):
    execute(plan("mopo", "sac", results=tmp_path, seeds=(0, 1), steps=200), jobs=2)
    assert evaluations(tmp_path) == {key: until(rows, 200) for key, rows in undisturbed.items()}


@pytest.mark.parametrize("call", [None, 60])
def test_evaluated_beside_training(call, plan, evaluations, undisturbed, tmp_path):
    """The same numbers from processes that evaluate while training goes on, also where the user interrupts it."""
    options = {"results": tmp_path, "steps": 200, "evaluation_processes": 2}
    if call is not None:
        with pytest.raises(KeyboardInterrupt):
            execute(plan(interrupted("mopo", call), **options), jobs=1)
        # what was being evaluated is not written, nor is its checkpoint
        assert [run.steps for run in load_runs(tmp_path)] == [call // EVERY * EVERY - EVERY]
    execute(plan("mopo", **options), jobs=1)
    assert evaluations(tmp_path)["mopo", 0] == until(undisturbed["mopo", 0], 200)
    assert csv_steps(tmp_path) == [list(range(EVERY, 201, EVERY))]
    assert [segment["evaluation_processes"] for segment in load_runs(tmp_path)[0].record["segments"]][-1] == 2


def test_group_evaluated_beside_training(plan, evaluations, undisturbed, tmp_path):
    """One process for two seeds of a group, each with environments of its own."""
    for jobs, results in ((1, tmp_path / "here"), (2, tmp_path / "workers")):
        execute(plan("sac", results=results, seeds=(0, 1), steps=75, evaluation_processes=1), jobs=jobs, group=3 - jobs)
        found = evaluations(results)
        for seed in (0, 1):
            for step, returns in until(undisturbed["sac", seed], 75).items():
                assert found["sac", seed][step] == pytest.approx(returns, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["mopo", "sac"])
def test_group_equals_single_seeds(algorithm, plan, evaluations, undisturbed, tmp_path):
    execute(plan(algorithm, results=tmp_path, seeds=(0, 1), steps=200), jobs=1, group=2)
    found = evaluations(tmp_path)
    assert [run.record["segments"][0]["group"] for run in load_runs(tmp_path)] == [[0, 1]] * 2
    for seed in (0, 1):
        alone = until(undisturbed[algorithm, seed], 200)
        assert list(found[algorithm, seed]) == list(alone)
        for step, returns in alone.items():
            assert found[algorithm, seed][step] == pytest.approx(returns, rel=1e-4)


def test_done_run_is_left_alone(arguments, command, contents, tmp_path):
    assert command(*arguments("sac", results=tmp_path)).code == 0
    before = contents(tmp_path / "point-angle")
    again = command(*arguments("sac", results=tmp_path))
    assert again.code == 0 and "done already" in again.out
    assert contents(tmp_path / "point-angle") == before
    fewer = command(*arguments("sac", results=tmp_path, steps=50))
    assert fewer.code == 0 and "done already" in fewer.out
    assert contents(tmp_path / "point-angle") == before


def test_record_behind_its_checkpoint(plan, evaluations, undisturbed, tmp_path):
    """A kill between the two writes; the checkpoint is what counts."""
    execute(plan("sac", results=tmp_path), jobs=1)
    (folder,) = tmp_path.glob("point-angle/sac/*/seed-0")
    shutil.copy(folder / "record.json", tmp_path / "old.json")
    execute(plan("sac", results=tmp_path, steps=150), jobs=1)
    shutil.copy(tmp_path / "old.json", folder / "record.json")
    execute(plan("sac", results=tmp_path, steps=200), jobs=1)
    assert evaluations(tmp_path)["sac", 0] == until(undisturbed["sac", 0], 200)
    assert load_runs(tmp_path)[0].record["segments"][-1]["from_step"] == 150


def test_record_lost(plan, evaluations, undisturbed, tmp_path):
    execute(plan("sac", results=tmp_path), jobs=1)
    (folder,) = tmp_path.glob("point-angle/sac/*/seed-0")
    (folder / "record.json").unlink()
    assert execute(plan("sac", results=tmp_path), jobs=1) == {"done": ["point-angle/sac/seed-0"]}
    assert evaluations(tmp_path)["sac", 0] == until(undisturbed["sac", 0], 100)


@pytest.mark.parametrize("steps", [25, 50])
def test_asking_for_fewer_steps_after_an_interruption(steps, plan, evaluations, undisturbed, tmp_path):
    """A run is done at N when it was evaluated at N or later."""
    with pytest.raises(KeyboardInterrupt):
        execute(plan(interrupted("sac", 60), results=tmp_path), jobs=1)
    execute(plan("sac", results=tmp_path, steps=steps), jobs=1)
    (run,) = load_runs(tmp_path)
    assert run.state == "done" and run.steps == 50
    assert evaluations(tmp_path)["sac", 0] == until(undisturbed["sac", 0], 50)
