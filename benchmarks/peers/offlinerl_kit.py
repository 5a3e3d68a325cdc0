"""MOPO of OfflineRL-Kit on a dataset of ours: python benchmarks/peers/offlinerl_kit.py CLONE TASK [--seed N] [--steps N]

CLONE is a clone of github.com/yihaosun1124/OfflineRL-Kit, whose dynamics, rollouts, penalty and SAC are run as they are, with
the hyperparameters of MOPO's authors, which are this package's, too. (The peer's own are 1e-4 for actor and temperature, a
target entropy of minus the number of action dimensions, and a rate of the actor that falls over three million steps.) What
stays the peer's own: the policy's log standard deviation is at least -5, where ours may be -20, the temperature at most 1, and
first weights and Adam are PyTorch's.

Dataset, rollout length, coefficient, longest fit and number of rollout states are those of the suite `table1-short`.
Evaluations are made as in its runs, every 1,000 steps from the same starts.

offlinerl_kit.csv beside this file (or `--csv FILE`) gets a row per evaluation, and offlinerl_kit.md is made of its rows and of
the published runs on the same dataset with the same seed.

Needs `tqdm` beside this package. Of Gym, which it imports, nothing is used; Gymnasium stands in.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import torch
from gymnasium.envs import mujoco
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.harness.report.statistics import aggregate
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.machine import prepare_process
from mopo_bench.harness.runs.request import get_suite
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import OfflineProblem

SUITE = "table1-short"
PUBLISHED = [Path(__file__).parents[2] / "results" / "published" / name for name in (SUITE, "hopper-medium-why")]
SHORT = {name: get_suite(SUITE)["settings"][name] for name in ("rollout_states", "dynamics.max_epochs")}
INTERVAL = 1_000  # steps between evaluations
USED = {
    "buffer": ("ReplayBuffer",),
    "dynamics": ("EnsembleDynamics",),
    "modules": ("ActorProb", "Critic", "EnsembleDynamicsModel", "TanhDiagGaussian"),
    "nets": ("MLP",),
    "policy": ("MOPOPolicy",),
    "utils.scaler": ("StandardScaler",),
}


def imported(clone: Path) -> SimpleNamespace:
    """What is used of the peer. Its modules import `gym`, for which Gymnasium stands in."""
    sys.modules |= {"gym": gymnasium, "gym.envs": gymnasium.envs, "gym.envs.mujoco": mujoco}
    sys.path.insert(0, str(clone))
    modules = {name: import_module(f"offlinerlkit.{module}") for module, names in USED.items() for name in names}
    return SimpleNamespace(**{name: getattr(module, name) for name, module in modules.items()})


def rows_of(dataset: OfflineDataset) -> dict[str, np.ndarray]:
    """The dataset in the peer's layout."""
    if not dataset.valid_next.all():
        sys.exit("the peer's layout has a successor for every row, and this dataset does not")
    names = ("observations", "actions", "next_observations", "rewards", "terminals")
    return {name: getattr(dataset, name) for name in names}


def make_policy(kit: SimpleNamespace, problem: OfflineProblem, settings: dict[str, Any], dynamics: Any) -> Any:
    """The peer's policy with its networks."""
    body = kit.MLP(input_dim=problem.observation_size, hidden_dims=list(settings["hidden"]))
    distribution = kit.TanhDiagGaussian(
        body.output_dim, problem.action_size, unbounded=True, conditioned_sigma=True, max_mu=1.0
    )
    actor = kit.ActorProb(body, distribution, "cpu")
    width = problem.observation_size + problem.action_size
    critics = [kit.Critic(kit.MLP(input_dim=width, hidden_dims=list(settings["hidden"])), "cpu") for _ in range(2)]
    log_temperature = torch.zeros(1, requires_grad=True)
    temperature_adam = torch.optim.Adam([log_temperature], lr=settings["temperature_learning_rate"])
    return kit.MOPOPolicy(
        dynamics,
        actor,
        *critics,
        torch.optim.Adam(actor.parameters(), lr=settings["actor_learning_rate"]),
        *(torch.optim.Adam(critic.parameters(), lr=settings["critic_learning_rate"]) for critic in critics),
        tau=settings["tau"],
        gamma=problem.discount,
        alpha=(settings["target_entropy"], log_temperature, temperature_adam),
    )


def fit_dynamics(kit: SimpleNamespace, problem: OfflineProblem, settings: dict[str, Any], rows: dict[str, np.ndarray]) -> Any:
    """The peer's ensemble, fitted to the rows."""
    model = kit.EnsembleDynamicsModel(
        obs_dim=problem.observation_size,
        action_dim=problem.action_size,
        hidden_dims=list(settings["dynamics.hidden"]),
        num_ensemble=settings["dynamics.networks"],
        num_elites=settings["dynamics.elites"],
        weight_decays=list(settings["dynamics.weight_decays"]),
        device="cpu",
    )

    def ended(states: np.ndarray, actions: np.ndarray, successors: np.ndarray) -> np.ndarray:
        return problem.termination(*(torch.as_tensor(each) for each in (states, actions, successors))).numpy()[:, None]

    adam, coefficient = (
        torch.optim.Adam(model.parameters(), lr=settings["dynamics.learning_rate"]),
        settings["penalty_coefficient"],
    )
    dynamics = kit.EnsembleDynamics(model, adam, kit.StandardScaler(), ended, penalty_coef=coefficient)
    with tempfile.TemporaryDirectory() as folder:  # for the weights, which the fit writes
        unheard = dict.fromkeys(("logkv", "set_timestep", "dumpkvs"), lambda *_, **__: None)
        log = SimpleNamespace(log=lambda text: print(text, flush=True), model_dir=folder, **unheard)
        dynamics.train(rows | {"rewards": rows["rewards"][:, None]}, log, settings["dynamics.max_epochs"])
    return dynamics


