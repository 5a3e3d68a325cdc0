"""A static site of run records: an overview, and a page for each task and dataset. It opens from disk, without a network.

Templates, style and script lie in `templates/`. Every text of a record is escaped by jinja2.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import replace_file
from ..runs.ledger import reason
from ..runs.reading import printable
from ..runs.records import STATES, Run, made_with, state_in_words, warnings, write_text
from .choices import METRICS
from .comparisons import comparisons
from .frames import frames
from .groups import (
    Group,
    by_row,
    dataset_names,
    facts_of_data,
    groups_in,
    in_columns,
    in_unit,
    is_counted,
    last_step,
    unit_of,
    without_task,
)
from .notes import made_of, provenance
from .pictures import curves, heatmap, paper_numbers, rows_of
from .plots import save, styled
from .repeat import repeat_commands
from .statistics import aggregate, mean, mean_interval, standard_deviation
from .styles import Style, styles
from .tables import scores_table

STILLS, FILMS = (".png", ".jpg", ".webp", ".gif"), (".mp4",)  # shown as a picture, as a film
ASSETS = ("report.css", "report.js")
GENERATOR = "mopo-bench report"  # by which a folder is known that may be written again


@styled()
def write_site(
    runs: Iterable[Run], folder: str, out: Path, films: Path | None = None, faults: Sequence[str] = (), heading: str = ""
) -> Path:
    """Writes the site of these runs, which lie in `folder`, to the folder `out`; gives its first page.

    heading: what the first page calls the folder, its name by default.
    films: a folder of pictures and films of `mopo-bench render`, each shown with the task it is named after, see `_films`.
    faults: what was not believed. Raises UserError without runs, for an `out` that holds something else, and for a film that
    belongs to no task.
    """
    runs = list(runs)
    groups = groups_in(runs, folder)
    if films is not None and out.resolve() in (films.resolve(), *films.resolve().parents):
        raise UserError(f"--films {films}: it lies in --out {out}, where the report keeps its own; name another folder")
    shown = _films(films, {group.task for group in groups}) if films is not None else {}
    _make_room(out)
    pages, names, looks = _page_names(groups), dataset_names(groups), styles(groups)
    write = _writer(out)
    rows = [
        _task(list(members), pages[key], without_task(names[key]), out, shown.get(key.task, ()), looks)
        for key, members in by_row(groups)
    ]
    for row in rows:
        write("task.html", row["page"], root="../", faults=(), row=row, title=f"{row['name']}, {row['data']}")
    overview = {
        "tables": _tables(runs, folder),
        "counts": _counts(runs),
        "heatmap": None,
        "folder": heading or Path(folder).name,
    }
    if len(rows_of(groups)) > 1:
        figure, said = heatmap(groups)
        save(figure, out / "heatmap.png")
        overview["heatmap"] = [*said, *provenance(groups)]
    write_text(out / "evaluations.csv", frames(runs).evaluations.to_csv(index=False))
    for name in ASSETS:
        write_text(out / name, (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8"))
    write("index.html", "index.html", root="", title="mopo-bench report", rows=rows, faults=faults, **overview)
    return out / "index.html"


def _make_room(out: Path) -> None:
    """Takes away a site that was written before; UserError for a folder that holds anything else."""
    if out.is_dir() and not any(out.iterdir()):
        return
    index = out / "index.html"
    if out.exists() and not (
        index.is_file() and f'content="{GENERATOR}' in index.read_text(encoding="utf-8", errors="replace")
    ):
        raise UserError(f"--out {out}: it is there already and is no report; name a new folder, or an empty one")
    for name in ("tasks", "films"):
        shutil.rmtree(out / name, ignore_errors=True)


def _writer(out: Path) -> Callable[..., None]:
    """A function that fills a template and writes the page."""
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "count": lambda value: "" if value is None else f"{value:,}"}
    usual = {"generator": GENERATOR, "version": version("mopo-bench")}

    def write(template: str, page: str, **context: Any) -> None:
        write_text(out / page, environment.get_template(template).render(**usual, **context))

    return write


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:z,.{digits}f}"


def _page_names(groups: Sequence[Group]) -> dict[Any, str]:
    """The file of each row's page: its task's name without what a path or an address cannot hold, numbered where two agree."""
    pages: dict[Any, str] = {}
    for group in groups:
        if group.key not in pages:
            base = re.sub(r"[^a-z0-9]+", "-", group.row.lower()).strip("-")[:60] or "task"
            taken = sum(page == f"tasks/{base}.html" or page.startswith(f"tasks/{base}--") for page in pages.values())
            pages[group.key] = f"tasks/{base}{f'--{taken + 1}' if taken else ''}.html"
    return pages


def _tables(runs: Sequence[Run], folder: str) -> list[Any]:
    """The scores, and the comparisons where there are any."""
    compared = comparisons(runs, folder=folder)
    return [scores_table(runs, folder=folder), *[compared] * bool(compared.rows)]


def _counts(runs: Sequence[Run]) -> dict[str, int]:
    """How many runs are in each state."""
    states = [run.state for run in runs]
    return {state_in_words(state): states.count(state) for state in reversed(STATES) if state in states}


def _task(
    groups: list[Group], page: str, dataset: str, out: Path, films: Sequence[Path], looks: Mapping[str, Style]
) -> dict[str, Any]:
    """What the page of a task and dataset shows; its picture, drawn as `looks` say, and its films are written here."""
    groups, unit = in_columns(groups), unit_of(groups[0].task)
    panels = rows_of(groups)
    row: dict[str, Any] = {
        "name": groups[0].row,
        "data": dataset,
        "unit": unit,
        "page": page,
        "facts": _facts(groups),
        "notes": made_of(groups),
        "algorithms": [_algorithm(group, unit, paper_numbers(panels[0]) if panels else {}) for group in groups],
        "curves": None,
        "said": [],
        "films": [],
    }
    if panels:
        picture = Path(page).with_suffix(".png")
        figure, row["said"] = curves(groups, looks=looks)
        save(figure, out / picture)
        row["curves"] = picture.name
    for film in films:
        place = Path("films") / film.name
        replace_file(out / place, lambda temporary, film=film: shutil.copyfile(film, temporary))  # type: ignore[misc]
        row["films"].append({"address": f"../films/{film.name}", "name": film.stem, "moves": film.suffix in FILMS})
    return row


def _facts(groups: Sequence[Group]) -> dict[str, Any]:
    """What is known of the dataset of a row, in words: the numbers of the table of scores among it."""
    facts = facts_of_data(groups)
    known = {
        "Dataset": facts.get("label"),
        "Made by": facts.get("from"),
        "Window": facts["window"] if facts["window"] != "all" else None,
        "Rows": f"{facts['rows']:,}" if facts.get("rows") is not None else None,
        "Episodes": f"{facts['episodes']:,}" if isinstance(facts.get("episodes"), int) else None,
        "Mean return of an episode": _number(facts.get("return_mean")),
        "Best episode": _number(facts.get("return_max")),
        "Digest of its arrays": facts.get("digest"),
    }
    return {name: value for name, value in known.items() if value not in (None, "–")}


def _algorithm(group: Group, unit: str, printed: dict[str, float]) -> dict[str, Any]:
    """What a page says of one group: its numbers, seed by seed, where they come from, and the commands that repeat it."""
    values = list(group.values("last", unit).values())
    return {
        "heading": group.heading,
        "about": group.about.get("about", ""),
        "mean": mean(values) if values else None,
        "std": standard_deviation(values) if values else None,
        "interval": mean_interval(values) if values else None,
        "mean10": mean(list(group.values("mean10", unit).values())) if values else None,
        "paper": printed.get(group.label),
        "seeds": len(values),
        "diverged": group.diverged,
        "runs": [_seed(run, unit) for run in group.runs],
        "commands": [] if group.imported else repeat_commands(group),
        "provenance": _origin(group),
        "config": sorted(group.cell["config"].items()),
        "overrides": sorted(group.cell.get("overrides", {})),
    }


def _seed(run: Run, unit: str) -> dict[str, Any]:
    """One seed: its state, its number by each metric, and what a reader should know."""
    counted = is_counted(run)
    numbers = {metric: in_unit(unit, run.task, aggregate(run.evaluations, metric)) if counted else None for metric in METRICS}
    said = [*warnings(run.record), *([reason(run.record)] if run.state in ("failed", "diverged") else [])]
    length = run.evaluations[-1].get("vitals", {}).get("episode_length") if counted else None  # older records have none
    about = {"seed": run.seed, "state": state_in_words(run.state), "steps": last_step(run)}
    about["seconds"] = run.record.get("seconds")
    return about | numbers | {"length": length, "warnings": said}


def _origin(group: Group) -> dict[str, str]:
    """By whom and where the runs were made: versions, commits, machines, fits."""
    segments = [part for run in group.runs for part in run.record.get("segments", [])]
    fits = {
        f"{group.stage_titles.get(stage, stage)} {identity}"
        for run in group.runs
        for stage, identity in run.record.get("stages", {}).items()
    }
    machines = {
        ", ".join(printable(part[name], 60) for name in ("system", "cpu", "device") if part.get(name)) for part in segments
    }
    libraries = {
        ", ".join(f"{name} {version}" for name, version in sorted(part.get("versions", {}).items())) for part in segments
    }
    known = {
        "Identity": group.identity,
        "Imported from": group.origin if group.imported else "",
        "Versions": ", ".join(f"{part} {number}" for part, number in group.cell.get("versions", {}).items()),
        "Commit": _several(made_with(run.record for run in group.runs).get("commit", ())),
        "Libraries": _several(libraries),
        "Machine": _several(machines),
        "Fits": _several(fits),
    }
    return {name: value for name, value in known.items() if value}


def _several(words: Iterable[str]) -> str:
    return "; ".join(sorted(filter(None, words)))


def _films(folder: Path, tasks: set[str]) -> dict[str, list[Path]]:
    """By task, the pictures and films of a folder: "hopper-medium.png", or with more after a space, "hopper-medium mopo.mp4".

    Other signs may be part of a task's name.
    """
    if not folder.is_dir():
        raise UserError(f"--films {folder}: there is no such folder; `mopo-bench render` makes pictures and films")
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix in (*STILLS, *FILMS)):
        task = path.stem.partition(" ")[0]
        if task not in tasks:
            raise UserError(
                f"--films {path}: its name, up to a space if it has one, is that of no task here; name it after one of "
                f"{', '.join(sorted(tasks))}"
            )
        found.setdefault(task, []).append(path)
    return found
