"""`mopo-bench evaluate` and `export-policy`: what a trained policy is worth, and a file that holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...common.errors import UserError
from .options import DEFAULT_RESULTS, Json, Results, console

Algorithm = Annotated[str | None, typer.Option(help="The algorithm that trained it.")]
Seed = Annotated[int, typer.Option(help="The seed of the run.")]
Identity = Annotated[str, typer.Option(help="Which of several runs: the first letters of its folder's name.")]
Sampled = Annotated[bool, typer.Option("--sampled", help="Sample actions, as in training; deterministic by default.")]


def evaluate(
    task: Annotated[str | None, typer.Argument(help="The task that it was trained on.")] = None,
    algorithm: Algorithm = None,
    seed: Seed = 0,
    results: Results = DEFAULT_RESULTS,
    identity: Identity = "",
    policy: Annotated[Path | None, typer.Option(help="A file that export-policy wrote, instead of a run.")] = None,
    on: Annotated[str | None, typer.Option("--task", help="Another task to play, of the same sizes.")] = None,
    episodes: Annotated[int | None, typer.Option(help="How many; as many as the run's evaluation had, by default.")] = None,
    sampled: Sampled = False,
    as_json: Json = False,
) -> None:
    """Plays episodes of a trained policy, of a run's last checkpoint or of a file, and prints what they return.

    Example: mopo-bench evaluate hopper-medium --algorithm mopo --seed 0 --episodes 100
    """
    from ..runs.policies import evaluate as play

    found = play(chosen_policy(results, task, algorithm, seed, identity, policy), on, episodes, sampled)
    about: dict[str, Any] = {
        "task": found.task,
        **{f"trained_on_{key}": found.about[key] for key in ("task", "data")},
        **{key: found.about[key] for key in ("algorithm", "identity", "seed", "step")},
        "sampled": found.sampled,
        "episodes": len(found.returns),
        "return_mean": found.mean,
        "return_std": found.std,
        "score": found.score,
        "returns": found.returns,
    }
    if as_json:
        print(json.dumps(about, indent=1))
        return
    spread = "" if found.std is None else f" ± {found.std:,.1f}"
    score = "" if found.score is None else f", score {found.score:.1f}"
    how = "sampled" if found.sampled else "deterministic"
    who = f"{about['algorithm']} seed {about['seed']}, step {about['step']:,}, trained on {about['trained_on_data']}"
    console.print(f"{found.task}: return {found.mean:,.1f}{spread} over {len(found.returns)} episodes{score}", highlight=False)
    console.print(f"{who}, {how}", highlight=False, markup=False)


def export_policy(
    out: Annotated[Path, typer.Option(help="The file to write: .npz (numpy), .pt2 (torch) or .onnx.")],
    task: Annotated[str, typer.Argument(help="The task that it was trained on.")],
    algorithm: Annotated[str, typer.Option(help="The algorithm that trained it.")],
    seed: Seed = 0,
    results: Results = DEFAULT_RESULTS,
    identity: Identity = "",
    sampled: Annotated[bool, typer.Option("--sampled", help="Of .pt2 and .onnx: sample, from noise given beside.")] = False,
) -> None:
    """Writes the policy of a run's last checkpoint to a file that is read without this package: see docs/python.md.

    Example: mopo-bench export-policy hopper-medium --algorithm mopo --seed 0 --out hopper.npz
    """
    chosen_policy(results, task, algorithm, seed, identity, None).save(out, sampled)
    console.print(f"{out}", highlight=False, markup=False)


def chosen_policy(results: Path, task: str | None, algorithm: str | None, seed: int, identity: str, file: Path | None) -> Any:
    """The policy of a run, or that of a file. Raises UserError where both are named, or neither."""
    from ..runs.policies import load_policy, read_policy

    if file is not None:
        if task is not None or algorithm is not None:
            raise UserError(
                f"--policy {file} holds a policy already: leave out task and --algorithm (--task names another task)"
            )
        return read_policy(file)
    if task is None or algorithm is None:
        raise UserError("name the task and the --algorithm of a run, or a --policy file")
    return load_policy(results, task, algorithm, seed, identity)
