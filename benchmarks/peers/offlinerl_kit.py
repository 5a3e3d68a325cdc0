"""MOPO of OfflineRL-Kit on a dataset of ours: python benchmarks/peers/offlinerl_kit.py CLONE TASK [--seed N] [--steps N]

CLONE is a clone of github.com/yihaosun1124/OfflineRL-Kit, whose dynamics, rollouts, penalty and SAC are run as they are, on the
dataset that this package has for TASK, with the lengths and coefficients of its MOPO, and evaluated as its runs are: from the
same starts, every 1,000 steps. `--rates authors` takes 3e-4 for the actor and the temperature, as MOPO's authors and this
package do; `own` the peer's 1e-4.

offlinerl_kit.csv beside this file (or `--csv FILE`) gets a row per evaluation, and offlinerl_kit.md is made of its rows and of
this package's published runs of the same dataset, seed, steps and reductions.

Needs `tqdm` beside this package. Of Gym, which it imports, nothing is used; Gymnasium stands in.
"""

from __future__ import annotations

import argparse
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
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.machine import prepare_process
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import OfflineProblem

PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "table1-short"
RATES = {"authors": 3e-4, "own": 1e-4}
USED = {
    "buffer": ("ReplayBuffer",),
    "dynamics": ("EnsembleDynamics",),
    "modules": ("ActorProb", "Critic", "EnsembleDynamicsModel", "TanhDiagGaussian"),
    "nets": ("MLP",),
    "policy": ("MOPOPolicy",),
    "utils.scaler": ("StandardScaler",),
}
KEY = ["task", "digest", "rates", "seed", "step", "max_epochs", "rollout_states"]


def rows_of(dataset: OfflineDataset) -> dict[str, np.ndarray]:
    """The dataset in the peer's layout; its rows must all have their successors."""
    assert dataset.valid_next.all()
    names = ("observations", "actions", "next_observations", "rewards", "terminals")
    return {name: getattr(dataset, name) for name in names}


def make(kit: SimpleNamespace, problem: OfflineProblem, coefficient: float, rate: float, dynamics: Any) -> Any:
    """The peer's policy with its networks, at its defaults but for the two rates."""
    actor_body = kit.MLP(input_dim=problem.observation_size, hidden_dims=[256, 256])
    law = kit.TanhDiagGaussian(actor_body.output_dim, problem.action_size, unbounded=True, conditioned_sigma=True, max_mu=1.0)
    actor = kit.ActorProb(actor_body, law, "cpu")
    width = problem.observation_size + problem.action_size
    critics = [kit.Critic(kit.MLP(input_dim=width, hidden_dims=[256, 256]), "cpu") for _ in range(2)]
    log_temperature = torch.zeros(1, requires_grad=True)
    return kit.MOPOPolicy(
        dynamics,
        actor,
        *critics,
        torch.optim.Adam(actor.parameters(), lr=rate),
        *(torch.optim.Adam(critic.parameters(), lr=3e-4) for critic in critics),
        tau=0.005,
        gamma=problem.discount,
        alpha=(-float(problem.action_size), log_temperature, torch.optim.Adam([log_temperature], lr=rate)),
    )


