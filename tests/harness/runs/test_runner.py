"""Many cells: what fails or diverges, what is shared, what is planned, what is missing."""

import json
import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.registry import Algorithm, all_algorithms
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import WriteError
from mopo_bench.harness.api import run as run_grid
from mopo_bench.harness.runs import fits, trial
from mopo_bench.harness.runs.checkpoints import stage_path
from mopo_bench.harness.runs.engines import Here, Stopped
from mopo_bench.harness.runs.ledger import Ledger, load_runs
from mopo_bench.harness.runs.outcome import at_work, outcome_lines
from mopo_bench.harness.runs.records import Store
from mopo_bench.harness.runs.runner import execute, groups
from mopo_bench.harness.runs.trial import run_cell


class Breaks(SAC):
    """SAC that has a bug at step 30, while it is broken."""

    broken = True

    def build(self):
        super().build()
        self.calls = 0

    def update(self, batch, noise, phase):
        if self.broken and self.calls == 30:
            raise ZeroDivisionError("a bug at step 30")
        self.calls += 1
        return super().update(batch, noise, phase)


class Diverges(SAC):
    """SAC whose seed 1 is lost at step 30."""

    def build(self):
        super().build()
        self.calls = 0

    def update(self, batch, noise, phase):
        if self.calls == 30:
            for weight in self.critic.weights:
                weight[[seed == 1 for seed in self.seeds]] = torch.nan
        self.calls += 1
        return super().update(batch, noise, phase)


@pytest.fixture
def breaks(monkeypatch):
    monkeypatch.setitem(all_algorithms(), "breaks", Algorithm("breaks", Breaks))
    monkeypatch.setattr(Breaks, "broken", True)


@pytest.fixture
def diverges(monkeypatch):
    monkeypatch.setitem(all_algorithms(), "diverges", Algorithm("diverges", Diverges))


def by_name(results):
    return {(run.algorithm, run.seed): run for run in load_runs(results)}


def test_failure_is_recorded_and_tried_again(breaks, arguments, command, plan, evaluations, monkeypatch, tmp_path):
    words = arguments("breaks", "sac", results=tmp_path)
    finished = command(*words)
    assert finished.code == 3
    assert "failed: 1 (point-angle/breaks/seed-0)" in finished.out
    runs = by_name(tmp_path)
    assert runs["sac", 0].state == "done"
    failed = runs["breaks", 0]
    assert failed.state == "failed" and failed.steps == 25 and len(failed.evaluations) == 1
    assert "ZeroDivisionError: a bug at step 30" in failed.record["traceback"]
    assert "test_runner.py" in failed.record["traceback"]
    (row,) = [row for row in Ledger(tmp_path).status() if row["algorithm"] == "breaks"]
    assert row["state"] == "failed"
    assert re.fullmatch(r"ZeroDivisionError: a bug at step 30 \(test_runner\.py, line \d+\)", row["message"])
    shown = command("status", "--results", tmp_path)
    assert shown.code == 0 and "a bug at step 30" in shown.out

    monkeypatch.setattr(Breaks, "broken", False)
    before = (tmp_path / runs["sac", 0].task).rglob("sac/*/*/record.json")
    changed = {path: path.stat().st_mtime_ns for path in before}
    finished = command(*words)
    assert finished.code == 0 and "done: 1" in finished.out
    repaired = by_name(tmp_path)["breaks", 0]
    assert repaired.state == "done" and repaired.record["traceback"] is None
    assert repaired.record["segments"][-1]["from_step"] == 25
    found = evaluations(tmp_path)
    assert found["breaks", 0] == found["sac", 0] and len(found["sac", 0]) == 4
    assert changed == {path: path.stat().st_mtime_ns for path in changed}


def test_failure_while_another_process_evaluates(breaks, plan, monkeypatch, tmp_path):
    """What was being evaluated when training failed counts; what fails in the evaluation is a failure of the run."""
    execute(plan("breaks", results=tmp_path, evaluation_processes=1), jobs=1)
    run = by_name(tmp_path)["breaks", 0]
    assert run.state == "failed" and run.steps == 25 and len(run.evaluations) == 1

    class Stumbles(SAC):
        def act(self, observations, noise=None):
            raise ZeroDivisionError("a bug in acting")

    stumbles = Algorithm("stumbles", Stumbles)
    execute(plan(stumbles, results=tmp_path, evaluation_processes=1), jobs=1)
    run = by_name(tmp_path)["stumbles", 0]
    assert run.state == "failed" and run.steps == 0 and "a bug in acting" in run.record["traceback"]


