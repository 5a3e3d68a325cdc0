"""Slurm, Dask, Ray and several commands on one folder: the numbers of worker processes here."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.harness.runs import interrupts
from mopo_bench.harness.runs.engines import BACKENDS, Here, Lost, Piece, Stopped, Workers, do, engine_of
from mopo_bench.harness.runs.interrupts import stop_if_asked, stops_held
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.outcome import outcome_lines
from mopo_bench.harness.runs.private_joblib import end, processes
from mopo_bench.harness.runs.runner import execute

TINY = {"batch_size": 8, "hidden": "8,8"}


@pytest.fixture(scope="module")
def tiny(plan):
    def make(results, algorithms=("sac", "bc"), seeds=(0, 1)):
        settings = {f"all.{key}": value for key, value in TINY.items()}
        return plan(*algorithms, results=results, seeds=seeds, settings=settings, steps=20, evaluate_every=10, episodes=1)

    return make


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    """In one process, one after another."""
    results = tmp_path_factory.mktemp("here")
    execute(tiny(results))
    return numbers(results)


def numbers(results):
    return {(run.algorithm, run.seed, run.state): run.evaluations for run in load_runs(results)}


def test_what_was_asked_for(tmp_path):
    assert isinstance(engine_of("loky", 1, 2, None, tmp_path), Here)
    assert isinstance(engine_of("loky", None, 2, None, tmp_path), Workers)
    for backend, scheduler, said in (
        ("pbs", None, "--backend pbs: there are loky, slurm, dask, ray"),
        ("loky", "tcp://a:1", "goes with --backend dask, ray or slurm"),
        ("dask", None, "needs the address of its cluster"),
        ("ray", None, "needs the address of its cluster"),
        ("slurm", "tcp://a:1", "slurm, or local"),
    ):
        with pytest.raises(UserError, match=said):
            engine_of(backend, None, 2, scheduler, tmp_path)


@pytest.mark.parametrize("backend, module", [("slurm", "submitit"), ("dask", "distributed"), ("ray", "ray")])
def test_what_is_not_installed_is_said(backend, module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)  # as an import that fails
    with pytest.raises(UserError, match=rf"--backend {backend} needs {module}: `pip install 'mopo-bench\[{backend}\]'`"):
        engine_of(backend, None, 2, "local" if backend == "slurm" else "somewhere", tmp_path)


def test_optional_libraries_are_not_imported_before_they_are_asked_for():
    program = (
        "import sys, mopo_bench.harness.runs.runner; "
        "print(*sorted({'submitit', 'distributed', 'dask', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == ""
    assert BACKENDS == ("loky", "slurm", "dask", "ray")


@pytest.mark.slow
def test_slurm_by_its_local_stand_in(tiny, undisturbed, tmp_path):
    """submitit runs each piece as Slurm would, in a process of its own with its own log."""
    pytest.importorskip("submitit")
    execute(tiny(tmp_path), engine=engine_of("slurm", 2, 2, "local", tmp_path))
    assert numbers(tmp_path) == undisturbed
    assert list((tmp_path / "slurm").glob("*_log.out"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_worker_whose_time_is_over_stops_where_all_is_whole(number):
    """And whatever else answers these signals, as submitit does, has them back afterwards."""
    reached = []

    def work():
        with stops_held():
            os.kill(os.getpid(), number)
            reached.append("what is at work")
            assert bool(signal.getitimer(signal.ITIMER_REAL)[0]) == (number == signal.SIGTERM)  # before a limit there is time
            stop_if_asked()
        reached.append("more")

    def other(number, frame):
        raise AssertionError("the job is ended in the midst of it")

    before = {each: signal.signal(each, other) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)}
    try:
        assert do(None, work) == Stopped(f"its worker was told to stop ({number.name})")
        assert signal.getsignal(number) is other
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert reached == ["what is at work"]


def limited(stuck=False):
    """SAC that meets its time limit after 13 steps of each job; stuck: of the first, and before any step of the others."""

    class Limited(SAC):
        calls = 0
        derived = SAC.derived | {"calls"}

        def update(self, batch, noise, phase):
            self.calls += 1
            if self.calls == 13:
                os.kill(os.getpid(), signal.SIGUSR2)
            return super().update(batch, noise, phase)

        def load_states(self, states):
            super().load_states(states)
            if stuck:
                os.kill(os.getpid(), signal.SIGUSR2)

    Limited.__module__ = SAC.__module__  # to have its identity
    kind = get_algorithm("sac")
    return Algorithm("sac", Limited, kind.experience, kind.settings)


@pytest.mark.slow
def test_a_job_that_meets_its_time_limit_goes_on_in_another(plan, monkeypatch, tmp_path):
    """And in as many as it takes, while each brings it further; then it is left to the next run, and has not failed."""
    pytest.importorskip("submitit")
    monkeypatch.setattr("mopo_bench.harness.runs.runner.check_first_use", lambda cells: None)  # it has no job there
    usual = {"settings": {f"all.{key}": value for key, value in TINY.items()}, "steps": 40, "evaluate_every": 10, "episodes": 1}

    def run(folder, algorithm):
        here = plan(algorithm, results=tmp_path / folder, **usual)
        return here, execute(here, engine=engine_of("slurm", 1, 2, "local", tmp_path / folder))

    _, outcome = run("runs", limited())
    assert outcome == {"done": ["point-angle/sac/seed-0"]}
    here, outcome = run("stuck", limited(stuck=True))
    assert outcome == {"running": ["point-angle/sac/seed-0"]} and len(list((tmp_path / "stuck/slurm").glob("*_log.out"))) == 2
    (left,) = load_runs(tmp_path / "stuck")
    assert left.state == "running" and left.record["traceback"] is None and list((tmp_path / "stuck").rglob("stopped.pt"))
    why = "running: point-angle/sac/seed-0: stopped at step 13, no further than before: its worker was told to stop (SIGUSR2)"
    (line,) = [line for line in outcome_lines(here, outcome) if line.startswith(why)]
    assert line.endswith("give a job more time, with Slurm by SBATCH_TIMELIMIT, and run again")
    assert execute(plan("sac", results=tmp_path / "stuck", **usual)).keys() == {"done"}
    execute(plan("sac", results=tmp_path / "undisturbed", **usual))
    (resumed,), (plain,), (stuck,) = (load_runs(tmp_path / folder) for folder in ("runs", "undisturbed", "stuck"))
    assert [each["from_step"] for each in resumed.record["segments"]] == [0, 13, 26, 39]
    assert resumed.state == "done" and resumed.evaluations == plain.evaluations == stuck.evaluations


@pytest.mark.slow
def test_a_command_that_is_stopped_cancels_what_it_was_about_to_submit(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    engine = engine_of("slurm", 1, 2, "local", tmp_path)
    submit, submitted, begun, go = engine.executor.submit, [], threading.Event(), threading.Event()

    def late(*words):
        begun.set()
        go.wait()
        submitted.append(submit(*words))
        return submitted[-1]

    monkeypatch.setattr(engine.executor, "submit", late)
    ended, piece = [], Piece(time.sleep, (600,))
    threads = [threading.Thread(target=lambda: ended.append(engine.do(piece))), threading.Thread(target=engine.stop)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    time.sleep(0.5)
    go.set()
    for thread in threads:
        thread.join(300)  # submitit looks every half minute, later on a busy machine
    assert isinstance(ended[0], Lost) and submitted[0].done()
    assert isinstance(engine.do(piece), Lost) and len(submitted) == 1


def test_workers_that_are_gone_are_not_kept(monkeypatch):
    """Who makes plans all day in one process leaves nothing behind but what is idle."""
    monkeypatch.setattr(Workers, "idle", [])  # older ones
    ask_who_ends, before = interrupts._children, len(interrupts._children)
    workers = Workers(1)
    assert workers.do(Piece(abs, (-1,))) == 1
    (executor,) = workers.idle
    (process,) = processes(executor)
    assert process in [each for who in ask_who_ends for each in who()] and len(ask_who_ends) == before
    end(workers.idle.pop())
    gone = weakref.ref(executor)
    del workers, executor
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_dask(tiny, undisturbed, tmp_path):
    """A scheduler and two workers, each a process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        execute(tiny(tmp_path), engine=engine_of("dask", None, 2, cluster.scheduler_address, tmp_path))
    assert numbers(tmp_path) == undisturbed


