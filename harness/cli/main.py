"""The command line: every command is a thin layer over a function of this package."""

from __future__ import annotations

import difflib
import json
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ...algorithms.learning.fast.compiling import Compile
from ...common.errors import UserError
from .data import data_app
from .options import Clip, Compiled, Data, DataSeed, Json, Rows, checked_count, console, names, print_rows

app = typer.Typer(
    name="mopo-bench",
    help="Regenerates Tables 1 and 2 of MOPO (Yu et al., NeurIPS 2020), and takes your algorithm beside them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")

Results = Annotated[Path, typer.Option(help="Folder of run records.")]
DEFAULT_RESULTS = Path("runs")
MOST_SEEDS = 10_000  # a slip of the finger, not a plan


class Kind(StrEnum):
    algorithms = "algorithms"
    tasks = "tasks"
    suites = "suites"


class Format(StrEnum):
    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"
    json = "json"


class Metric(StrEnum):
    last = "last"
    mean10 = "mean10"
    best = "best"


class TableName(StrEnum):
    table1 = "table1"
    table2 = "table2"
    scores = "scores"


def parse_seeds(text: str) -> list[int]:
    """ "6": 0 to 5; "0,1,5": these; "21-23": 21, 22, 23; a trailing comma makes a list of one."""
    try:
        if "," not in text and "-" not in text:
            count = int(text)
            if count < 1:
                raise UserError(f"--seeds {text}: ask for at least 1 seed")
            if count > MOST_SEEDS:
                raise UserError(f"--seeds {text}: more than {MOST_SEEDS:,} seeds")
            return list(range(count))
        seeds: list[int] = []
        for part in names(text):
            first, dash, last = part.partition("-")
            if dash and int(last) - int(first) >= MOST_SEEDS:
                raise UserError(f"--seeds {text}: more than {MOST_SEEDS:,} seeds")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise UserError(f"--seeds {text}: expected a count (6), a list (0,1,5) or a range (21-23)") from None
    if not seeds:
        raise UserError(f"--seeds {text}: no seeds named")
    return seeds


def parse_settings(settings: list[str]) -> dict[str, str]:
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or "." not in key:
            raise UserError(f"--set {setting}: expected algorithm.key=value, such as mopo.penalty_coefficient=5")
        parsed[key.strip()] = value.strip()
    return parsed


@app.command("list")
def list_command(kind: Kind, as_json: Json = False) -> None:
    """What is registered, plug-ins included, with where it came from.

    Example: mopo-bench list tasks --json
    """
    from .listing import listing

    rows = listing(kind.value)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    print_rows([{column: value for column, value in row.items() if column != "settings"} for row in rows])


