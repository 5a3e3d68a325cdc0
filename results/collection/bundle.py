"""Makes `tasks/data/bundled/*` and the curves beside this file from the folders of collections, finished or not.

    python results/collection/bundle.py COLLECTED [NAME:PART ...] [--unfit]

COLLECTED holds one folder per run of `RUNS`, each filled by `mopo-bench data collect` with the options given there. *buffer* is
the replay buffer's first rows, as many as D4RL's file has, or whole episodes spread over all of it. What the task does not
accept is bundled only with `--unfit`, and the page on datasets must say so.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from mopo_bench.harness.collection.acceptance import check_dataset
from mopo_bench.harness.collection.collect import Collection, OnlineTrainer, medium_return
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy
from mopo_bench.tasks.data.compact import thinned, write_compact
from mopo_bench.tasks.data.relabelling import with_own_rewards
from mopo_bench.tasks.registry import get_task

HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "tasks" / "data" / "bundled"
SPREAD = 200_000  # rows of a whole run's buffer; fewer of the second collections, for what the package may weigh
SPREAD_OF = {"halfcheetah-jump-5": 100_000, "ant-angle-2": 60_000}
# of each run's folder: its options, and what is bundled from it: (name, task whose dataset it is, part, rows)
RUNS = {
    "halfcheetah-0": (
        {"evaluate_every": 5_000, "target_return": 3_900.0},
        [
            ("halfcheetah-medium", "halfcheetah-medium", "medium", None),
            ("halfcheetah-mixed", "halfcheetah-mixed", "buffer", 101_000),
            ("halfcheetah-expert", "halfcheetah-medium-expert", "expert", None),
        ],
    ),
    "hopper-0": (
        {"evaluate_every": 1_000},
        [
            ("hopper-medium", "hopper-medium", "medium", None),
            ("hopper-mixed", "hopper-mixed", "buffer", 200_920),
            ("hopper-expert", "hopper-medium-expert", "expert", None),
        ],
    ),
    "walker2d": ({"evaluate_every": 2_500}, [("walker2d-medium", "walker2d-medium", "medium", None)]),
    "walker2d-0": (  # the same seed anew
        {"evaluate_every": 10_000},  # up to 102 331 steps, *mixed*, every 2 500
        [
            ("walker2d-mixed", "walker2d-mixed", "buffer", 100_930),
            ("walker2d-expert", "walker2d-medium-expert", "expert", None),
        ],
    ),
    **{
        f"{task}-{seed}": (
            {"seed": seed, "evaluate_every": 10_000},
            [(f"{task}-{seed}", task, "buffer", None)],
        )
        for task in ("halfcheetah-jump", "ant-angle")
        for seed in range(6)
    },
}


def bundle(folder: Path, name: str, task_name: str, part: str, rows: int | None, options: dict) -> None:
    """Writes one part of a run, with what is to be said of where it comes from."""
    task = get_task(task_name)
    if task.references is not None:
        options = {"target_return": medium_return(task), **options}
    curve = [line.split(",") for line in (folder / "curve.csv").read_text().splitlines()[1:]]
    plan = Collection(task, int(curve[-1][0]), compiled=True, stop_at_target=False, **options)
    if part == "buffer":
        write_buffer(plan, folder, BUNDLED / f"{name}.hdf5", rows)
        return
    snapshots = {int(path.stem): path for path in (folder / "snapshots").glob("*.npz")}
    if part == "expert":
        chosen = BehaviourPolicy.load(folder / "best.npz")
    else:
        medium = next(int(row[0]) for row in curve if float(row[1]) >= plan.target_return)
        chosen = BehaviourPolicy.load(snapshots.get(medium, folder / "medium.npz"))
        assert chosen.about["steps"] == medium
    chosen.about.update(task=task_name, command=plan.command(), target_return=plan.target_return)
    target = BUNDLED / f"{name}.npz"
    chosen.save(target)
    print(f"{target.name}: of {folder.name} at {chosen.about['steps']} with {chosen.about['return_mean']:.0f}")


def write_buffer(plan: Collection, folder: Path, target: Path, rows: int | None) -> None:
    """The replay buffer in the environment's own rewards, with Batch Mean and Max of the whole under the task's beside it."""
    trainer = OnlineTrainer(plan)
    trainer.load(plan.read(folder / "checkpoint.pt"))
    whole = trainer.replay() if rows is None else trainer.replay().head(rows)
    judged = with_own_rewards(whole, plan.task)
    for check in check_dataset(judged, plan.task):
        print(f"  {folder.name}: {check}")
        if not check.holds and "--unfit" not in sys.argv:
            sys.exit(f"{target.name} is not written: the task asks more of its dataset (--unfit bundles it all the same)")
    facts = judged.describe()
    about = {
        "source": "collected",
        "task": plan.task.name,
        "policy": trainer.policy().about | {"policy": "SAC's replay buffer", "command": plan.command()},
        "whole": {"rows": len(whole), "return_mean": facts["return_mean"], "return_max": facts["return_max"]},
    }
    kept = replace(whole if rows else thinned(whole, SPREAD_OF.get(folder.name, SPREAD)), provenance=about)
    write_compact(kept, target, [f"infos/{name}" for name in plan.task.recipe.recorded])
    print(f"{target.name}: {len(kept)} of {len(whole)} rows, {target.stat().st_size / 1e6:.1f} MB, {about['whole']}")


if __name__ == "__main__":
    collected, *only = [word for word in sys.argv[1:] if not word.startswith("--")]
    for run, (options, outputs) in RUNS.items():
        wanted = [(name, *what) for name, *what in outputs if not only or f"{name}:{what[1]}" in only]
        if wanted and (Path(collected) / run / "curve.csv").exists():
            for each in wanted:
                bundle(Path(collected) / run, *each, options)
            shutil.copy(Path(collected) / run / "curve.csv", HERE / f"{run}.csv")
