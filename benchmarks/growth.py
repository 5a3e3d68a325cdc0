"""How time and memory grow with rows, seeds in a group, rollout length and networks: python benchmarks/growth.py [--out FOLDER]

Every point has a process of its own, one thread, since memory is a process's peak. Writes growth.csv and growth.png. One axis
at a time is varied, the others stay at 100 000 rows, 1 seed, length 5 and 7 networks. MOPO_BENCH_QUICK=1: small sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; a window system may be absent
import numpy as np
import pandas as pd
import parts
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, NullFormatter, NullLocator
from mopo_bench.algorithms.learning.dynamics import Dynamics, likelihood_loss
from mopo_bench.algorithms.learning.optimisation import Adam, gradient
from mopo_bench.harness.runs.machine import prepare_process
from parts import Training, sized

STATES = 5_000  # of a rollout here: a tenth of a run's, linear in them
STEPS = sized(20, 2)
TIMES = sized(5, 1)

AXES: dict[str, Sequence[int]] = {
    "rows": sized((10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000), (2_000, 10_000)),
    "seeds": sized((1, 2, 4, 6, 8), (1, 2)),
    "rollout length": sized((1, 2, 5, 10, 20), (1, 2)),
    "networks": sized((1, 2, 4, 7, 10, 14), (1, 2)),
}
Measured = dict[str, tuple[float, str]]  # by what was measured: the number and its unit


def steps(training: Training, timer: parts.Timer) -> float:
    """Seconds of one step."""
    training.steps(STEPS)
    return parts.median_seconds(lambda: training.steps(STEPS), TIMES, timer) / STEPS


def rolled_out(training: Training, timer: parts.Timer) -> float:
    return parts.median_seconds(lambda: training.experience.refresh(0, training.learner), sized(3, 1), timer)


def by_rows(rows: int, file: Path, timer: parts.Timer) -> Measured:
    unpacked = parts.timed(lambda: parts.problem_of_file(file), timer)
    loaded = parts.median_seconds(lambda: parts.problem_of_file(file), TIMES, timer)
    problem = parts.problem_of_file(file)
    training = Training("sac", problem=problem)
    step = steps(training, timer)
    uniform = torch.rand(1, training.learner.config.batch_size, dtype=torch.float64)
    drawn = parts.median_seconds(lambda: [training.experience.draw(uniform) for _ in range(100)], TIMES, timer) / 100
    # narrow networks, or an epoch on two million rows would take minutes: what grows is the number of steps
    narrow = parts.configs("mopo", **{"dynamics.hidden": (8, 8, 8, 8), "dynamics.max_epochs": 1})["dynamics"]
    before = parts.memory_of_process()["own"]
    epoch = parts.timed(lambda: Dynamics.fit(problem, narrow, 0), timer)
    return {
        "unpacking a file, once": (unpacked, "s"),
        "loading the batch": (loaded, "s"),
        "SAC step with its batch": (step, "s"),
        "drawing a batch": (drawn, "s"),
        "epoch of the dynamics fit (networks of 8 units)": (epoch, "s"),
        "own memory before the fit": (before, "GB"),
    }


def by_seeds(seeds: int, file: Path, timer: parts.Timer) -> Measured:
    sac = steps(Training("sac", seeds=range(seeds)), timer)
    training = Training("mopo", seeds=range(seeds), rollout_states=STATES)
    rollout = rolled_out(training, timer)
    del training
    full = Training("mopo", seeds=range(seeds))
    full.experience.ring.rows.add_(0)  # all its pages, as after five rollouts
    return {"SAC step with its batch": (sac, "s"), "rollout of 5 000 x 5": (rollout, "s")}


def by_length(length: int, file: Path, timer: parts.Timer) -> Measured:
    rollout = rolled_out(Training("mopo", rollout_states=STATES, rollout_length=length), timer)
    full = Training("mopo", rollout_length=length)
    full.experience.ring.rows.add_(0)
    return {"rollout of 5 000": (rollout, "s")}


def by_networks(networks: int, file: Path, timer: parts.Timer) -> Measured:
    changes = {"dynamics.networks": networks, "dynamics.elites": min(5, networks)}
    training = Training("mopo", rollout_states=STATES, **changes)
    rollout = rolled_out(training, timer)
    problem, config = parts.the_problem(), training.configs["dynamics"]
    network = parts.ensemble_network(problem, config)
    adam = Adam(network.weights, 1e-3, network.decays(config.weight_decays, config.variance_weight_decay), config.adam)
    size_in, size_out = problem.observation_size + problem.action_size, problem.observation_size + 1
    inputs, targets = (torch.randn(1, networks, config.batch_size, size) for size in (size_in, size_out))

    def fit_steps() -> None:
        for _ in range(STEPS):
            gradients, _, _ = gradient(network, partial(likelihood_loss, inputs=inputs, targets=targets))
            adam.step(network.weights, gradients)

    step = parts.median_seconds(fit_steps, TIMES, timer) / STEPS
    return {"dynamics training step": (step, "s"), "rollout of 5 000 x 5": (rollout, "s")}


POINTS: dict[str, Callable[[int, Path, parts.Timer], Measured]] = {
    "rows": by_rows,
    "seeds": by_seeds,
    "rollout length": by_length,
    "networks": by_networks,
}


def point(axis: str, value: int, file: Path, timer: parts.Timer) -> Measured:
    prepare_process()
    torch.manual_seed(0)
    found = POINTS[axis](value, file, timer)
    return {**found, "peak memory": (parts.memory_of_process()["peak"], "GB")}


def measured(axis: str, value: int, options: Sequence[str]) -> Measured:
    """A point, in a process of its own."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        environment, file = {**os.environ, **threads}, Path(folder, "rows.hdf5")
        if axis == "rows":
            parts.write_rows(file, value)
            environment["MOPO_BENCH_DATA"] = folder
        command = [sys.executable, __file__, "--point", axis, str(value), "--file", str(file), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return {name: tuple(pair) for name, pair in json.loads(done.stdout.splitlines()[-1]).items()}


def exponent(values: Sequence[float], numbers: Sequence[float]) -> float:
    """p of number ~ value^p over the upper half of the points, where what is fixed weighs least."""
    half = len(values) // 2
    logs = np.log(values[half - 1 :]), np.log(numbers[half - 1 :])
    return float(np.polyfit(*logs, 1)[0]) if len(values) > 1 else float("nan")


def law(unit: str, values: np.ndarray, numbers: np.ndarray) -> str:
    """How it grows, in a few characters."""
    if len(values) < 2:
        return ""
    if unit == "s":
        return f": power {exponent(values, numbers):.2f}"
    slope, start = np.polyfit(values, numbers, 1)
    return f": {start:.2f} GB + {EngFormatter('B')(float(f'{slope * 1e9:.2g}'))} each"


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Seconds on scales of powers, where linear is a slope of 1; memory on plain ones, since much of it is fixed."""
    sns.set_theme(style="whitegrid", context="paper")
    figure, panels = plt.subplots(2, len(AXES), figsize=(4.2 * len(AXES), 7.5), squeeze=False, layout="constrained")
    for column, axis in enumerate(AXES):
        for row, (unit, label, scale) in enumerate((("s", "seconds", "log"), ("GB", "memory, GB", "linear"))):
            panel = panels[row][column]
            chosen = rows[(rows.axis == axis) & (rows.unit == unit)].copy()
            laws = {name: law(unit, each.value.to_numpy(), each.number.to_numpy()) for name, each in chosen.groupby("measure")}
            chosen["measure"] = [name + laws[name] for name in chosen.measure]
            panel.set(xscale=scale, yscale=scale)
            sns.lineplot(chosen, x="value", y="number", hue="measure", style="measure", markers=True, dashes=False, ax=panel)
            panel.set(xlabel=axis, ylabel=label if column == 0 else "")
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            if unit == "s":
                panel.xaxis.set_minor_locator(NullLocator())
                panel.set_xticks(AXES[axis])
                panel.yaxis.set_minor_formatter(NullFormatter())
            else:
                panel.set_ylim(0, None)
            sns.move_legend(panel, "lower center", bbox_to_anchor=(0.5, 1), title=None, frameon=False, fontsize="small")
    facts = parts.machine()
    figure.suptitle(
        f"Cost as work grows, one thread; {facts['cpu_model']} ({facts['cpu']}), torch {facts['versions']['torch']}. "
        "Power: of the upper half of the points; 1 is linear, 0 constant."
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--processor-time", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "VALUE"), help="measures one and prints it as JSON")
    parser.add_argument("--file", type=Path, help="the batch of a point of the axis rows")
    options = parser.parse_args()
    timer = time.process_time if options.processor_time else time.perf_counter
    if options.point:
        axis, value = options.point
        print(json.dumps(point(axis, int(value), options.file, timer)))
        return
    facts = parts.machine()
    rows = []
    for axis, values in AXES.items():
        for value in values:
            found = measured(axis, value, ["--processor-time"] if options.processor_time else [])
            for name, (number, unit) in found.items():
                rows.append({"axis": axis, "value": value, "measure": name, "unit": unit, "number": float(f"{number:.4g}")})
            said = ", ".join(f"{name} {number:.3g} {unit}" for name, (number, unit) in found.items())
            print(f"{axis} {value:,}: {said}", flush=True)
    table = pd.DataFrame(rows).assign(
        timer=timer.__name__, cpu=facts["cpu_model"], torch=facts["versions"]["torch"], commit=facts["commit"]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "growth.csv", index=False)
    plot(table, options.out / "growth.png")


if __name__ == "__main__":
    main()
