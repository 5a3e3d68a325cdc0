"""Workers that are killed, processes that are told to stop: what was kept is not lost, and no number changes."""

import os
import signal
import time

import pytest
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.runs.interrupts import note_interrupts
from mopo_bench.harness.runs.ledger import load_runs, reason
from mopo_bench.harness.runs.runner import execute

TINY = {"batch_size": 8, "hidden": "8,8"}


class Kills(SAC):
    """As the system does where memory runs out, in step 12."""

    def build(self):
        super().build()
        self.calls = 0

    def update(self, batch, noise, phase):
        self.calls += 1
        if self.calls == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(batch, noise, phase)


class KillsOnce(SAC):
    """Before its first evaluation, the first time it is run here."""

    def update(self, batch, noise, phase):
        marker = os.environ["KILLED_BEFORE"]
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(batch, noise, phase)


def test_a_worker_that_is_killed_loses_its_own_run_alone(plan, monkeypatch, tmp_path):
    """It goes on once, from its checkpoint; killed again, it has failed."""
    monkeypatch.setenv("KILLED_BEFORE", str(tmp_path / "marker"))
    monkeypatch.setattr("mopo_bench.harness.runs.engines.Workers.idle", [])  # older ones do not know it
    usual = {"settings": {f"all.{key}": value for key, value in TINY.items()}, "steps": 20, "evaluate_every": 10, "episodes": 1}
    here = plan(Algorithm("kills", Kills), Algorithm("once", KillsOnce), "sac", results=tmp_path / "runs", **usual)
    monkeypatch.setattr("mopo_bench.harness.runs.runner.check_first_use", lambda cells: None)  # it would be killed there
    outcome = execute(here, jobs=2)
    assert outcome == {"failed": ["point-angle/kills/seed-0"], "done": ["point-angle/once/seed-0", "point-angle/sac/seed-0"]}
    kept = {run.algorithm: run for run in load_runs(tmp_path / "runs")}
    assert [each["from_step"] for each in kept["kills"].record["segments"]] == [0, 10]
    assert "ended by SIGKILL, 2 times: mostly memory has run out" in reason(kept["kills"].record)
    assert kept["once"].evaluations == kept["sac"].evaluations
    assert kept["kills"].evaluations == kept["sac"].evaluations[:1]


class KillsWithSeedZero(SAC):
    """Whenever seed 0 is in its group."""

    def update(self, batch, noise, phase):
        if 0 in self.seeds:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(batch, noise, phase)


def test_a_group_whose_worker_is_killed_goes_on_seed_by_seed(plan, monkeypatch, tmp_path):
    """No other seed has failed than one that was alone with its worker."""
    monkeypatch.setattr("mopo_bench.harness.runs.engines.Workers.idle", [])  # older ones do not know it
    monkeypatch.setattr("mopo_bench.harness.runs.runner.check_first_use", lambda cells: None)  # it would be killed there
    usual = {"settings": {f"all.{key}": value for key, value in TINY.items()}, "steps": 20, "evaluate_every": 10, "episodes": 1}
    here = plan(Algorithm("kills", KillsWithSeedZero), results=tmp_path, seeds=(0, 1, 2), **usual)
    outcome = execute(here, jobs=2, group=3)
    assert outcome == {"failed": ["point-angle/kills/seed-0"], "done": ["point-angle/kills/seed-1", "point-angle/kills/seed-2"]}


def told_to_stop(name, call):
    """An algorithm that a cluster tells to stop in its update number `call`."""
    kind = get_algorithm(name)

    class Told(kind.learner):
        calls = 0
        derived = kind.learner.derived | {"calls"}

        def update(self, batch, noise, phase):
            self.calls += 1
            if self.calls == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().update(batch, noise, phase)

    Told.__module__ = kind.learner.__module__  # to have the identity of the algorithm itself
    return Algorithm(name, Told, kind.experience, kind.settings)


