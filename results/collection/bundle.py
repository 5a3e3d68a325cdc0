"""Makes `tasks/data/bundled/*.npz` and the curves beside this file from the folders of finished collections.

    python results/collection/bundle.py COLLECTED

COLLECTED holds one folder per run of `RUNS`, each filled by `mopo-bench data collect` with the options given there. The series
of a replay-like dataset are ten policies at even distances along the run, each standing for its tenth of the buffer.
"""

import shutil
import sys
from pathlib import Path

from mopo_bench.harness.collection.collect import Collection, medium_return
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, save_series
from mopo_bench.tasks.registry import get_task

SERIES = 10
HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "tasks" / "data" / "bundled"
# folder: what is bundled from it, (name, task whose collection it is, part), and the options of the run
RUNS = {
    **{
        domain: (
            [
                (f"{domain}-medium", f"{domain}-medium", "medium"),
                (f"{domain}-mixed", f"{domain}-mixed", "mixed"),
                (f"{domain}-expert", f"{domain}-medium-expert", "expert"),
            ],
            options,
        )
        for domain, options in {
            "halfcheetah": {"steps": 100_000, "evaluate_every": 5_000, "target_return": 3_900.0},
            "hopper": {"steps": 115_000, "evaluate_every": 1_000},
            "walker2d": {"steps": 200_000, "evaluate_every": 2_500},
        }.items()
    },
    **{
        f"{task}-{seed}": (
            [(f"{task}-{seed}", task, "replay")],
            {"seed": seed, "steps": 300_000, "evaluate_every": 10_000},
        )
        for task in ("halfcheetah-jump", "ant-angle")
        for seed in (0, 1)
    },
}


def bundle(folder: Path, outputs, options) -> None:
    for name, task_name, part in outputs:
        task = get_task(task_name)
        if part != "replay":
            options = {"target_return": medium_return(task), **options}
        plan = Collection(task, compiled=True, stop_at_target=part in ("medium", "mixed"), **options)
        snapshots = {int(path.stem): path for path in (folder / "snapshots").glob("*.npz")}
        curve = [line.split(",") for line in (folder / "curve.csv").read_text().splitlines()[1:]]
        returns = {int(row[0]): float(row[1]) for row in curve}
        goal = options.get("target_return")
        medium = next((step for step, value in returns.items() if goal is not None and value >= goal), None)
        if part == "expert":
            chosen = [BehaviourPolicy.load(folder / "best.npz")]
        elif part == "medium":
            path = snapshots.get(medium, folder / "medium.npz")
            chosen = [BehaviourPolicy.load(path)]
            assert chosen[0].about["steps"] == medium
        else:
            end = medium if part == "mixed" else max(returns)
            wanted = [end * (place + 0.5) / SERIES for place in range(SERIES)]
            nearest = {min(snapshots, key=lambda step, at=at: (abs(step - at), step)) for at in wanted}
            assert len(nearest) == SERIES, f"{folder} keeps too few snapshots"
            chosen = [BehaviourPolicy.load(snapshots[step]) for step in sorted(nearest)]
        for policy in chosen:
            policy.about.update(task=task_name, command=plan.command(), target_return=plan.target_return)
        target = BUNDLED / f"{name}.npz"
        if len(chosen) == 1:
            chosen[0].save(target)
        else:
            save_series(chosen, target)
        last = chosen[-1].about
        print(f"{target.name}: {len(chosen)} of {folder.name}, last at {last['steps']} with {last['return_mean']:.0f}")
    shutil.copy(folder / "curve.csv", HERE / f"{folder.name}.csv")


if __name__ == "__main__":
    for run, (outputs, options) in RUNS.items():
        if (Path(sys.argv[1]) / run / "curve.csv").exists():
            bundle(Path(sys.argv[1]) / run, outputs, options)
        else:
            print(f"{run}: no collection there")