@app.command()
def run(
    suite: Annotated[str | None, typer.Option(help="table1, table2, demo, ci: see `list suites`.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas.")] = None,
    algorithms: Annotated[str | None, typer.Option(help="Algorithms, separated by commas.")] = None,
    seeds: Annotated[str | None, typer.Option(help="A count (6), a list (0,1,5) or a range (21-23).")] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps; the suite's or the task's own by default.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Worker processes of one thread each; all cores by default, one on a GPU.")
    ] = None,
    group: Annotated[int, typer.Option(help="Seeds of a cell trained together; pays on a GPU only.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: Data = "auto",
    window: Annotated[str, typer.Option(help="all, last_1m or first_1m rows of the batch.")] = "all",
    rows: Rows = None,
    data_seed: DataSeed = 0,
    batch: Annotated[Path | None, typer.Option(help="Your own HDF5 file in D4RL's layout, for one task.")] = None,
    clip_actions: Clip = False,
    results: Results = DEFAULT_RESULTS,
    set_: Annotated[list[str] | None, typer.Option("--set", help="algorithm.key=value; all.key=value.")] = None,
    compile_: Compiled = Compile.auto,
    evaluate_every: Annotated[int | None, typer.Option(help="Gradient steps between evaluations.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes per evaluation.")] = None,
    evaluation_processes: Annotated[
        int | None,
        typer.Option(help="Processes that evaluate beside training; by default one for each seed of a group on a GPU, else 0."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cells, states and the time they take; run nothing.")
    ] = False,
) -> None:
    """Runs what is missing of the grid and leaves what is done.

    Example: mopo-bench run --tasks hopper-medium --algorithms mopo,sac --seeds 3 --steps 50000
    """
    from ..api import plan_run
    from ..runs.runner import default_jobs, execute

    checked_count("--group", group)
    plan = plan_run(
        suite=suite,
        tasks=names(tasks),
        algorithms=names(algorithms),
        seeds=parse_seeds(seeds) if seeds is not None else None,
        steps=steps,
        data=data,
        window=window,
        rows=rows,
        batch=batch,
        data_seed=data_seed,
        clip_actions=clip_actions,
        results=results,
        settings=parse_settings(set_ or []),
        device=device,
        compiled=compile_,
        evaluate_every=evaluate_every,
        evaluation_episodes=episodes,
        evaluation_processes=evaluation_processes,
    )
    jobs = checked_count("--jobs", default_jobs(plan) if jobs is None else jobs)
    for cell in plan.cells:
        if cell.config.get("warmup_steps", 0) >= cell.steps:
            name, warmup = cell.algorithm.name, cell.config["warmup_steps"]
            share = cell.steps * cell.algorithm.defaults()["warmup_steps"] // 500_000  # of the steps that D4RL ran
            console.print(
                f"{cell.task.name}: all {cell.steps:,} steps of {name} are warm-up ({warmup:,} steps); "
                f"--set {name}.warmup_steps={share} makes it the share of the run that it is of 500,000 steps"
            )
    if dry_run:
        _print_plan(plan, jobs, group, suite or "")
        return
    outcome = execute(plan, jobs, group, console)
    _report(outcome, plan)


@app.command()
def status(results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """How far the grid is: done, running (begun, not finished), failed, diverged, missing.

    Example: mopo-bench status --results runs
    """
    from ..runs.records import STATES
    from ..runs.runner import status as status_rows

    if not results.is_dir():
        raise UserError(f"there is no results folder {results}: name one with --results, or make one with `mopo-bench run`")
    rows = status_rows(results)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("task", "algorithm", *STATES, "steps", box=None, header_style="bold")
    for task, algorithm in dict.fromkeys((row["task"], row["algorithm"]) for row in rows):
        chosen = [row for row in rows if (row["task"], row["algorithm"]) == (task, algorithm)]
        counts = [str(sum(row["state"] == state for row in chosen) or "") for state in STATES]
        done, wanted = sum(row["steps"] for row in chosen), sum(max(row["of"], row["steps"]) for row in chosen)
        table.add_row(task, algorithm, *counts, f"{done:,} of {wanted:,}")
    console.print(table)
    for row in rows:
        if row["state"] == "failed":
            console.print(f"failed: {row['task']}/{row['algorithm']}/seed-{row['seed']}: {row.get('message', '')}")


@app.command()
def table(
    name: TableName,
    results: Results = DEFAULT_RESULTS,
    format_: Annotated[Format, typer.Option("--format")] = Format.text,
    metric: Annotated[Metric, typer.Option(help="last is the paper's.")] = Metric.last,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """A table from run records, beside the paper's.

    Example: mopo-bench table table1 --results runs --format markdown
    """
    from ..api import make_table
    from ..runs.records import write_text

    if name is not TableName.scores and not results.is_dir():
        raise UserError(f"there is no results folder {results}: name one with --results, or make one with `mopo-bench run`")
    text = make_table(name.value, results, format_.value, metric.value)
    if out is None:
        if isinstance(text, str):
            print(text)
        else:
            console.print(*text, sep="\n")
        return
    if not isinstance(text, str):
        raise UserError(f"--out {out}: name a --format to write (markdown, latex, csv, html, json)")
    write_text(out, text + "\n")


@app.command()
def demo(
    results: Results = Path("runs/demo"),
    jobs: Annotated[int | None, typer.Option(help="Worker processes; all cores by default.")] = None,
) -> None:
    """The main job in small, from nothing to a printed table: about ten minutes on two cores.

    Example: mopo-bench demo
    """
    from ..api import make_table, plan_run
    from ..runs.runner import default_jobs, execute

    console.print("Regenerating two batches, fitting a dynamics model to each, training BC, SAC, MBPO and MOPO on two seeds.")
    plan = plan_run(suite="demo", results=results)
    jobs = checked_count("--jobs", default_jobs(plan) if jobs is None else jobs)
    outcome = execute(plan, jobs, console=console)
    console.print(*make_table("scores", results, "text", "last"), sep="\n")
    _report(outcome, plan)


def _print_plan(plan: Any, jobs: int, group: int, suite: str) -> None:
    from ..runs.estimate import Calibration, duration, estimate, sentences
    from ..runs.runner import default_jobs

    calibration = Calibration(group)
    with console.status("Timing a few steps of each algorithm"):
        found = estimate(plan, min(jobs, default_jobs(plan)), calibration)
    grid = Table("task", "data", "run or fit", "seeds", "steps", "state", "time left", box=None, header_style="bold")
    for row in found.rows:
        states = ", ".join(f"{count} {state}" for state, count in row.states.items())
        left = escape(row.note) if row.seconds is None else duration(row.seconds) if row.seconds else ""
        steps = f"{row.steps:,}" if row.steps else ""
        grid.add_row(row.task, row.data, row.work, str(sum(row.states.values())), steps, states, left)
    console.print(grid)
    console.print(*sentences(found, calibration, suite), sep="\n")


def _report(outcome: dict[str, list[str]], plan: Any) -> None:
    if not outcome:
        console.print("Everything was done already.")
    for state, runs in sorted(outcome.items()):
        console.print(f"{state}: {len(runs)}" + (f" ({', '.join(runs)})" if state != "done" else ""))
    console.print(f"Run records are in {plan.results}; `mopo-bench table scores --results {plan.results}` prints them.")
    if set(outcome) - {"done", "diverged"}:
        raise typer.Exit(3)


def main() -> None:
    """Entry point: 0 all well, 2 wrong input or a full disk (one line), 3 some runs failed, 130 interrupted."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments, standalone_mode=False)
    except UserError as error:
        if debug:
            traceback.print_exc()
        _complain(str(error))
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: a wrong option or argument
            raise
        _complain(_usage(error))
        code = 2
    if code == 130:  # typer itself turns Ctrl-C into this
        _complain("stopped; the next run goes on from the last checkpoint")
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough: no complaint at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    message = error.format_message().replace("\n", " ")
    if error.__class__.__name__ == "NoSuchCommand" or "No such command" in message:
        commands = [command.name or "" for command in app.registered_commands] + ["data"]
        near = difflib.get_close_matches(message.split("'")[1], commands, n=1)
        message += f" Did you mean {near[0]}?" if near and "Did you mean" not in message else ""
    return message


def _complain(message: str) -> None:
    print(f"mopo-bench: {' '.join(message.split())}", file=sys.stderr)
