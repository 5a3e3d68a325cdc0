"""The functions behind the command line, for use from Python: they take what the command takes, under the same names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError, in_words
from ..common.notices import notices_shown
from ..common.settings import Count, converted
from .check.checking import check as check
from .report.paper import REFERENCE
from .runs.ledger import load_runs
from .runs.records import Run, write_text
from .runs.request import RunRequest

if TYPE_CHECKING:
    from ..algorithms.learning.registry import Algorithm
    from ..tasks.task import Task
    from .report.frames import Frames
    from .report.gathering import Folders, Names
    from .runs.plan import Plan

Settings = str | Iterable[str] | Mapping[str, Any]


def plan_run(*, results: Path | str = "runs", suite: str | None = None, grid: Path | str | None = None, **what: Any) -> Plan:
    """The checked plan of a run; arguments are those of `run`. Raises UserError for what cannot be run."""
    from .runs.plan import make_plan

    grid = None if grid is None else _path(grid, "--grid")
    return make_plan(RunRequest.of(suite=suite, grid=grid, **what), _path(results, "--results"))


def run(
    *,
    tasks: str | Task | Iterable[str | Task] | None = None,
    algorithms: str | Algorithm | Iterable[str | Algorithm] | None = None,
    without: str | Iterable[str] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    steps: int | str | Mapping[str, int] | None = None,
    data: str | None = None,
    window: str | Mapping[str, str] | None = None,
    rows: int | str | Mapping[str, int] | None = None,
    data_seed: int | None = None,
    data_digest: str | Mapping[str, str] | None = None,
    dataset: Path | str | None = None,
    clip_actions: bool | None = None,
    settings: Settings | Sequence[Mapping[str, Any]] | None = None,
    task_set: Settings | None = None,
    evaluate_every: int | str | Mapping[str, int] | None = None,
    episodes: int | None = None,
    device: str | None = None,
    compile: str | bool | None = None,
    capture: bool | None = None,
    evaluation_processes: int | None = None,
    suite: str | None = None,
    grid: Path | str | None = None,
    results: Path | str = "runs",
    jobs: int | None = None,
    group: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    rerun: bool = False,
    quiet: bool = False,
) -> list[Run]:
    """Runs what is missing of a grid, as `mopo-bench run` does, and gives the records of the grid's runs.

        from mopo_bench import run
        runs = run(tasks="point-angle", algorithms=["mopo", "sac"], seeds=3, results="runs")

    Every argument takes what its option takes ("point-angle,ant-angle", "0-5") and what Python has; None leaves it to the
    suite, the grid file or the task. Tasks and algorithms may be objects that are not registered.

    without: cells that are left out, "hopper-medium:sac". seeds: a count, or the seeds themselves. steps, window, rows,
    data_digest, evaluate_every: one for all, or one for each of some, by task, algorithm or both: {"bc": 500_000,
    "hopper-medium:sac": 20_000}. data_digest: how the dataset's digest must begin, by 8 to 64 digits. settings: what `--set`
    takes, or a mapping {"mopo.penalty_coefficient": 5}; several values of one setting sweep. suite: a grid that comes with the
    package. grid: a grid file. results: the folder of run records. jobs: worker processes; all cores by default, one on a GPU.
    group: seeds trained together, on a GPU. backend, scheduler: another machine's workers, see docs/scaling.md. rerun: runs
    anew what is done, fits too, after it was moved to a folder under "set-aside" in the results. quiet: says neither how far
    the runs are nor what came of them.

    How far it is, and every run that failed, diverged or is not finished, with its reason, is printed to standard error; the
    `state` and the `record` of each run say the same. Raises UserError, one line, for what cannot be run.
    """
    asked = {
        name: value
        for name, value in locals().items()
        if name not in ("results", "suite", "grid", "jobs", "group", "backend", "scheduler", "rerun", "quiet")
    }
    with nullcontext() if quiet else notices_shown():
        plan = plan_run(results=results, suite=suite, grid=grid, **asked)
    jobs = None if jobs is None else converted(jobs, Count, "--jobs")
    from rich.console import Console

    from .runs.aside import described, found_of, set_aside
    from .runs.engines import engine_of
    from .runs.outcome import outcome_lines
    from .runs.runner import execute

    console = None if quiet else Console(stderr=True)
    if console is not None and (told := [*plan.doubts, *plan.of_other_code]):
        console.print(*told, sep="\n", markup=False, highlight=False, soft_wrap=True)
    group = converted(group, Count, "--group")
    engine, said = engine_of(backend, jobs, plan.usual_jobs, scheduler, plan.results), []
    if rerun and (found := found_of(plan)):
        what = described(plan, found)
        said.append(f"Set aside in {set_aside(plan, found)}: {what}")
    said += outcome_lines(plan, execute(plan, group=group, console=console, engine=engine))
    if console is not None:
        console.print(*said, sep="\n", markup=False, highlight=False, soft_wrap=True)
    wanted = {(cell.identity, seed) for cell, seed in plan.seeds()}
    return [each for each in load_runs(plan.results) if (each.identity, each.seed) in wanted]


def load(results: Folders = "runs", until: int | None = None) -> Frames:
    """The run records of a folder, or of several, as pandas DataFrames `runs`, `evaluations` and `fits`: columns see `Frames`.

        from mopo_bench import load
        load("runs").evaluations.groupby(["task", "algorithm", "step"])["return_mean"].mean()

    until: evaluations after this step are left out. So is what is not to be believed, with a warning of Python's. Raises
    UserError where there is no such folder, and where two of them hold one run with other numbers.
    """
    import warnings

    from .report.frames import frames
    from .report.gathering import gathered

    found = gathered(results, until=until)
    for fault in found.faults:
        where = f"{found.where}: " if len(found.folders) == 1 else ""
        warnings.warn(f"not believed, and left out: {where}{fault}", stacklevel=2)
    return frames(found.runs)


def make_table(
    name: str,
    results: Folders,
    format: str = "text",
    metric: str = "last",
    reference: str = REFERENCE,
    holm: bool = False,
    beside: str | None = None,
    tasks: Names = (),
    algorithms: Names = (),
    until: int | None = None,
) -> Any:
    """A table as text of that format; "text" is a list of tables for rich to print.

    What is not to be believed in the folders stands under the table; where there is no place for it, as in CSV and JSON, it is
    said on standard error.
    """
    from .report import tables
    from .report.gathering import gathered

    found = gathered(results, tasks, algorithms, until, brief=True)
    if format in ("csv", "json") or not found.runs:
        print(*(f"not believed: {each}" for each in found.faults), sep="\n", end="\n" * bool(found.faults), file=sys.stderr)
    return tables.render(
        name, found.runs, found.where, format, metric, reference, correct=holm, faults=found.faults, beside=beside
    )


def table(
    name: str,
    results: Folders = "runs",
    format: str | None = None,
    metric: str = "last",
    reference: str = REFERENCE,
    out: Path | str | None = None,
    holm: bool = False,
    beside: str | None = None,
    tasks: Names = (),
    algorithms: Names = (),
    until: int | None = None,
) -> str:
    """The text of a table, as `mopo-bench table` prints it.

    name: "table1", "table2", "figure1", "ablation" and "appendix-e" stand beside the paper's numbers, "scores" is of whatever
    was run, "aggregate" is over its tasks. results: the folder of run records, or several, whose runs stand together. format:
    text, markdown, latex, csv, html or json; by default as `out` ends, else markdown. metric: last (the paper's), mean10 or
    best. reference: the algorithm that `scores` and `aggregate` compare with the others. out: a file to write it to. holm:
    whether the comparisons are corrected for their number. beside: another metric, whose means and differences stand below.
    tasks, algorithms: only these; all by default. until: no evaluation after this step counts. Raises UserError
    for a name, a format, a metric or a file that is none of these, where there are no runs, and where two folders hold one run
    with other numbers.
    """
    from .report.formats import SUFFIXES

    chosen = format or (SUFFIXES.get(_path(out, "--out").suffix) if out is not None else "markdown")
    if out is not None and chosen in (None, "text"):
        formats, suffixes = ", ".join(SUFFIXES.values()), ", ".join(SUFFIXES)
        raise UserError(f"--out {out}: name a --format to write ({formats}), or a file that ends in {suffixes}")
    made = make_table(name, results, chosen or "", metric, reference, holm, beside, tasks, algorithms, until)
    text = made if isinstance(made, str) else _printed(made)
    if out is not None:
        write_text(Path(out), text + "\n")
    return text


def plot(
    name: str,
    out: Path | str,
    results: Folders = "runs",
    tasks: Names = (),
    algorithms: Names = (),
    metric: str | None = None,
    until: int | None = None,
) -> None:
    """Draws a picture of run records, as `mopo-bench plot` does.

    name: "curves", "bars", "profile", "heatmap" or "sweep". out: the file, a .png, .svg or .pdf. tasks, algorithms: only these;
    all by default. metric: what stands for a run, as in `table`; learning curves show every evaluation and take none. Raises
    UserError for what is none of these, and where there are no runs.
    """
    from .report.gathering import gathered
    from .report.pictures import draw

    found = gathered(results, tasks, algorithms, until)
    draw(name, found.runs, found.where, _path(out, "--out"), metric, found.faults)


def report(
    out: Path | str,
    results: Folders = "runs",
    films: Path | str | None = None,
    tasks: Names = (),
    algorithms: Names = (),
    until: int | None = None,
) -> Path:
    """Writes a static site of run records to the folder `out`, as `mopo-bench report` does, and gives its first page.

    films: a folder of pictures and films of `mopo-bench render`, each named after its task ("hopper-medium mopo.mp4"). tasks,
    algorithms: only these; all by default. until: no evaluation after this step counts. Raises UserError where there are
    no runs, for an `out` that holds something else, and for a film of no task here.
    """
    from .report.gathering import gathered
    from .report.site import write_site

    found = gathered(results, tasks, algorithms, until)
    films = None if films is None else _path(films, "--films")
    heading = in_words([folder.name for folder in found.folders])
    return write_site(found.runs, found.where, _path(out, "--out"), films, found.faults, heading)


def export(
    to: str,
    out: Path | str,
    results: Folders = "runs",
    tasks: Names = (),
    algorithms: Names = (),
    until: int | None = None,
) -> list[Path]:
    """Writes run records for other tools to the folder `out`, as `mopo-bench export` does, and gives what was made.

    to: csv, parquet, tensorboard, wandb or openrlbenchmark. tasks, algorithms: only these; all by default. until: no evaluation
    after this step counts. Raises UserError for another format, one whose library is not installed, without runs, for a damaged
    record, and for an `out` that is not empty.
    """
    from .report.export import export_runs
    from .report.gathering import gathered

    found = gathered(results, tasks, algorithms, until)
    if found.faults:
        faults = "; ".join(found.faults)
        raise UserError(f"{found.where}: not believed: {faults}; run it again, or take it out of the folder")
    return export_runs(to, found.runs, found.where, _path(out, "--out"))


def _path(value: Path | str, option: str) -> Path:
    try:
        return Path(value)
    except TypeError:
        raise UserError(f"{option} {value!r}: expected a path") from None


def _printed(tables: Sequence[Any], width: int = 160) -> str:
    """What rich prints of tables where the output is no terminal."""
    import io

    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=width).print(*tables, sep="\n")
    return stream.getvalue().rstrip("\n")
