"""What the regression check catches: known defects, seeded one at a time into a run of the suite `ci`, and what the check says.

    python results/check/defects.py --baseline results/baseline.csv --work runs/defects --jobs 2
    python results/check/defects.py --baseline results/baseline.csv --work runs/defects --defects elites-worst,target-frozen
    python results/check/defects.py --list

A defect is a patch of this process, none of it is in the package. Each is run in a process of its own, in a folder of its own
under --work, where what was stopped resumes and what is done is not run again. `none` is the control: nothing is patched, and
the check must pass. What is checked is the whole grid, as in CI: the cells that a defect is not in are the control's. The table
says for each defect what the check said and which numbers told.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mopo_bench
import numpy as np
import torch
from mopo_bench.algorithms import bear, brac, mopo, sac
from mopo_bench.algorithms.learning import dynamics, learner, networks, penalties, replay, rollouts
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.common.errors import UserError
from mopo_bench.common.streams import torch_stream
from mopo_bench.harness.check import recorded
from mopo_bench.harness.check.baseline import load_baseline
from mopo_bench.harness.runs import cell, evaluation, fits
from mopo_bench.harness.runs.records import write_text
from mopo_bench.harness.runs.request import RunRequest, get_suite
from mopo_bench.tasks.registry import all_tasks

HERE = Path(__file__).parent
MODEL_BASED, CRITICS = ("mopo", "mbpo"), ("mopo", "sac")


@dataclass(frozen=True)
class Defect:
    """What is wrong, the algorithms that it is in, and how it is put there.

    own_fits: whether it changes what is fitted. own_runs: whether it changes runs, and not only what is read from them.
    """

    meaning: str
    algorithms: tuple[str, ...]
    patch: Callable[[], None]
    own_fits: bool = False
    own_runs: bool = True


DEFECTS: dict[str, Defect] = {}


def defect(name: str, meaning: str, algorithms: Iterable[str], **facts: bool) -> Callable[..., Any]:
    """Registers a patch under its name."""

    def register(patch: Callable[[], None]) -> Callable[[], None]:
        DEFECTS[name] = Defect(meaning, tuple(algorithms), patch, **facts)
        return patch

    return register


@defect("none", "no defect: the control", ("mopo", "mbpo", "sac", "bear", "brac-v", "brac-p", "bc"))
def nothing() -> None:
    """Patches nothing."""


@defect("penalty-sign", "penalty sign flipped", ("mopo",))
def penalty_sign() -> None:
    right = mopo.PenalisedRollouts.label

    def label(self: Any, prediction: Any) -> Any:
        rewards, terminals = right(self, prediction)
        raw = prediction.rewards if self.config.penalised_reward == "sampled" else prediction.mean_rewards
        return 2 * raw - rewards, terminals

    mopo.PenalisedRollouts.label = label


@defect("penalty-lost", "lambda lost", ("mopo",))
def penalty_lost() -> None:
    mopo.PenalisedRollouts.label = rollouts.ModelRollouts.label


@defect("termination-ignored", "termination ignored in model rollouts", MODEL_BASED)
def termination_ignored() -> None:
    right = dynamics.Dynamics.sample

    def sample(self: Any, *arguments: Any) -> Any:
        found = right(self, *arguments)
        return found._replace(terminals=torch.zeros_like(found.terminals))

    dynamics.Dynamics.sample = sample


def with_dataset(change: Callable[[Any], dict[str, Any]]) -> None:
    """Has every learner and fit see a dataset with changed arrays; its identity stays."""
    right = cell.load_problem

    def load_problem(asked: Any) -> Any:
        problem = right(asked)
        dataset = problem.dataset
        names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")
        arrays = {name: np.array(getattr(dataset, name)) for name in names} | change(dataset)
        return replace(problem, dataset=type(dataset)(**arrays, provenance=dataset.provenance))

    cell.load_problem = fits.load_problem = load_problem


@defect("reward-shifted", "reward shifted by a step", ("mopo", "sac"), own_fits=True)
def reward_shifted() -> None:
    with_dataset(lambda dataset: {"rewards": np.roll(dataset.rewards, 1)})


@defect("no-target-network", "no target network", CRITICS)
def no_target_network() -> None:
    right = learner.Learner.follow
    learner.Learner.follow = lambda self, slow, network, tau: right(self, slow, network, 1.0)


@defect("target-frozen", "target network frozen", CRITICS)
def target_frozen() -> None:
    learner.Learner.follow = lambda self, slow, network, tau: None


@defect("elites-worst", "elites the worst networks", MODEL_BASED, own_fits=True)
def elites_worst() -> None:
    right = dynamics.Dynamics.fit.__func__

    def fit(kind: Any, problem: Any, config: Any, seed: int, **options: Any) -> Any:
        state, record = right(kind, problem, config, seed, **options)
        errors = torch.tensor(record["holdout_error"])
        worst = errors.argsort(descending=True)[: config.elites]
        record |= {"elites": worst.tolist(), "elite_error_ratio": dynamics.elite_error_ratio(errors, worst)}
        return state | {"elites": worst.to(state["elites"].device)}, record

    dynamics.Dynamics.fit = classmethod(fit)


@defect("penalty-one-network", "penalty from one network only", ("mopo",))
def penalty_one_network() -> None:
    def of_one(right: Callable[..., Any]) -> Callable[..., Any]:
        return lambda prediction: right(prediction._replace(means=prediction.means[:, :1], stds=prediction.stds[:, :1]))

    penalties.PENALTIES.update({name: of_one(right) for name, right in penalties.PENALTIES.items()})


@defect("log-deviation", "standard deviation left in log space", MODEL_BASED)
def log_deviation() -> None:
    def left(right: Callable[..., Any]) -> Callable[..., Any]:
        def predict(self: Any, *arguments: Any) -> Any:
            mean, std = right(self, *arguments)
            return mean, std.log()

        return predict

    dynamics.Dynamics.predict = left(dynamics.Dynamics.predict)
    dynamics.Dynamics._predict_chosen = left(dynamics.Dynamics._predict_chosen)


@defect("done-inverted", "done mask inverted", CRITICS)
def done_inverted() -> None:
    right = replay.Layout.batch

    def batch(self: Any, rows: Any) -> Any:
        found = right(self, rows)
        return found._replace(alive=1 - found.alive)

    replay.Layout.batch = batch


def with_config(kind: type, **changes: Any) -> None:
    """Has a part ignore settings: it works with others than its record says."""
    right = kind.build

    def build(self: Any) -> None:
        self.config = replace(self.config, **changes)
        right(self)

    kind.build = build


@defect("real-fraction-0", "no rows of the dataset in batches", MODEL_BASED)
def real_fraction_0() -> None:
    with_config(rollouts.ModelRollouts, real_fraction=0.0)


@defect("initial-states-only", "rollouts from initial states only", MODEL_BASED)
def initial_states_only() -> None:
    right = rollouts.ModelRollouts._chunks

    def chunks(self: Any, step: int) -> Any:
        dataset, usable = self.problem.dataset, self.usable
        first = np.flatnonzero(np.concatenate(([True], (dataset.terminals | dataset.timeouts)[:-1])))
        self.usable = torch.from_numpy(first)
        made = list(right(self, step))
        self.usable = usable
        return made

    rollouts.ModelRollouts._chunks = chunks


@defect("entropy-target-sign", "entropy target of the wrong sign", CRITICS)
def entropy_target_sign() -> None:
    right = sac.SAC.build

    def build(self: Any) -> None:
        right(self)
        self.target_entropy = -self.target_entropy

    sac.SAC.build = build


@defect("no-tanh-correction", "log-probability without the tanh correction", CRITICS)
def no_tanh_correction() -> None:
    networks.log_tanh_slope = torch.zeros_like


@defect("bear-threshold", "BEAR's threshold ignored", ("bear",))
def bear_threshold() -> None:
    with_config(bear.BEAR, threshold=0.0)


@defect("brac-divergence", "BRAC's divergence negated", ("brac-v", "brac-p"))
def brac_divergence() -> None:
    right = brac.BRAC._divergence
    brac.BRAC._divergence = lambda self, *arguments: -right(self, *arguments)


@defect("bc-actions", "BC trained on shifted actions", ("bc",))
def bc_actions() -> None:
    with_dataset(lambda dataset: {"actions": np.roll(dataset.actions, 1, axis=0)})


@defect("sampled-evaluation", "evaluation with sampled actions", ("mopo", "bc", "sac"))
def sampled_evaluation() -> None:
    def acting(of: Any) -> Any:
        streams = [torch_stream(seed, "defect") for seed in of.seeds]

        def act(observations: np.ndarray) -> np.ndarray:
            seen = torch.as_tensor(observations).to(of.device, of.dtype)
            size = (seen.shape[1], of.problem.action_size)
            noise = torch.stack([torch.randn(size, generator=stream) for stream in streams]).to(of.device, of.dtype)
            return np.nan_to_num(of.act(seen, noise).float().cpu().numpy())

        return act

    evaluation.acting = acting


@defect("wrong-references", "score normalised with the wrong task", DEFECTS["none"].algorithms, own_runs=False)
def wrong_references() -> None:
    """Of every task with scores, those of the next one whose references are others."""
    right = recorded.score_of
    scored = [task for task in all_tasks().values() if task.references]

    def score_of(task: str, value: float) -> float | None:
        if right(task, value) is None:
            return None
        return next(other.references.score(value) for other in scored if other.references != all_tasks()[task].references)

    recorded.score_of = score_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the defects and stop")
    parser.add_argument("--baseline", type=Path, help="a baseline file, or a folder of run records")
    parser.add_argument("--work", type=Path, default=Path("runs/defects"), help="where the runs are kept")
    parser.add_argument("--defects", default=",".join(DEFECTS), help="names, all by default")
    parser.add_argument("--suite", default="ci")
    parser.add_argument("--tasks", help="the suite's by default")
    parser.add_argument("--algorithms", help="only these of a defect's algorithms")
    parser.add_argument("--seeds", default="100-104")
    parser.add_argument("--steps", help="the suite's by default")
    parser.add_argument("--episodes", type=int, help="of an evaluation, the task's by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as of `mopo-bench run`")
    parser.add_argument("--jobs", type=int, default=1, help="defects at work at the same time")
    parser.add_argument("--out", type=Path, help="the table as Markdown; WORK/defects.md by default")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the one that this process is patched with
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{name}: {each.meaning} ({', '.join(each.algorithms)})" for name, each in DEFECTS.items()))
        return
    if asked.baseline is None:
        parser.error("--baseline is needed: a baseline file, or a folder of run records")
    try:
        if asked.only:
            run_one(asked.only, asked)
        else:
            run_all(asked)
    except UserError as error:
        sys.exit(str(error))


def run_one(name: str, asked: argparse.Namespace) -> None:
    """Patches this process, runs what is missing of the defect's cells, and keeps what the check says."""
    chosen, folder = DEFECTS[name], asked.work / name
    algorithms = algorithms_of(chosen, asked)
    tasks = tuple(asked.tasks.split(",") if asked.tasks else get_suite(asked.suite)["tasks"])
    clean = asked.work / "none" / "stages"
    if not chosen.own_fits and name != "none" and clean.is_dir() and not (folder / "stages").exists():
        shutil.copytree(clean, folder / "stages", ignore=shutil.ignore_patterns("*.lock", "*.part*"))
    chosen.patch()
    options: dict[str, Any] = {"suite": asked.suite, "tasks": tasks, "algorithms": algorithms, "seeds": asked.seeds}
    known = {f"all.{key}" for each in algorithms for key in get_algorithm(each).defaults()}
    # what is said of all is said of those that have it
    options["settings"] = [each for each in asked.set if not each.startswith("all.") or each.partition("=")[0] in known]
    results = folder if chosen.own_runs else asked.work / "none"
    options |= {name: value for name in ("steps", "episodes") if (value := getattr(asked, name)) is not None}
    mopo_bench.run(jobs=1, results=results, **options)
    whole = whole_grid(results, asked.work / "none", folder / "whole", algorithms)
    seeds = RunRequest.of(tasks=tasks, algorithms=algorithms, seeds=asked.seeds).seeds
    known = [each.name for each in load_baseline(asked.baseline) if each.name.task in tasks]
    gated = tuple(dict.fromkeys(each.algorithm for each in known))
    report = mopo_bench.check(whole, asked.baseline, tasks=tasks, algorithms=gated, seeds=len(seeds))
    write_text(folder / "report.json", json.dumps(report.as_dict(), indent=1))


