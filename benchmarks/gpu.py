"""Seeds stacked on a GPU: steps a second by group size beside d3rlpy's own loop, rollouts, fits and whole cells.

python benchmarks/gpu.py [--out FOLDER] [--cell-steps N]     writes gpu.csv and gpu.md; without a GPU gpu.md says so
python benchmarks/gpu.py --device cpu --out FOLDER            the same work on a CPU: it shows that this file works

Steps a second are of captured steps, eager and compiled, with their batches; d3rlpy's are of its loop on the same GPU, without
its logging. A cell is one task and one algorithm with six seeds, run by the harness for N steps, evaluations beside it
included; its time for a million steps is that of the second half of N, multiplied. The fits of its models come before.
MOPO_BENCH_QUICK=1: little work.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import parts
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.harness import api
from mopo_bench.harness.runs.machine import prepare_process
from mopo_bench.harness.runs.trial import Trial
from parts import PeerTraining, Training, sized

STATES = sized(50_000, 1_000)
GROUPS = sized((1, 2, 4, 6, 12), (1, 2))
STEPS = sized(2_000, 5)
SEEDS, LENGTH = 6, 1_000_000  # of the cell that is asked for
AIMS = {
    ("SAC steps", 1): "3,000 a second",
    ("SAC steps", 6): "10,000 a second",
    ("cell of six seeds, 1M steps", 6): "15 min",
}


def seconds(work: Callable[[], object], device: str) -> float:
    """Of the second of two times: the first records, and compiles."""
    for _ in range(2):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
    return time.perf_counter() - started


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def memory(device: str) -> float:
    """GB at most since `forget`."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else parts.memory_of_process()["peak"]


