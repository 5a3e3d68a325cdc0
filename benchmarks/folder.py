"""How long a results folder of ten thousand finished runs takes to read, and how much memory: `python benchmarks/folder.py`.

A run of a few steps is made, and copied to other seeds and identities. Then each command is started as a user starts it; limits
are five seconds and 500 MB. `--runs` and `--cells` make a smaller folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mopo_bench.harness.api import plan_run, run
from mopo_bench.harness.check.baseline import update
from mopo_bench.harness.runs.ledger import load_runs

SECONDS, MEGABYTES = 5.0, 500
SMALL = {"batch_size": 8, "hidden": (8, 8)}
GRID = {"tasks": "point-angle", "algorithms": "sac", "steps": 200, "evaluate_every": 10, "episodes": 10}


def values(cells: int) -> str:
    """So many values of a setting, a cell for each."""
    return ",".join(f"{0.001 + 0.0001 * index:.4f}" for index in range(cells))


def words(results: Path, cells: int, seeds: int) -> list[str]:
    """The grid as words of the command line."""
    options = {f"--{name.replace('_', '-')}": value for name, value in GRID.items()}
    said = [str(word) for pair in options.items() for word in pair] + ["--seeds", str(seeds), "--results", str(results)]
    return [*said, "--set", "batch_size=8", "--set", "hidden=8,8", "--set", f"tau={values(cells)}"]


def fill(results: Path, cells: int, seeds: int) -> None:
    """Runs one seed, and copies its records to every seed of every cell of the grid, as if all of them had been run."""
    with tempfile.TemporaryDirectory() as folder:
        run(**GRID, seeds=1, settings=SMALL, results=folder, jobs=1, quiet=True)
        (one,) = load_runs(folder)
        source = Path(folder, one.task, one.algorithm, one.identity, "seed-0")
        plan = plan_run(**GRID, seeds=seeds, settings={**SMALL, "tau": values(cells)}, results=results)
        record, table = json.loads((source / "record.json").read_text()), (source / "evaluations.csv").read_text()
        for cell in plan.cells:
            cell.folder.mkdir(parents=True)
            (cell.folder / "cell.json").write_text(json.dumps(cell.describe(), indent=1))
            for seed in cell.seeds:
                place = cell.seed_folder(seed)
                place.mkdir()
                (place / "record.json").write_text(json.dumps(record | {"seed": seed}, indent=1) + "\n")
                (place / "evaluations.csv").write_text(table)
                shutil.copy(source / "checkpoint.pt", place) if seed == 0 else None
        plan.ledger.remember(plan)


def measured(*command: str) -> tuple[float, float, float, int]:
    """Seconds by the clock and of the processor, megabytes at the most, and the exit status of a command."""
    program = "from mopo_bench.harness.cli.main import main; main()"
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    wrapped = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", wrapped, sys.executable, "-c", program, *command], stdout=subprocess.PIPE)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, int(done.stdout.split()[-1]) / 1024, done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=100)
    asked = parser.parse_args()
    seeds = asked.runs // asked.cells
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "runs")
        fill(results, asked.cells, seeds)
        baseline = Path(folder, "baseline.csv")
        update(baseline, results, "the same runs", fewest=2)
        for name, command in {
            "status": ["status", "--results", str(results)],
            "table": ["table", "scores", "--results", str(results)],
            "check": ["check", "--results", str(results), "--baseline", str(baseline)],
            "run, everything done": ["run", *words(results, asked.cells, seeds)],
            "run --dry-run of an empty folder": ["run", *words(Path(folder, "none"), asked.cells, seeds), "--dry-run"],
        }.items():
            seconds, processor, megabytes, code = measured(*command)
            sound = processor < SECONDS and megabytes < MEGABYTES
            note = "" if sound else f"  above {SECONDS:g} s or {MEGABYTES} MB"
            print(f"{name}: {seconds:.1f} s, {processor:.1f} s of the processor, {megabytes:.0f} MB, exit status {code}{note}")


if __name__ == "__main__":
    main()
