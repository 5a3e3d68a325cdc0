"""Evaluation, and what a whole run takes: epochs of two runs at once, and peak memory. Runs have processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import parts
import pytest
import textbook
from bench_model import copied_policy
from conftest import report, spread
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.harness.runs.machine import matmul_precision
from mopo_bench.tasks.environments import quiet_model_loading
from mopo_bench.tasks.registry import get_task
from parts import Training, sized

RUNS = Path(__file__).with_name("runs.py")
FORMS = {"compiled": ["--compile"], "not compiled": []}


def test_evaluation(side_by_side):
    task, training = get_task(parts.TASK), Training("sac")
    evaluator, policy = Evaluator(task), copied_policy(training.learner.actor)
    seeds = reset_seeds(0, 0, sized(10, 2))
    with quiet_model_loading():
        environment = gymnasium.make(task.environment)
    side_by_side(
        f"{len(seeds)} evaluation episodes",
        lambda: evaluator.returns(training.act, [seeds]),
        {"textbook": lambda: textbook.evaluate(environment, lambda seen: policy.act(seen, deterministic=True), seeds)},
        rounds=sized(5, 1),
        unit="s",
        goal=(0.6, 0.35),
        goal_of="time",
        both_backends=False,
        ours_includes="episodes side by side, one policy call a step for all of them, no wrappers",
        peer_includes="one episode after the other, Gymnasium's own wrappers",
    )


@pytest.mark.parametrize("form", FORMS)
def test_epoch(benchmark, tmp_path, form):
    """Two runs at once, one thread each, as the runner makes them; a round ends when both have ended their epoch."""
    command = [sys.executable, str(RUNS), "epoch", *FORMS[form], "--results", str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    workers = [subprocess.Popen([*command, "--seed", str(seed)], **pipes) for seed in range(2)]
    seconds = []

    def answers():
        lines = [worker.stdout.readline() for worker in workers]
        if not all(lines):
            raise RuntimeError("a run ended before its time: its error stands above")
        return [json.loads(line) for line in lines]

    def epoch():
        for worker in workers:
            worker.stdin.write("go\n")
        seconds.append(answers())

    try:
        answers()  # they are ready
        benchmark.pedantic(epoch, rounds=sized(2, 1))
    finally:
        for worker in workers:
            worker.stdin.close()
            worker.wait()
    report(
        benchmark,
        f"MOPO epoch, two runs at once, each, {form}",
        unit="s",
        ours={"backend": matmul_precision(), **spread([max(each) for each in seconds])},
        peers=[],
        goal={"of": "time", "at_least": 10.0, "aim": 7.0},
        ours_includes="rollout, steps, evaluation, checkpoint and record, by the harness itself",
    )


@pytest.mark.parametrize("form", FORMS)
def test_peak_memory(benchmark, needs_memory_count, tmp_path, monkeypatch, form):
    rows = sized(1_000_000, 20_000)
    parts.write_rows(tmp_path / "rows.hdf5", rows)
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "data"))  # where the file's arrays are unpacked
    command = [sys.executable, str(RUNS), "memory", *FORMS[form], "--batch", str(tmp_path / "rows.hdf5")]
    found = {}

    def run():
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.update(json.loads(done.stdout.splitlines()[-1]))

    benchmark.pedantic(run, rounds=1)
    report(
        benchmark,
        f"peak memory of a run on {rows:,} rows, {form}",
        unit="GB",
        ours={"backend": matmul_precision(), "median": max(found["fit"], found["training"]), "rounds": 1},
        peers=[],
        goal={"of": "memory", "at_least": 1.0, "aim": 0.7},
        memory=found,
        ours_includes="batch, dynamics fit, rollouts to a full ring, steps, evaluation; pages of the mapped batch count",
    )
