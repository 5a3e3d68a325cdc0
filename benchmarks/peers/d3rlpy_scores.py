"""Scores of SAC and BEAR beside d3rlpy's, on one batch: python benchmarks/peers/d3rlpy_scores.py [--steps N] [--out FOLDER]

Both libraries get the same batch of pendulum-mixed, the same settings and number of steps, and are evaluated at the end by this
package's Evaluator from the same starts. Each trains by its own loop, with its own first weights, batches and noise.
`d3rlpy-aligned` is d3rlpy with its definitions brought to ours; `d3rlpy_peer.py` says how. Every seed has a process of its own.

FOLDER/d3rlpy_scores_seeds.csv gets a row as soon as a seed is done, and what has its row is not run again. From these rows come
FOLDER/d3rlpy_scores.csv and FOLDER/d3rlpy_scores.md.

Needs d3rlpy beside this package: python -m pip install d3rlpy
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy_peer import AS_PYTORCH, DIFFERENCES, make
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.algorithms.learning.steps import StepStreams
from mopo_bench.harness.report.statistics import difference_interval, mean, mean_interval, standard_deviation
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.harness.runs.machine import describe_machine, prepare_process
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import OfflineProblem

TASK = "pendulum-mixed"
LIBRARIES = ("mopo-bench", "d3rlpy", "d3rlpy-aligned")
# What decides a row's number; the rest of a row is said for the record.
KEY = (
    "task",
    "digest",
    "algorithm",
    "settings",
    "library",
    "seed",
    "steps",
    "episodes",
    "version",
    "mopo-bench",
    "d3rlpy",
    "torch",
)
OUTCOME = ("return_mean", "return_std", "seconds", "label", "rows", "batch_mean", "batch_max", "numpy", "gymnasium", "python")
MACHINE = ("system", "cpu", "cores", "commit")
Row = dict[str, str]
Act = Callable[[np.ndarray], np.ndarray]


def settings(name: str) -> dict[str, Any]:
    """The algorithm's full configuration for the task, first weights and Adam as d3rlpy has them."""
    algorithm = get_algorithm(name)
    return algorithm.configure(task_settings(algorithm, TASK), AS_PYTORCH)


def key(library: str, name: str, seed: int, steps: int) -> Row:
    task, algorithm, versions = get_task(TASK), get_algorithm(name), describe_machine()["versions"]
    chosen = algorithm.changed(settings(name))
    values = {
        "task": TASK,
        "digest": load_dataset(task, DatasetRequest("regenerated")).digest()[:12],
        "algorithm": name,
        "settings": json.dumps(chosen, sort_keys=True),
        "library": library,
        "seed": seed,
        "steps": steps,
        "episodes": task.evaluation.episodes,
        "version": algorithm.versions["learner"],
        "mopo-bench": versions["mopo-bench"],
        "d3rlpy": d3rlpy.__version__,
        "torch": versions["torch"],
    }
    return {column: str(values[column]) for column in KEY}


def train_ours(name: str, problem: OfflineProblem, seed: int, steps: int) -> Act:
    algorithm = get_algorithm(name)
    configs = algorithm.build_configs(settings(name))
    learner = algorithm.learner(problem, configs["learner"], [seed])
    experience = algorithm.experience(problem, configs["experience"], [seed])
    streams = StepStreams(learner)
    for step in range(steps):
        uniform, noise = streams.at(step)
        learner.update(experience.draw(uniform), noise, learner.phase(step))
    return lambda observations: learner.act(torch.as_tensor(observations)).numpy()


def train_theirs(name: str, problem: OfflineProblem, seed: int, steps: int, aligned: bool) -> Act:
    d3rlpy.seed(seed)
    algorithm = get_algorithm(name)
    config = algorithm.build_configs(settings(name))["learner"]
    peer = make(name, problem, config, DIFFERENCES[name] if aligned else ())
    batch, timeouts = problem.dataset, problem.dataset.timeouts.copy()
    timeouts[-1] = not batch.terminals[-1]  # d3rlpy leaves out rows after the last end of an episode
    columns = (batch.observations, batch.actions, batch.rewards, batch.terminals.astype(np.float32))
    peer.fit(
        d3rlpy.dataset.MDPDataset(*columns, timeouts=timeouts.astype(np.float32)),
        n_steps=steps,
        n_steps_per_epoch=steps,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    return lambda observations: peer.predict(observations[0])[None]


def run_one(library: str, name: str, seed: int, steps: int) -> Row:
    prepare_process()
    task, machine = get_task(TASK), describe_machine()
    batch = load_dataset(task, DatasetRequest("regenerated"))
    problem, started = task.offline_problem(batch), time.monotonic()
    if library == "mopo-bench":
        act = train_ours(name, problem, seed, steps)
    else:
        act = train_theirs(name, problem, seed, steps, library == "d3rlpy-aligned")
    seconds = time.monotonic() - started
    returns = Evaluator(task).returns(act, [reset_seeds(seed, steps, task.evaluation.episodes)])[0]
    facts = batch.describe()
    values = {
        **machine,
        **machine["versions"],
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std(ddof=1)),
        "seconds": round(seconds, 1),
        "label": batch.provenance["label"],
        "rows": facts["rows"],
        "batch_mean": facts["return_mean"],
        "batch_max": facts["return_max"],
    }
    return key(library, name, seed, steps) | {column: str(values[column]) for column in (*OUTCOME, *MACHINE)}