def test_dask_workers_of_several_threads_are_refused(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        pytest.raises(UserError, match="workers of several threads: start them by"),
    ):
        engine_of("dask", None, 2, cluster.scheduler_address, tmp_path)


@pytest.mark.slow
def test_ray(tiny, undisturbed, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        execute(tiny(tmp_path), engine=engine_of("ray", None, 2, ray.get_runtime_context().gcs_address, tmp_path))
    finally:
        ray.shutdown()
    assert numbers(tmp_path) == undisturbed


@pytest.mark.slow
def test_two_commands_share_a_folder(arguments, start, evaluations, tmp_path):
    """As the tasks of an array job do: each run is done once, by one of them, with the numbers of one command."""
    words = arguments("sac", "bc", results=tmp_path / "shared", seeds="3", steps=50)
    both = [start(*words), start(*words)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert {code for _, code in ended} <= {0, 3}, ended
    for (out, _), code in ended:
        assert code == 0 or "another process is at work on it" in out
    assert {run.state for run in load_runs(tmp_path / "shared")} == {"done"} and len(load_runs(tmp_path / "shared")) == 6
    assert {len(run.record["segments"]) for run in load_runs(tmp_path / "shared")} == {1}
    alone = start(*arguments("sac", "bc", results=tmp_path / "alone", seeds="3", steps=50))
    alone.communicate(timeout=300)
    assert evaluations(tmp_path / "shared") == evaluations(tmp_path / "alone")