def whole_grid(defective: Path, control: Path, whole: Path, algorithms: tuple[str, ...]) -> Path:
    """A folder with the records of these algorithms from one folder and those of all others from the control's."""
    shutil.rmtree(whole, ignore_errors=True)
    for source, wanted in ((defective, True), (control, False)):
        for record in sorted(source.glob("*/*/*/seed-*/record.json")):
            cell = record.parents[1]
            if (cell.parent.name in algorithms) == wanted:
                (whole / record.parent.relative_to(source)).mkdir(parents=True)
                for file in (record, cell / "cell.json"):
                    shutil.copyfile(file, whole / file.relative_to(source))
    return whole


def algorithms_of(chosen: Defect, asked: argparse.Namespace) -> tuple[str, ...]:
    only = asked.algorithms.split(",") if asked.algorithms else chosen.algorithms
    return tuple(each for each in chosen.algorithms if each in only)


def run_all(asked: argparse.Namespace) -> None:
    """Runs each defect that has no report yet in a process of its own, the control first, and writes the table."""
    names = [name for name in asked.defects.split(",") if name]
    if unknown := [name for name in names if name not in DEFECTS]:
        raise UserError(f"unknown defect {unknown[0]!r}: --list shows all")
    names = [name for name in names if algorithms_of(DEFECTS[name], asked)]
    control = [name for name in names if name == "none"]
    with ThreadPoolExecutor(asked.jobs) as pool:
        for group in (control, [name for name in names if name != "none"]):  # the control's fits serve the others
            list(pool.map(lambda name: in_its_own_process(name, asked), group))
            write_table(asked, names)
    print((asked.out or asked.work / "defects.md").read_text(), end="")


