"""Small runs of point-angle: in this process, through the command line, or in a process that can be killed."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass

import pytest
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.harness.api import plan_run
from mopo_bench.harness.cli.main import main
from mopo_bench.harness.runs.ledger import load_runs

SMALL = {
    "batch_size": 32,
    "hidden": "16,16",
    "rollout_length": 2,
    "rollout_states": 100,
    "rollout_every": 20,
    "retained_rollouts": 2,  # the ring is full after two refreshes
    "dynamics.hidden": "16,16,16",
    "dynamics.max_epochs": 2,
}


def small_settings(algorithms):
    known = {key for each in algorithms for key in (each if isinstance(each, Algorithm) else get_algorithm(each)).defaults()}
    return {f"all.{key}": value for key, value in SMALL.items() if key in known}


@pytest.fixture(scope="session")
def plan():
    """A plan of point-angle with small settings; options replace its own."""

    def make(*algorithms, results, seeds=(0,), settings=(), **options):
        usual = {"tasks": ["point-angle"], "steps": 100, "evaluate_every": 25, "episodes": 3}
        chosen = small_settings(algorithms) | dict(settings)
        return plan_run(algorithms=algorithms, seeds=list(seeds), results=results, settings=chosen, **{**usual, **options})

    return make


@pytest.fixture(scope="session")
def arguments():
    """The same plan as words of the command line; later words win."""

    def make(*algorithms, results, seeds="1", steps=100):
        words = ["run", "--tasks", "point-angle", "--algorithms", ",".join(algorithms), "--results", results]
        words += ["--seeds", seeds, "--steps", steps, "--evaluate-every", 25, "--episodes", 3, "--jobs", 1]
        for key, value in small_settings(algorithms).items():
            words += ["--set", f"{key}={value}"]
        return [str(word) for word in words]

    return make


@dataclass
class Finished:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def command():
    """`mopo-bench` with these words, in this process; it leaves words and signals as they were."""

    def call(*words):
        out, err, words_before = io.StringIO(), io.StringIO(), sys.argv
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        sys.argv = ["mopo-bench", *map(str, words)]
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
                main()
        finally:
            sys.argv = words_before
            for number, handler in handlers.items():  # a command answers Ctrl-C in its own way
                signal.signal(number, handler)
        return Finished(stopped.value.code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def start():
    """Starts `mopo-bench` with these words in a process group of its own, which does not outlive the test."""
    started = []

    def begin(*words, before="pass"):
        process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\nfrom mopo_bench.harness.cli.main import main; main()", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a shell that starts its jobs in the background has them ignore Ctrl-C, and children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def wait_for():
    """Looks every few milliseconds until `holds()`; the process must not end before."""

    def wait(holds, process=None, seconds=120):
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"still waiting after {seconds} s"
            assert process is None or process.poll() is None, f"ended too early: {process.communicate()}"
            time.sleep(0.003)

    return wait


@pytest.fixture(scope="session")
def evaluations():
    """By (algorithm, seed): the returns of every episode by step, all digits."""

    def read(results, until=None):
        return {
            (run.algorithm, run.seed): {
                row["step"]: row["returns"] for row in run.evaluations if until is None or row["step"] <= until
            }
            for run in load_runs(results)
        }

    return read


@pytest.fixture(scope="session")
def contents():
    """Bytes and time of change of every file in a folder, by path."""

    def read(folder):
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    return read
