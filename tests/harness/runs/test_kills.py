"""Runs killed again and again, at any moment and in the midst of writes, end with the numbers of undisturbed ones."""

import os
import random
import signal
import sys
import time
import traceback

import pytest
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute

TINY = {"batch_size": 8, "hidden": "8,8"}
MODEL = {"sac": {}, "mopo": {"rollout_states": 20, "rollout_length": 1, "rollout_every": 6, "dynamics.hidden": "8,8,8"}}


@pytest.fixture(scope="module", params=["sac", "mopo"])
def tiny(request, plan):
    """Ten evaluations, each with a checkpoint and a record, in twenty steps of each of two seeds; of MOPO also a fit of each,
    which is kept after every epoch."""
    settings = {f"all.{key}": value for key, value in (TINY | MODEL[request.param]).items()}

    def make(results):
        return plan(request.param, results=results, seeds=(0, 1), settings=settings, steps=20, evaluate_every=2, episodes=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mopo_bench.harness.runs.fits.KEEP_SECONDS", 0)
        yield make


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    begun = time.monotonic()
    execute(tiny(results))
    return {run.seed: run.evaluations for run in load_runs(results)}, time.monotonic() - begun


def run_and_kill(plan, at=None, after=None):
    """Runs the plan in a child; gives whether that was killed: at its `at`-th opening or renaming of a file of the results, or
    `after` so many seconds."""
    child = os.fork()
    if child == 0:
        touched = 0

        def watch(event, arguments):
            nonlocal touched
            if event in ("open", "os.rename") and str(plan.results) in str(arguments[0]):
                touched += 1
                if touched == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            execute(plan)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 300
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            pytest.fail("a run hangs")
        time.sleep(0.02)
    assert os.WIFSIGNALED(ended[1]) or os.WEXITSTATUS(ended[1]) == 0
    return os.WIFSIGNALED(ended[1])


def kills(wanted, tiny, undisturbed, folder):
    """Kills runs until there were so many kills and every run is done; gives how many there were, by their kind."""
    numbers, seconds = undisturbed
    chance, killed, grids = random.Random(wanted), {"in a write": 0, "at any moment": 0}, 0
    while sum(killed.values()) < wanted:
        here, tries = tiny(folder / str(grids)), 0
        while tries < 12 and sum(killed.values()) < wanted:
            tries += 1
            if chance.random() < 0.5:
                killed["in a write"] += run_and_kill(here, at=chance.randint(1, 60))
            else:
                killed["at any moment"] += run_and_kill(here, after=chance.uniform(0, seconds))
        execute(here)
        runs = {run.seed: run for run in load_runs(here.results)}
        assert {run.state for run in runs.values()} == {"done"} and len(runs) == 2
        assert {seed: run.evaluations for seed, run in runs.items()} == numbers
        assert not list(here.results.rglob("*.part")) and not list(here.results.rglob("*.damaged*"))
        grids += 1
        print(f"{killed}, in {grids} grids of two runs", flush=True)
    return killed, grids


def test_kills_change_no_number(tiny, undisturbed, tmp_path):
    killed, _ = kills(8, tiny, undisturbed, tmp_path)
    assert sum(killed.values()) >= 8


@pytest.mark.slow
def test_many_kills_change_no_number(tiny, undisturbed, tmp_path):
    """With `-s` it says how many there were, grid by grid."""
    killed, _ = kills(int(os.environ.get("MOPO_BENCH_KILLS", "500")), tiny, undisturbed, tmp_path)
    assert sum(killed.values()) >= 8