def fitted(kit: SimpleNamespace, problem: OfflineProblem, rows: dict[str, np.ndarray], settings: Any, epochs: int) -> Any:
    """The peer's ensemble, fitted to the rows."""
    model = kit.EnsembleDynamicsModel(
        obs_dim=problem.observation_size,
        action_dim=problem.action_size,
        hidden_dims=[200, 200, 200, 200],
        num_ensemble=7,
        num_elites=5,
        weight_decays=[2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4],
        device="cpu",
    )

    def ended(states: np.ndarray, actions: np.ndarray, successors: np.ndarray) -> np.ndarray:
        return problem.termination(*(torch.as_tensor(each) for each in (states, actions, successors))).numpy()[:, None]

    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    dynamics = kit.EnsembleDynamics(model, adam, kit.StandardScaler(), ended, penalty_coef=settings["penalty_coefficient"])
    with tempfile.TemporaryDirectory() as folder:
        losses: dict[str, float] = {}
        nothing = lambda *_, **__: None  # noqa: E731 - a logger that writes nothing
        log = SimpleNamespace(
            log=lambda text: print(text, losses, flush=True), logkv=losses.__setitem__, set_timestep=nothing, dumpkvs=nothing
        )
        dynamics.train(rows | {"rewards": rows["rewards"][:, None]}, SimpleNamespace(**vars(log), model_dir=folder), epochs)
    return dynamics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("task")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--max-epochs", type=int, default=100, help="of the fit, as in this package's short suites")
    parser.add_argument("--rollout-states", type=int, default=10_000, help="as in this package's short suites")
    parser.add_argument("--rates", choices=RATES, default="authors")
    options = parser.parse_args()
    prepare_process()
    kit = imported(options.clone)
    np.random.seed(options.seed)  # what the peer draws from
    torch.manual_seed(options.seed)

    task, algorithm = get_task(options.task), get_algorithm("mopo")
    settings = algorithm.configure(task_settings(algorithm, options.task))
    dataset = load_dataset(task, DatasetRequest("regenerated"))
    problem, rows = task.offline_problem(dataset), rows_of(dataset)
    states, length = options.rollout_states, settings["rollout_length"]
    dynamics = fitted(kit, problem, rows, settings, options.max_epochs)
    policy = make(kit, problem, settings["penalty_coefficient"], RATES[options.rates], dynamics)
    shapes = ((problem.observation_size,), np.float32, problem.action_size, np.float32, "cpu")
    real = kit.ReplayBuffer(len(dataset), *shapes)
    real.load_dataset(rows)
    imagined = kit.ReplayBuffer(5 * length * states, *shapes)
    evaluator = Evaluator(task)
    for step in range(options.steps):
        if step % 1_000 == 0:
            imagined.add_batch(**policy.rollout(real.sample(states)["observations"].numpy(), length)[0])
        policy.learn({"real": real.sample(12), "fake": imagined.sample(244)})
        if (done := step + 1) % 1_000 == 0:
            starts = reset_seeds(options.seed, done, task.evaluation.episodes)
            returns = evaluator.returns(lambda seen: policy.select_action(seen[0], deterministic=True)[None], [starts])[0]
            row = {
                "task": options.task,
                "digest": dataset.digest()[:12],
                "rates": options.rates,
                "seed": options.seed,
                "step": done,
                "max_epochs": options.max_epochs,
                "rollout_states": states,
                "penalty_coefficient": settings["penalty_coefficient"],
                "rollout_length": length,
                "return_mean": round(float(returns.mean()), 2),
                "temperature": round(float(policy._alpha), 4),
            }
            print(row, flush=True)
            write(options.csv, row)
    write_table(options.csv)


def imported(clone: Path) -> SimpleNamespace:
    """What is used of the peer. Its modules import `gym`, for which Gymnasium stands in."""
    sys.modules |= {"gym": gymnasium, "gym.envs": gymnasium.envs, "gym.envs.mujoco": mujoco}
    sys.path.insert(0, str(clone))
    modules = {name: import_module(f"offlinerlkit.{module}") for module, names in USED.items() for name in names}
    return SimpleNamespace(**{name: getattr(module, name) for name, module in modules.items()})


def write(path: Path, row: dict[str, Any]) -> None:
    """Adds the row to the file, in place of one of the same run and step."""
    table = pd.DataFrame([row])
    if path.exists():
        table = pd.concat([pd.read_csv(path, dtype={"digest": str}), table])
    table.drop_duplicates(KEY, keep="last").to_csv(path, index=False)


def write_table(path: Path) -> None:
    """The peer's runs in the file, each beside this package's published run of the same, as Markdown beside the file."""
    ours = {}
    for run in load_runs(PUBLISHED):
        changed, data = run.cell["overrides"], run.cell["data"]["digest"][:12]
        if run.algorithm == "mopo" and changed.keys() == {"dynamics.max_epochs", "rollout_states"}:
            ours[run.task, data, run.seed, changed["dynamics.max_epochs"], changed["rollout_states"]] = run.evaluations
    lines = [
        "# MOPO beside OfflineRL-Kit",
        "",
        "| Task | Seed | Steps | Rates | mopo-bench, last | OfflineRL-Kit, last | mopo-bench, mean10 | OfflineRL-Kit, mean10 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    table = pd.read_csv(path, dtype={"digest": str})
    for (task, digest, rates, seed, epochs, states), rows in table.groupby([name for name in KEY if name != "step"]):
        evaluations = ours.get((task, digest, seed, epochs, states), [])
        both = ({row["step"]: row["return_mean"] for row in evaluations}, dict(zip(rows.step, rows.return_mean, strict=True)))
        last = rows.step.max()
        scores = [
            [
                get_task(task).references.score(np.mean([returns[step] for step in steps])) if last in returns else None
                for returns in both
            ]
            for steps in ([last], range(last - 9_000, last + 1, 1_000))
        ]
        shown = ["–" if score is None else f"{score:.1f}" for pair in scores for score in pair]
        lines.append(f"| {task} | {seed} | {last:,} | {rates} | {' | '.join(shown)} |")
    lines += [
        "",
        "- Scores of the last evaluation, and the mean of the last ten; ten episodes each, from the same starts.",
        "- Both: the same dataset, rollout length and coefficient, fits of at most 100 epochs, 10 000 rollout states. Each",
        "  has its own fit, first weights, batches and noise, so that single seeds differ.",
        "- Rates of the peer's actor and temperature: `authors`, 3e-4, as MOPO's authors and this package; `own`, its 1e-4.",
        "- Made by `python benchmarks/peers/offlinerl_kit.py`, and the runs of `results/published/table1-short`.",
        "",
    ]
    path.with_suffix(".md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
