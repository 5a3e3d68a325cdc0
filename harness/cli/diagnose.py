"""`mopo-bench diagnose`: what a trained run's model knows of its own errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..report.paper import REFERENCE
from .options import DEFAULT_RESULTS, Json, Results, console
from .policies import Identity, Seed


def diagnose(
    task: Annotated[str, typer.Argument(help="The task that it was trained on.")],
    algorithm: Annotated[str, typer.Option(help="The algorithm that trained it, one with a dynamics model.")] = REFERENCE,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the numbers, the table, the points and the picture.")] = None,
    results: Results = DEFAULT_RESULTS,
    identity: Identity = "",
    dataset: Annotated[Path | None, typer.Option(help="The file that it learned from, if that was moved.")] = None,
    rows: Annotated[int, typer.Option(help="States of the dataset to look at, and to start rollouts from.")] = 1_000,
    length: Annotated[int | None, typer.Option(help="Steps of a rollout; the run's own by default.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of the policy in the real environment.")] = 5,
    as_json: Json = False,
) -> None:
    """Measures u(s, a) of a trained run against the true error of its model, by setting the simulator to each state.

    Example: mopo-bench diagnose point-edge --algorithm mopo --seed 0 --out diagnosis
    """
    from ..diagnosis.diagnosing import diagnose as measure

    found = measure(task, algorithm, seed, results, out, identity, dataset, rows, length, episodes)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    console.print(found.table().to_rich())
    if out is not None:
        console.print(f"{out}: diagnosis.json, .md, .csv and .png", highlight=False, markup=False)