def commit_of(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("task")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    options = parser.parse_args()
    prepare_process()
    kit, task, algorithm = imported(options.clone), get_task(options.task), get_algorithm("mopo")
    if task.references is None or options.steps < INTERVAL:
        sys.exit(f"{task.name}, {options.steps} steps: name a task of Table 1, and at least {INTERVAL:,} steps")
    np.random.seed(options.seed)  # what the peer draws from
    torch.manual_seed(options.seed)

    settings = algorithm.configure(task_settings(algorithm, options.task), SHORT)
    dataset = load_dataset(task, DatasetRequest("regenerated"))
    problem, states, length = task.offline_problem(dataset), settings["rollout_states"], settings["rollout_length"]
    rows = rows_of(problem.dataset)
    policy = make_policy(kit, problem, settings, fit_dynamics(kit, problem, settings, rows))
    shapes = ((problem.observation_size,), np.float32, problem.action_size, np.float32, "cpu")
    real = kit.ReplayBuffer(len(dataset), *shapes)
    imagined = kit.ReplayBuffer(settings["retained_rollouts"] * length * states, *shapes)
    real.load_dataset(rows)
    batch = settings["batch_size"]
    real_rows = int(settings["real_fraction"] * batch)
    run = {"task": task.name, "digest": dataset.digest()[:12], "seed": options.seed, "peer": commit_of(options.clone)}
    evaluator, found = Evaluator(task), []
    for step in range(options.steps):
        if step % settings["rollout_every"] == 0:
            imagined.add_batch(**policy.rollout(real.sample(states)["observations"].numpy(), length)[0])
        policy.learn({"real": real.sample(real_rows), "fake": imagined.sample(batch - real_rows)})
        if (done := step + 1) % INTERVAL == 0:
            starts = reset_seeds(options.seed, done, task.evaluation.episodes)
            returns = evaluator.returns(lambda seen: policy.select_action(seen[0], deterministic=True)[None], [starts])[0]
            found.append(run | {"step": done, "return_mean": round(float(returns.mean()), 2)})
            print(found[-1], flush=True)
    earlier = [pd.read_csv(options.csv, dtype=str)] if options.csv.exists() else []
    together = pd.concat([*earlier, pd.DataFrame(found).astype(str)])
    together.drop_duplicates(["task", "digest", "seed", "peer", "step"], keep="last").to_csv(options.csv, index=False)
    write_table(options.csv)


def write_table(path: Path) -> None:
    """The peer's runs in the file, each beside this package's published run of the same, as Markdown beside the file."""
    ours = {
        (run.task, run.cell["data"]["digest"][:12], run.seed): run.evaluations
        for folder in PUBLISHED
        for run in load_runs(folder)
        if run.algorithm == "mopo" and run.cell["overrides"] == SHORT
    }
    lines = [
        "# MOPO beside OfflineRL-Kit",
        "",
        "| Task | Seed | Steps | mopo-bench, last | OfflineRL-Kit, last | mopo-bench, mean10 | OfflineRL-Kit, mean10 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    table = pd.read_csv(path, dtype={"digest": str, "peer": str})
    for (task, digest, seed), rows in table.groupby(["task", "digest", "seed"]):
        last, score = rows["step"].max(), get_task(task).references.score
        both = ([row for row in ours.get((task, digest, seed), []) if row["step"] <= last], rows.to_dict("records"))
        shown = [
            f"{score(aggregate(evaluations, metric)):.1f}" if evaluations else "–"
            for metric in ("last", "mean10")
            for evaluations in both
        ]
        lines.append(f"| {task} | {seed} | {last:,} | {' | '.join(shown)} |")
    lines += [
        "",
        "- Scores of the last evaluation, and mean10, the mean of the last ten; the same starts for both. –: no such run.",
        "- Both have the same dataset, hyperparameters, rollout length and coefficient, fits of at most "
        f"{SHORT['dynamics.max_epochs']} epochs, and {SHORT['rollout_states']:,} rollout states.",
        "- Each has its own fit, first weights, batches and noise: a single seed of one is no pair of the other's.",
        "- The peer bounds its policy's log standard deviation at -5 (here -20), its temperature at 1, and has PyTorch's Adam.",
        f"- OfflineRL-Kit at {', '.join(sorted(set(table['peer'])))}.",
        "- Made by `python benchmarks/peers/offlinerl_kit.py`, and from the runs of "
        f"{' and '.join(f'`results/published/{folder.name}`' for folder in PUBLISHED)}.",
        "",
    ]
    path.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