def test_failure_comes_back_while_the_bug_is_there(breaks, plan, tmp_path):
    for _ in range(2):
        outcome = execute(plan("breaks", results=tmp_path, steps=40, evaluate_every=40), jobs=1)
        assert outcome == {"failed": ["point-angle/breaks/seed-0"]}
    assert by_name(tmp_path)["breaks", 0].steps == 0


def test_failure_in_a_worker(breaks, plan, tmp_path):
    """The bug is met in another process, to which the learner goes whole."""

    class Local(Breaks):
        pass

    outcome = execute(plan(Algorithm("local", Local), "sac", results=tmp_path), jobs=2)
    assert outcome == {"failed": ["point-angle/local/seed-0"], "done": ["point-angle/sac/seed-0"]}
    assert "ZeroDivisionError" in by_name(tmp_path)["local", 0].record["traceback"]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("size, missing", [(20_000, "checkpoint.pt"), (1_000, "record.json")])
def test_full_disk(size, missing, jobs, full_disk, arguments, start, contents, plan, evaluations, tmp_path):
    """The command stops at the first file that finds no room, says so, and leaves all that was there to go on from."""
    words = [*arguments("sac", results=tmp_path / "runs", seeds="2"), "--jobs", str(jobs)]
    execute(plan("sac", results=tmp_path / "runs", seeds=(0, 1), steps=50), jobs=1)
    before = {path: found for path, found in contents(tmp_path).items() if path.name == "checkpoint.pt"}
    with full_disk(size):
        process = start(*words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and len(err.splitlines()) == 1
    assert all("% done; " in line for line in out.splitlines())  # how far it is, on a slow machine
    assert f"{missing}: cannot be written (File too large)" in err
    after = contents(tmp_path)
    assert before.items() <= after.items() and not [path for path in after if path.name.endswith(".part")]
    if size == 20_000:  # there was room to say what happened
        failed = [run for run in load_runs(tmp_path / "runs") if run.state == "failed"]
        assert failed and all("WriteError" in run.record["traceback"] for run in failed)
    assert len(execute(plan("sac", results=tmp_path / "runs", seeds=(0, 1)), jobs=1)["done"]) == 2
    execute(plan("sac", results=tmp_path / "undisturbed", seeds=(0, 1)), jobs=1)
    assert evaluations(tmp_path / "runs") == evaluations(tmp_path / "undisturbed")


def test_fit_that_finds_no_room_is_made_once(fitted_seeds, full_disk, plan, tmp_path):
    with full_disk(5_000), pytest.raises(WriteError, match=r"seed-0\.pt: cannot be written"):
        execute(plan("mopo", results=tmp_path), jobs=1)
    assert fitted_seeds == [0]


def test_failed_fit_is_a_failure_of_the_runs_that_want_it(plan, monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a bug in the fit")

    monkeypatch.setattr(Dynamics, "fit", broken)
    outcome = execute(plan("mopo", "sac", results=tmp_path), jobs=1)
    assert outcome == {"failed": ["point-angle/mopo/seed-0"], "done": ["point-angle/sac/seed-0"]}
    assert "a bug in the fit" in by_name(tmp_path)["mopo", 0].record["traceback"]
    monkeypatch.undo()
    assert execute(plan("mopo", "sac", results=tmp_path), jobs=1) == {"done": ["point-angle/mopo/seed-0"]}


def test_a_fit_that_diverges_is_a_result(plan, command, contents, monkeypatch, tmp_path):
    """Of the runs that want it, and of them alone; it is not fitted again."""
    fit = Dynamics.fit

    def diverges(problem, config, seed, **options):
        if seed == 1:
            raise FloatingPointError("nothing is finite")
        return fit(problem, config, seed, **options)

    monkeypatch.setattr(Dynamics, "fit", diverges)
    here = plan("mopo", "mbpo", results=tmp_path, seeds=(0, 1), steps=25)
    outcome = execute(here, jobs=1, group=2)
    assert {state: len(runs) for state, runs in outcome.items()} == {"done": 2, "diverged": 2}
    assert {run.seed for run in load_runs(tmp_path) if run.state == "diverged"} == {1}
    shown = command("status", "--results", tmp_path)
    assert "diverged: point-angle/mopo/seed-1: diverged at step 0: nothing is finite" in " ".join(shown.out.split())
    before = contents(tmp_path)
    monkeypatch.setattr(Dynamics, "fit", None)
    assert execute(here, jobs=1) == {}
    assert {path: content for path, content in contents(tmp_path).items() if path.suffix != ".json"} == {
        path: content for path, content in before.items() if path.suffix != ".json"
    }
    for record in tmp_path.rglob("seed-1/record.json"):
        record.unlink()
    assert {state: len(runs) for state, runs in execute(here, jobs=1).items()} == {"diverged": 2}


class ForgetsToAct(SAC):
    """From step 30 on seed 1 acts as NaN; its metrics are finite."""

    def build(self):
        super().build()
        self.steps, self.sick = torch.zeros(1), torch.tensor([seed == 1 for seed in self.seeds])[:, None, None]

    def update(self, batch, noise, phase):
        self.steps += 1
        return super().update(batch, noise, phase)

    def act(self, observations, noise=None):
        return torch.where(self.sick & (self.steps > 30), torch.nan, super().act(observations, noise))


@pytest.mark.parametrize("group, beside", [(1, 0), (2, 0), (2, 1)])
def test_an_action_that_is_not_finite_is_divergence(group, beside, plan, evaluations, monkeypatch, tmp_path):
    """It had been scored as no action."""
    monkeypatch.setitem(all_algorithms(), "forgets", Algorithm("forgets", ForgetsToAct))
    here = plan("forgets", "sac", results=tmp_path, seeds=(0, 1), evaluation_processes=beside)
    outcome = execute(here, jobs=1, group=group)
    assert outcome["diverged"] == ["point-angle/forgets/seed-1"] and len(outcome["done"]) == 3
    lost, found = by_name(tmp_path)["forgets", 1], evaluations(tmp_path)
    assert lost.record["diverged_at"] == 50 and "an action in its evaluation" in lost.record["diverged_by"]
    assert found["forgets", 1] == {25: found["sac", 1][25]} and found["forgets", 0] == found["sac", 0]


@pytest.mark.parametrize("group, beside", [(1, 0), (2, 0), (2, 1)])
def test_divergence_is_a_result(group, beside, diverges, plan, evaluations, contents, tmp_path):
    here = plan("diverges", "sac", results=tmp_path, seeds=(0, 1), evaluation_processes=beside)
    outcome = execute(here, jobs=1, group=group)
    assert outcome["diverged"] == ["point-angle/diverges/seed-1"] and len(outcome["done"]) == 3
    runs, found = by_name(tmp_path), evaluations(tmp_path)
    lost = runs["diverges", 1]
    assert lost.state == "diverged" and lost.record["diverged_at"] == 30 and lost.steps == 50
    assert found["diverges", 1] == {25: found["sac", 1][25]}
    assert found["diverges", 0] == found["sac", 0]  # untouched, in one group with the lost seed
    assert len(found["sac", 0]) == 4
    before = contents(tmp_path / "point-angle")
    assert execute(here, jobs=1, group=group) == {}
    assert contents(tmp_path / "point-angle") == before


def test_divergence_is_said_by_every_run(diverges, arguments, command, tmp_path):
    """It is a result, and not tried again; but nobody should take the grid for done."""
    words = arguments("diverges", results=tmp_path, seeds="1,")
    finished = command(*words)
    assert finished.code == 3 and "diverged: 1 (point-angle/diverges/seed-1)" in finished.out
    again = command(*words)
    assert again.code == 3 and "seed-1: diverged at step 30" in " ".join(again.out.split())
    rows = json.loads(command("status", "--results", tmp_path, "--json").out)
    assert [(row["state"], row["steps"]) for row in rows] == [("diverged", 50)]


def test_failure_leaves_a_diverged_seed_of_its_group(plan, tmp_path):
    class Both(Diverges):
        def update(self, batch, noise, phase):
            if self.calls == 60:
                raise ZeroDivisionError("a bug at step 60")
            return super().update(batch, noise, phase)

    execute(plan(Algorithm("both", Both), results=tmp_path, seeds=(0, 1)), jobs=1, group=2)
    runs = by_name(tmp_path)
    assert runs["both", 0].state == "failed"
    assert runs["both", 1].state == "diverged" and not runs["both", 1].record["traceback"]


def test_a_failed_fit_leaves_the_other_seed_of_its_group(plan, monkeypatch, tmp_path):
    fit = Dynamics.fit

    def breaks(problem, config, seed, **options):
        if seed == 0:
            raise ZeroDivisionError("a bug in the fit")
        return fit(problem, config, seed, **options)

    monkeypatch.setattr(Dynamics, "fit", breaks)
    outcome = execute(plan("mopo", results=tmp_path, seeds=(0, 1), steps=25), group=2)
    assert outcome == {"failed": ["point-angle/mopo/seed-0"], "done": ["point-angle/mopo/seed-1"]}
    assert "a bug in the fit" in by_name(tmp_path)["mopo", 0].record["traceback"]


def test_a_group_beside_another_runner(plan, evaluations, monkeypatch, tmp_path):
    """What another holds is left as it is; what another has brought on since it was planned goes on from there."""
    monkeypatch.setattr(trial, "LOCK_SECONDS", 0.1)
    here = plan("sac", results=tmp_path, seeds=(0, 1, 2))
    (cell,) = here.cells
    cell.seed_folder(1).mkdir(parents=True)
    with filelock.FileLock(cell.seed_folder(1) / "lock"):
        outcome = execute(here, group=3)
        assert outcome == {"done": ["point-angle/sac/seed-0", "point-angle/sac/seed-2"], "missing": ["point-angle/sac/seed-1"]}
        assert "seed-1: another process is at work on it" in " ".join(outcome_lines(here, outcome))
    assert [path.name for path in cell.seed_folder(1).iterdir()] == ["lock"]

    shutil.rmtree(cell.seed_folder(0))
    execute(plan("sac", results=tmp_path, seeds=(1,), steps=50))
    trial.run_cell(cell)  # planned when none of them had begun
    runs = by_name(tmp_path)
    assert {run.state for run in runs.values()} == {"done"}
    assert [[(part["from_step"], part["group"]) for part in runs["sac", seed].record["segments"]] for seed in (0, 1, 2)] == [
        [(0, [0])], [(0, [1]), (50, [1])], [(0, [0, 2])]
    ]  # fmt: skip
    execute(plan("sac", results=tmp_path / "undisturbed", seeds=(0, 1, 2)))
    found = evaluations(tmp_path)
    for key, rows in evaluations(tmp_path / "undisturbed").items():
        assert {step: pytest.approx(returns, rel=1e-4) for step, returns in rows.items()} == found[key]


def test_what_another_command_has_brought_to_its_end_is_done(plan, tmp_path):
    """Between the look at its record and the last word of this command."""
    execute(plan("sac", results=tmp_path, steps=50))
    here = plan("sac", results=tmp_path)
    assert len(here.undone()) == 1
    execute(plan("sac", results=tmp_path))
    assert "done: point-angle/sac/seed-0: by another process" in outcome_lines(here, {})
    assert here.undone() == []


def test_whoever_only_looks_is_not_taken_for_a_runner(monkeypatch, tmp_path):
    monkeypatch.setattr("mopo_bench.harness.runs.records.SECONDS_TO_LOOK", 20)
    lock = filelock.FileLock(tmp_path / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert not at_work(tmp_path)


@pytest.fixture
def fitted_seeds(monkeypatch):
    """The seeds of the dynamics fits that are made in this process; the fits themselves are real."""
    seeds, fit = [], Dynamics.fit.__func__

    def counted(cls, problem, config, seed, **options):
        seeds.append(seed)
        return fit(cls, problem, config, seed, **options)

    monkeypatch.setattr(Dynamics, "fit", classmethod(counted))
    return seeds


def test_fits_are_shared(fitted_seeds, plan, contents, tmp_path):
    execute(plan("mbpo", "mopo", "sac", results=tmp_path, seeds=(0, 2), steps=30), jobs=1)
    assert sorted(fitted_seeds) == [0, 2]
    files = sorted(tmp_path.glob("stages/dynamics/*/*.pt"))
    assert [path.name for path in files] == ["seed-0.pt", "seed-2.pt"] and len({path.parent for path in files}) == 1
    runs = by_name(tmp_path)
    assert {run.record["stages"].get("dynamics") for run in runs.values() if run.algorithm != "sac"} == {files[0].parent.name}
    assert runs["mopo", 0].record["stage_records"]["dynamics"]["epochs"] == 2
    before = contents(tmp_path / "stages")
    execute(plan("mopo", results=tmp_path, seeds=(0, 2), settings={"mopo.penalty_coefficient": 9}, steps=30), jobs=1)
    assert contents(tmp_path / "stages") == before and len(fitted_seeds) == 2
    execute(plan("mopo", results=tmp_path, settings={"mopo.dynamics.max_epochs": 1}, steps=30), jobs=1)
    assert len(fitted_seeds) == 3 and len(list(tmp_path.glob("stages/dynamics/*"))) == 2


def test_a_stopped_fit_goes_on(plan, evaluations, monkeypatch, tmp_path):
    """From the file in which it was kept, which is gone in the end; a fit of seconds is never kept."""
    wanted = {"steps": 25, "settings": {"all.dynamics.max_epochs": 6}}
    execute(plan("mopo", results=tmp_path / "undisturbed", **wanted), jobs=1)
    epochs, leave = [], fits.stop_if_unwanted

    def stopped():
        epochs.append(None)
        if len(epochs) == 4:
            raise KeyboardInterrupt
        leave()

    monkeypatch.setattr(fits, "KEEP_SECONDS", 0)
    monkeypatch.setattr(fits, "stop_if_unwanted", stopped)
    with pytest.raises(KeyboardInterrupt):
        execute(plan("mopo", results=tmp_path, **wanted), jobs=1)
    (kept,) = tmp_path.glob("stages/dynamics/*/*.pt")
    assert kept.name == "seed-0.part.pt"
    execute(plan("mopo", results=tmp_path, **wanted), jobs=1)
    assert len(epochs) == 4 + 3  # the first three epochs stood
    (fitted,) = tmp_path.glob("stages/dynamics/*/*.pt")
    assert fitted.name == "seed-0.pt"
    assert evaluations(tmp_path) == evaluations(tmp_path / "undisturbed")


def test_fits_are_shared_between_workers(plan, tmp_path):
    outcome = execute(plan("mbpo", "mopo", results=tmp_path, seeds=(0, 1), steps=30), jobs=2)
    assert len(outcome["done"]) == 4
    assert len(list(tmp_path.glob("stages/dynamics/*/*.pt"))) == 2
    records = {}
    for run in load_runs(tmp_path):
        records.setdefault(run.seed, []).append(run.record["stage_records"]["dynamics"])
    for mbpo, mopo in records.values():
        assert mbpo == mopo  # time taken included: one fit


SCRIPT = """
import sys
from mopo_bench import register_algorithm, run
from mopo_bench.algorithms.sac import SAC

class Mine(SAC):
    def update(self, batch, noise, phase):
        return {**super().update(batch, noise, phase), "mine": self.calls()}

    def calls(self):
        return self.log_temperature()[:, 0] * 0 + 7

register_algorithm("mine", Mine)

if __name__ == "__main__":
    records = run(tasks=["point-angle"], algorithms=["mine", "sac"], seeds=[0], steps=20, jobs=2, results=sys.argv[1])
    print(*[(each.algorithm, each.state, each.evaluations[-1]["metrics"].get("mine")) for each in records], sep="\\n")
"""


def test_learner_of_a_script_reaches_the_workers(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "runs")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == ["('mine', 'done', 7.0)", "('sac', 'done', None)"]


def test_groups_form_at_equal_steps(plan, tmp_path):
    execute(plan("sac", results=tmp_path, seeds=(0, 3), steps=50), jobs=1)
    here = plan("sac", results=tmp_path, seeds=(0, 1, 2, 3, 4), steps=100)
    assert [cell.seeds for cell in groups(Ledger(tmp_path).pending(here), 2)] == [(1, 2), (4,), (0, 3)]
    assert [cell.seeds for cell in groups(Ledger(tmp_path).pending(here), 3)] == [(1, 2, 4), (0, 3)]
    outcome = execute(here, jobs=1, group=3)
    assert len(outcome["done"]) == 5
    starts = {run.seed: [segment["from_step"] for segment in run.record["segments"]] for run in load_runs(tmp_path)}
    assert starts == {0: [0, 50], 1: [0], 2: [0], 3: [0, 50], 4: [0]}


def test_fits_that_others_are_at_work_on_come_last(fitted_seeds, plan, wait_for, tmp_path):
    """Another command holds the fit of seed 0: the other seeds are fitted and trained meanwhile."""
    here = plan("mopo", results=tmp_path, seeds=(0, 1, 2), steps=25)
    path = stage_path(tmp_path, "dynamics", here.cells[0].stage_identity("dynamics"), 0)
    path.parent.mkdir(parents=True)
    done_before = []

    def hold(held):
        with filelock.FileLock(path.with_suffix(".lock")):
            held.set()
            with suppress(AssertionError):
                wait_for(lambda: [run.state for run in load_runs(tmp_path)] == ["done", "done"], seconds=20)
            done_before.extend((run.seed, run.state) for run in load_runs(tmp_path))

    held = threading.Event()
    other = threading.Thread(target=hold, args=(held,))
    other.start()
    held.wait()
    outcome = execute(here)
    other.join()
    assert done_before == [(1, "done"), (2, "done")] and len(outcome["done"]) == 3
    assert fitted_seeds == [1, 2, 0]


def test_runs_that_others_are_at_work_on_are_asked_for_at_the_end(plan, wait_for, tmp_path):
    here = plan("sac", results=tmp_path, seeds=(0, 1), steps=25)
    folder, held = here.cells[0].seed_folder(0), threading.Event()
    folder.mkdir(parents=True)

    def hold():
        with filelock.FileLock(folder / "lock"):
            held.set()
            wait_for(lambda: [run.state for run in load_runs(tmp_path)] == ["done"], seconds=60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    assert execute(here) == {"done": ["point-angle/sac/seed-0", "point-angle/sac/seed-1"]}
    other.join()


def test_runs_that_wait_for_no_fit_come_first(plan, tmp_path):
    here = plan("mopo", "sac", results=tmp_path)
    assert [cell.algorithm.name for cell in groups(Ledger(tmp_path).pending(here), 1)] == ["sac", "mopo"]


def test_status_tells_what_is_missing(plan, command, tmp_path):
    wanted = plan("sac", "bc", results=tmp_path, seeds=(0, 1))
    Store(tmp_path).prepare()
    Ledger(tmp_path).remember(wanted)
    rows = Ledger(tmp_path).status()
    assert [(row["algorithm"], row["seed"], row["state"], row["steps"], row["of"]) for row in rows] == [
        (algorithm, seed, "missing", 0, 100) for algorithm in ("sac", "bc") for seed in (0, 1)
    ]
    execute(plan("sac", results=tmp_path), jobs=1)
    Ledger(tmp_path).remember(plan("sac", results=tmp_path, steps=150))
    found = json.loads(command("status", "--results", tmp_path, "--json").out)
    states = {(row["algorithm"], row["seed"]): (row["state"], row["steps"], row["of"]) for row in found}
    assert states == {
        ("sac", 0): ("running", 100, 150),
        ("sac", 1): ("missing", 0, 100),
        ("bc", 0): ("missing", 0, 100),
        ("bc", 1): ("missing", 0, 100),
    }
    text = command("status", "--results", tmp_path)
    assert text.code == 0 and "100 of 250" in text.out


def test_plan_keeps_what_was_asked_before(plan, tmp_path):
    execute(plan("sac", results=tmp_path, steps=50), jobs=1)
    execute(plan("bc", results=tmp_path, steps=25), jobs=1)
    execute(plan("sac", results=tmp_path, steps=25), jobs=1)
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert {entry["algorithm"]: entry["steps"] for entry in planned.values()} == {"sac": 50, "bc": 25}
    assert all((tmp_path / key / "record.json").is_file() for key in planned)
    before = (tmp_path / "plan.json").stat()
    execute(plan("sac", results=tmp_path, steps=25), jobs=1)
    assert (tmp_path / "plan.json").stat() == before  # nothing new is wanted


def test_dry_run_writes_nothing(arguments, command, contents, tmp_path):
    results = tmp_path / "runs"
    finished = command(*arguments("mopo", "sac", results=results, seeds="2"), "--dry-run")
    assert finished.code == 0 and not results.exists()
    lines = [line.split() for line in finished.out.splitlines()]
    rows = [line[2:-2] for line in lines if line[:1] == ["point-angle"]]  # without the time left, which is a number and a unit
    assert rows == [
        ["mopo", "2", "100", "2", "missing"],
        ["sac", "2", "100", "2", "missing"],
        ["dynamics", "2", "2", "missing"],
    ]
    assert "All 4 runs and 2 fits for them take" in finished.out and "with 1 process." in finished.out
    command(*arguments("sac", results=results))
    before = contents(results)
    finished = command(*arguments("mopo", "sac", results=results, seeds="2"), "--dry-run")
    assert "1 done, 1 missing" in finished.out and "3 of 4 runs" in finished.out
    assert contents(results) == before
    finished = command(*arguments("sac", results=results), "--dry-run")
    assert finished.out.splitlines()[-1] == "Everything is done already."


def test_run_from_python_gives_the_records_asked_for(arguments, command, tmp_path):
    assert command(*arguments("bc", results=tmp_path, steps=10)).code == 0
    options = {"steps": 10, "episodes": 2, "settings": {"sac.batch_size": 16, "sac.hidden": (8,)}, "jobs": 1}
    (run,) = run_grid(tasks=["point-angle"], algorithms=["sac"], seeds=[5], results=str(tmp_path), **options)
    assert (run.algorithm, run.seed, run.state, run.steps) == ("sac", 5, "done", 10)
    assert len(run.evaluations[0]["returns"]) == 2 and run.cell["config"]["hidden"] == [8]


@pytest.mark.parametrize("option", ["algorithms", "tasks", "seeds"])
def test_named_twice_is_run_once_or_refused(option, arguments, command, tmp_path):
    name = {"algorithms": "sac", "tasks": "point-angle", "seeds": "0"}[option]
    finished = command(*arguments("sac", results=tmp_path / "runs"), f"--{option}", f"{name},{name}")
    if finished.code == 2:
        assert len(finished.err.splitlines()) == 1 and not (tmp_path / "runs").exists()
    else:
        assert finished.code == 0 and [run.state for run in load_runs(tmp_path / "runs")] == ["done"]


def test_results_folder_may_be_relative(plan, monkeypatch, tmp_path):
    """Workers stay between calls and keep the folder they were started in."""
    get_reusable_executor().shutdown()
    outcomes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        outcomes.append(execute(plan("sac", results=Path("runs"), seeds=(0, 1), steps=10), jobs=2))
    assert outcomes == [{"done": ["point-angle/sac/seed-0", "point-angle/sac/seed-1"]}] * 2


class WithTimeLimits(Here):
    """Workers that are told to stop once a run has come to these steps, one after the other."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = list(steps)

    def ended(self, following):
        while (piece := following()) is not None:
            cell, steps = piece.arguments[0], self.steps.pop(0)
            run_cell(replace(cell, steps=steps))
            yield piece, None if steps == cell.steps else Stopped("its time was over")


@pytest.mark.parametrize("limits, state", [((25, 50, 75, 100), "done"), ((25, 50, 50), "running")])
def test_told_to_stop_a_run_goes_on_as_long_as_it_gets_further(plan, evaluations, tmp_path, limits, state):
    limited, whole = plan("bc", results=tmp_path / "limited"), plan("bc", results=tmp_path / "whole")
    engine = WithTimeLimits(*limits)
    assert execute(limited, engine=engine) == {state: ["point-angle/bc/seed-0"]} and not engine.steps
    execute(whole)
    assert evaluations(limited.results) == evaluations(whole.results, until=limits[-1])
    if state == "running":
        assert "stopped at step 50, no further than before: its time was over" in limited.ledger.reason(limited.cells[0], 0)


def test_a_default_type_that_others_set_changes_no_number(plan, evaluations, tmp_path):
    """A plug-in may set torch's for the whole process."""
    execute(plan("bc", "mopo", "bear", results=tmp_path / "usual"), jobs=1)
    torch.set_default_dtype(torch.float64)
    try:
        execute(plan("bc", "mopo", "bear", results=tmp_path / "other"), jobs=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert evaluations(tmp_path / "other") == evaluations(tmp_path / "usual")