@pytest.fixture
def answering():
    """As the command line answers signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    note_interrupts()
    yield
    note_interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


MODEL = {"rollout_states": 20, "rollout_length": 1, "rollout_every": 12, "dynamics.max_epochs": 1, "dynamics.hidden": "8,8,8"}
CLONED = {"cloned.hidden": "8,8", "cloned.steps": 20, "adversarial_batch_size": 8, "adversarial_weight": 1.0}


@pytest.mark.parametrize(
    "algorithm, call",
    [("sac", 13), ("sac", 10), ("mopo", 13), ("rambo", 13)],
    ids=["between two evaluations", "where an evaluation is due", "after a refresh", "after a model has changed"],
)
def test_a_run_told_to_stop_goes_on_from_there(algorithm, call, answering, plan, tmp_path):
    """Its metrics are sums over an interval, which are kept, too: the records are equal to the last digit."""
    chosen = TINY | {"sac": {}, "mopo": MODEL, "rambo": MODEL | CLONED}[algorithm]
    settings = {f"all.{key}": value for key, value in chosen.items()}
    usual = {"settings": settings, "steps": 20, "evaluate_every": 10, "episodes": 1}
    assert execute(plan(algorithm, results=tmp_path / "undisturbed", **usual)).keys() == {"done"}
    with pytest.raises(KeyboardInterrupt):
        execute(plan(told_to_stop(algorithm, call), results=tmp_path / "stopped", **usual))
    note_interrupts()
    (stopped,) = (tmp_path / "stopped").rglob("stopped.pt")
    execute(plan(algorithm, results=tmp_path / "stopped", **usual))
    (plain,), (resumed,) = load_runs(tmp_path / "undisturbed"), load_runs(tmp_path / "stopped")
    assert [each["from_step"] for each in resumed.record["segments"]] == [0, call]
    assert resumed.state == "done" and resumed.evaluations == plain.evaluations
    for record in (plain.record, resumed.record):  # times are no part of the evaluations
        first, last = record["seconds_at"].values()
        assert list(record["seconds_at"]) == ["10", "20"] and 0 <= first <= last == record["seconds"]
    assert not stopped.exists()


@pytest.mark.parametrize(
    "call, late, kept",
    [(13, False, 13), (13, True, 10), (20, True, 10)],
    ids=["the evaluation is whole", "the evaluation is late", "where the next one is due"],
)
def test_a_stop_beside_an_evaluation_loses_no_more_than_the_interval_at_work(
    call, late, kept, answering, plan, monkeypatch, tmp_path
):
    """The evaluation at step 10 is at work in a process beside; where it is late it is made again from what stood there."""
    told, here = told_to_stop("sac", call), os.getpid()

    class Late(told.learner):
        def act(self, observations, noise=None):
            if late and os.getpid() != here:
                time.sleep(60)
            return super().act(observations, noise)

    Late.__module__ = told.learner.__module__
    monkeypatch.setattr("mopo_bench.harness.runs.trial.SETTLE_SECONDS", 0.5 if late else 60)
    monkeypatch.setattr("mopo_bench.harness.runs.interrupts.SECONDS_TO_STOP", 120)  # or a busy machine ends the tests here
    usual = {"settings": {f"all.{key}": value for key, value in TINY.items()}, "steps": 30, "evaluate_every": 10, "episodes": 1}
    execute(plan("sac", results=tmp_path / "undisturbed", **usual))
    stopped = plan(Algorithm("sac", Late), results=tmp_path / "stopped", evaluation_processes=1, **usual)
    with pytest.raises(KeyboardInterrupt):
        execute(stopped)
    note_interrupts()
    execute(plan("sac", results=tmp_path / "stopped", **usual))
    (plain,), (resumed,) = load_runs(tmp_path / "undisturbed"), load_runs(tmp_path / "stopped")
    assert [each["from_step"] for each in resumed.record["segments"]] == [0, kept]
    assert resumed.state == "done" and resumed.evaluations == plain.evaluations


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_ends_a_grid_in_ten_seconds_with_143(jobs, plan, arguments, start, wait_for, tmp_path):
    words = arguments("sac", results=tmp_path, seeds="2", steps=9_000)  # of more, the time is measured first
    process = start(*words, "--compile", "off", "--evaluate-every", 2_000, "--jobs", jobs)
    wait_for(lambda: len(list(tmp_path.rglob("checkpoint.pt"))) == jobs, process, seconds=300)
    time.sleep(1)  # some steps, long before the next evaluation
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does: the workers get it, too
    assert process.wait(timeout=30) == 143 and time.monotonic() - begun < 10
    _, err = process.communicate(timeout=30)
    assert "next run goes on" in err and "Traceback" not in err
    assert len(list(tmp_path.rglob("stopped.pt"))) == jobs
    assert {run.state for run in load_runs(tmp_path)} == {"running"}


@pytest.mark.parametrize("beside", [0, 1], ids=["alone", "with an evaluation beside"])
def test_ctrl_c_twice_leaves_at_once(beside, arguments, start, tmp_path):
    """Also where a learner never comes back; and nothing is left that holds the output open."""
    program = tmp_path / "hangs.py"
    program.write_text(
        "import time\nfrom mopo_bench import register_algorithm\nfrom mopo_bench.algorithms.sac import SAC\n"
        "class Hangs(SAC):\n    calls = 0\n    derived = SAC.derived | {'calls'}\n"
        "    def update(self, batch, noise, phase):\n        self.calls += 1\n        if self.calls == 13:\n"
        "            print('hangs', flush=True); time.sleep(1000)\n        return super().update(batch, noise, phase)\n"
        "register_algorithm('hangs', Hangs)\nimport mopo_bench.harness.runs.runner as runner\nrunner.check_first_use = list\n"
    )
    words = arguments("sac", results=tmp_path / "runs", steps=20)
    words += ["--evaluate-every", "10", "--evaluation-processes", str(beside), "--compile", "off"]
    process = start(*(["hangs" if word == "sac" else word for word in words]), before=f"exec(open({str(program)!r}).read())")
    assert process.stdout.readline().strip() == "hangs"
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err and "next run goes on" in err