def run_in_process(work: tuple[str, str, int], steps: int) -> Row:
    command = [sys.executable, __file__, "--one", *map(str, work), "--steps", str(steps)]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, work))} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])  # d3rlpy's log comes before


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Row) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, (*KEY, *OUTCOME, *MACHINE))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def run_missing(path: Path, names: Sequence[str], seeds: Sequence[int], steps: int, jobs: int) -> list[Row]:
    """The rows of all that was asked for, those of earlier runs included."""
    wanted = {work: key(*work, steps) for work in product(LIBRARIES, names, seeds)}
    found = {tuple(row[name] for name in KEY): row for row in read_rows(path)}
    missing = [work for work, row in wanted.items() if tuple(row.values()) not in found]
    failures = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_in_process, work, steps): work for work in missing}
        for number, done in enumerate(as_completed(running), 1):
            if error := done.exception():
                failures.append(str(error))
                continue
            row = done.result()
            append_row(path, row)
            found[tuple(row[name] for name in KEY)] = row
            print(f"{number}/{len(missing)} {' '.join(map(str, running[done]))}: {float(row['return_mean']):.1f}", flush=True)
    if failures:
        sys.exit("\n".join(failures))
    return [found[tuple(row.values())] for row in wanted.values()]


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each algorithm and library; differences are to mopo-bench's mean."""
    lines = []
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        returns = {
            library: [float(row["return_mean"]) for row in rows if (row["algorithm"], row["library"]) == (name, library)]
            for library in LIBRARIES
        }
        for library, values in returns.items():
            same = library == "mopo-bench"
            low, high = mean_interval(values) or (None, None)
            below, above = (None, None) if same else difference_interval(values, returns["mopo-bench"]) or (None, None)
            lines.append(
                {
                    "algorithm": name,
                    "library": library,
                    "seeds": len(values),
                    "mean": mean(values),
                    "std": standard_deviation(values),
                    "low": low,
                    "high": high,
                    "minus_mopo_bench": None if same else mean(values) - mean(returns["mopo-bench"]),
                    "difference_low": below,
                    "difference_high": above,
                }
            )
    return lines


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    lines, facts = summarise(rows), rows[0]
    stated = ("task", "label", "digest", "steps", "episodes", "mopo-bench", "d3rlpy", "torch", *MACHINE[:3])
    with (folder / "d3rlpy_scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, (*lines[0], *stated))
        writer.writeheader()
        writer.writerows({**rounded(line), **{name: facts[name] for name in stated}} for line in lines)
    text = [
        f"# SAC and BEAR beside d3rlpy on {facts['task']}",
        "",
        "| Algorithm | Library | Seeds | Return | Interval of the mean | Minus mopo-bench |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        spread = "" if line["std"] is None else f" ± {line['std']:.1f}"
        minus = "" if line["minus_mopo_bench"] is None else f"{line['minus_mopo_bench']:.1f} "
        difference = minus + interval(line["difference_low"], line["difference_high"])
        returns = f"{line['mean']:.1f}{spread} | {interval(line['low'], line['high'])}"
        text.append(f"| {line['algorithm']} | {line['library']} | {line['seeds']} | {returns} | {difference} |")
    seeds = ", ".join(sorted({row["seed"] for row in rows}, key=int))
    batch = f"{facts['rows']} rows, mean return {float(facts['batch_mean']):.1f}, best {float(facts['batch_max']):.1f}"
    versions = ", ".join(f"{name} {facts[name]}" for name in ("mopo-bench", "d3rlpy", "torch", "numpy", "gymnasium", "python"))
    text += [
        "",
        "- Return: mean ± sample standard deviation over seeds of the evaluation after the last step. In brackets: 95 %",
        "  intervals, Student's of the mean, Welch's of the difference.",
        "- d3rlpy-aligned: d3rlpy with its definitions brought to ours, see `d3rlpy_equality.md`. As it comes, its BEAR has an",
        "  entropy term, and no gradient of the MMD reaches the actor after the warm-up.",
        f"- Steps: {facts['steps']}. Seeds: {seeds}. Episodes in an evaluation: {facts['episodes']}, the same starts for all.",
        f"- Data {facts['label']} ({facts['digest']}): {batch}.",
        *[f"- Settings of {name}: `{value}`, else the defaults." for name, value in chosen_settings(rows).items()],
        f"- {versions}; {facts['system']}, {facts['cpu']}, {facts['cores']} cores, one thread a process.",
    ]
    (folder / "d3rlpy_scores.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


def chosen_settings(rows: Sequence[Row]) -> Row:
    return {row["algorithm"]: row["settings"] for row in rows}


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=get_task(TASK).evaluation.steps)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--algorithms", nargs="+", default=list(DIFFERENCES), choices=list(DIFFERENCES))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", nargs=3, metavar=("LIBRARY", "ALGORITHM", "SEED"), help="runs one and prints its row as JSON")
    options = parser.parse_args()
    if options.one:
        library, name, seed = options.one
        print(json.dumps(run_one(library, name, int(seed), options.steps)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "d3rlpy_scores_seeds.csv"
    rows = run_missing(path, options.algorithms, range(options.seeds), options.steps, options.jobs)
    write_tables(options.out, rows)


if __name__ == "__main__":
    main()