def forget(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def by_group(device: str) -> list[dict[str, Any]]:
    rows = []
    for group in GROUPS:
        for compiled in (False, True):
            forget(device)
            training = Training("sac", seeds=range(group), device=device, compiled=compiled, capture=True)
            taken = seconds(lambda training=training: training.steps(STEPS), device)
            facts = {"form": "compiled" if compiled else "eager", "captured": str(training.taken.captured)}
            rows.append({"what": "SAC steps", "group": group, "number": group * STEPS / taken, "unit": "a second", **facts})
            rows[-1]["memory"] = memory(device)
            del training
        forget(device)
        training = Training("mopo", seeds=range(group), device=device, rollout_states=STATES)
        taken = seconds(lambda training=training: training.experience.refresh(0, training.learner), device)
        rows.append(
            {"what": f"rollout of {STATES:,} x 5", "group": group, "number": taken, "unit": "s", "memory": memory(device)}
        )
        del training
    return rows


def peer(device: str) -> list[dict[str, Any]]:
    training = PeerTraining("sac", device=device)
    taken = seconds(lambda: training.steps(STEPS), device)
    return [{"what": "SAC steps", "group": 1, "number": STEPS / taken, "unit": "a second", "form": "d3rlpy"}]


def fit(device: str) -> list[dict[str, Any]]:
    """An epoch on 100,000 rows: of three, the last two."""
    ends: list[float] = []

    def note(row: dict[str, Any]) -> None:
        wait(device)
        ends.append(time.perf_counter())

    Dynamics.fit(
        parts.the_problem(), parts.configs("mopo", **{"dynamics.max_epochs": 3})["dynamics"], 0, device=device, report=note
    )
    epoch, rows = (ends[2] - ends[0]) / 2, f"{len(parts.the_problem().dataset):,} rows"
    return [{"what": f"epoch of a dynamics fit on {rows}", "group": 1, "number": epoch, "unit": "s"}]


def cell(device: str, steps: int) -> list[dict[str, Any]]:
    class Timed(Trial):
        """Notes when an interval ends: the first ones pay for processes and compilers."""

        def _evaluate(self) -> None:
            super()._evaluate()
            ends.append((self.step, time.perf_counter()))

    ends: list[tuple[int, float]] = []
    forget(device)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"mopo.rollout_length": parts.ROLLOUT_LENGTH} | sized({}, {"mopo.rollout_states": 500})
        settings |= sized({}, {"mopo.dynamics.max_epochs": 1, "mopo.rollout_every": 20})
        request = parts.request()
        plan = api.plan_run(
            tasks=[parts.TASK],
            algorithms=["mopo"],
            seeds=range(SEEDS),
            steps=steps,
            rows=request.rows,
            results=folder,
            settings=settings,
            device=device,
            compile="on" if device == "cuda" else "off",
            capture=device == "cuda",
            evaluate_every=sized(1_000, 20),
            episodes=sized(10, 1),
        )
        trial = Timed(plan.cells[0])
        trial.run()
    fits = sum(record["stage_records"]["dynamics"]["seconds"] for record in trial.records.each)
    (first, begun), (last, ended) = ends[len(ends) // 2], ends[-1]
    training = (ended - begun) / (last - first) * LENGTH
    segment = trial.records.each[0]["segments"][-1]
    facts = {"captured": str(segment["captured"]), "form": "compiled" if segment["compiled"] else "eager"}
    facts |= {"memory": memory(device), "group": SEEDS, "unit": "min"}
    return [
        {"what": "cell of six seeds, 1M steps", "number": training / 60, **facts},
        {"what": "fits of its six models", "number": fits / 60, "group": 1, "unit": "min"},
    ]


def report(rows: list[dict[str, Any]], machine: dict[str, Any], gpu: str) -> str:
    """The table, also where nothing could be measured."""
    lines = ["# Seeds stacked on a GPU", ""]
    if not rows:
        lines += ["There was no GPU where this was made: **not measured**.", "", "| What | Group | Aim | Measured |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [f"| {what} | {group} | {aim} | not measured |" for (what, group), aim in AIMS.items()]
        return "\n".join([*lines, "", "Made by `python benchmarks/gpu.py`.", ""])
    versions = machine["versions"]
    lines += [f"{gpu}; torch {versions['torch']}, mopo-bench {versions['mopo-bench']}, commit {machine['commit']}.", ""]
    lines += ["| What | Group | Form | Measured | Aim | Memory |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        amount = f"{row['number']:,.0f}" if row["number"] >= 100 else f"{row['number']:.3g}"
        form = ", ".join(filter(None, (row.get("form"), "captured" if row.get("captured") == "True" else "")))
        aim = AIMS.get((row["what"], row["group"]), "") if row.get("form") != "d3rlpy" else ""
        size = f"{row['memory']:.2f} GB" if row.get("memory") else ""
        lines.append(f"| {row['what']} | {row['group']} | {form} | {amount} {row['unit']} | {aim} | {size} |")
    return "\n".join([*lines, "", "Steps are seed-steps. Made by `python benchmarks/gpu.py`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--cell-steps", type=int, default=sized(20_000, 60))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.device == "cuda" and not torch.cuda.is_available() and (options.out / "gpu.csv").exists():
        parser.exit(2, f"no GPU here, and {options.out / 'gpu.csv'} was measured on one: choose another --out\n")
    rows: list[dict[str, Any]] = []
    name = "not on a GPU"
    if options.device == "cpu" or torch.cuda.is_available():
        prepare_process(options.device)
        name = torch.cuda.get_device_name() if options.device == "cuda" else name
        for part in (by_group, peer, fit, lambda device: cell(device, options.cell_steps)):
            try:
                rows += part(options.device)
            except ImportError as error:  # d3rlpy is no need of this package's
                print(f"left out: {error}", flush=True)
            # as far as it has come, should the time on the machine end
            pd.DataFrame(rows).assign(gpu=name).to_csv(options.out / "gpu.csv", index=False)
    (options.out / "gpu.md").write_text(report(rows, parts.machine(), name))
    print((options.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
