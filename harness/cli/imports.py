"""`mopo-bench import`: curves of another code beside the runs made here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...common.errors import in_words, several
from ..runs.records import warnings
from .options import DEFAULT_RESULTS, Clip, DataSeed, Results, Rows, Window, console

File = Annotated[
    Path, typer.Argument(help="CSV: seed, step, and return or score (an expert's is 100); with episode, a row for each.")
]
Task = Annotated[str, typer.Option(help="The task that they learned.")]
Algorithm = Annotated[str, typer.Option(help="What to call it: a name that is not registered here.")]
Code = Annotated[str, typer.Option(help="What made them, and in which version.")]
Data = Annotated[str | None, typer.Option(help="What they were trained on: d4rl, d4rl-v2 or regenerated.")]
Dataset = Annotated[Path | None, typer.Option(help="In place of --data, the HDF5 file that they were trained on.")]
TaskSet = Annotated[list[str] | None, typer.Option(help="TASK.PARAMETER=VALUE, as in `run`; may be repeated.")]


def import_command(
    file: File,
    task: Task,
    algorithm: Algorithm,
    code: Code,
    data: Data = None,
    window: Window = "all",
    rows: Rows = None,
    data_seed: DataSeed = 0,
    dataset: Dataset = None,
    clip_actions: Clip = False,
    task_set: TaskSet = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Learning curves of another code, to stand beside the runs made here.

    Example: mopo-bench import curves.csv --task hopper-medium --algorithm cql-corl --code "CORL 1.0" --data d4rl --results runs
    """
    from ..runs.imports import import_runs

    runs = import_runs(
        file,
        task,
        algorithm,
        code,
        data=data,
        window=window,
        rows=rows,
        data_seed=data_seed,
        dataset=dataset,
        clip_actions=clip_actions,
        task_set=task_set,
        results=results,
    )
    facts = runs[0].cell["data"]
    for doubt in dict.fromkeys([*facts.get("doubts", ()), *(text for run in runs for text in warnings(run.record))]):
        console.print(f"{algorithm} on {facts['label']}: {doubt}", soft_wrap=True)
    steps = in_words(sorted({f"{run.steps:,}" for run in runs}))
    console.print(
        f"{algorithm} on {facts['label']}: {several(len(runs), 'seed')} to step {steps} in {results}; "
        f"`mopo-bench table scores --results {results}` shows them",
        soft_wrap=True,
    )