def in_its_own_process(name: str, asked: argparse.Namespace) -> None:
    if (asked.work / name / "report.json").exists():
        return
    words = [word for word in sys.argv[1:] if word]
    done = subprocess.run([sys.executable, __file__, *words, "--only", name], capture_output=True, text=True)
    print(f"{name}: {'checked' if done.returncode == 0 else done.stderr.strip().splitlines()[-1]}", flush=True)


def write_table(asked: argparse.Namespace, names: list[str]) -> None:
    """What the check said of each defect that is done."""
    lines = [
        "# Seeded defects and what the regression check says of them",
        "",
        f"Made by `{' '.join(['python', 'results/check/defects.py', *sys.argv[1:]])}`.",
        "",
        "| defect | cells | caught | by (lowest p first) |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        path = asked.work / name / "report.json"
        if path.exists():
            lines.append(table_line(name, json.loads(path.read_text()), algorithms_of(DEFECTS[name], asked)))
    text = "\n".join(lines) + "\n"
    write_text(asked.out or asked.work / "defects.md", text)


def table_line(name: str, report: dict[str, Any], touched: tuple[str, ...]) -> str:
    told = sorted(
        (found["adjusted"], f"{each['algorithm']} {found['quantity']} {found['mean']:.3g} to {found['new_mean']:.3g}")
        for each in report["cells"]
        for found in each["findings"]
        if found["verdict"] == "regression"
    )
    reasons = [f"{each['algorithm']} undecided: {each['reasons'][0]}" for each in report["cells"] if each["reasons"]]
    caught = {"regression": "yes", "undecided": "undecided", "pass": "no"}[report["verdict"]]
    cells = ", ".join(f"{each['task']} {each['algorithm']}" for each in report["cells"] if each["algorithm"] in touched)
    by = "; ".join([*(what for _, what in told[:6]), *reasons]) or "nothing"
    return f"| {DEFECTS[name].meaning} | {cells} | {caught} | {by.replace('|', '/')} |"


if __name__ == "__main__":
    main()
