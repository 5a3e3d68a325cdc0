"""The runs that a table, a picture, a site or an export is made of: those of one results folder, or of several together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import UserError, in_words
from ...common.settings import Count, converted
from ..runs.ledger import existing_folder
from ..runs.records import LEFT_OUT_AFTER, Fault, Run, Store, changed_defaults, evaluated_alike, many_digits

Folders = Path | str | Iterable[Path | str]
Names = str | Iterable[str]
OF_DATA = ("window", "rows", "digest")  # what all cells of one identity must say of their dataset


class Gathered(NamedTuple):
    """The folders, their runs, and what in them is not to be believed, a sentence each."""

    folders: list[Path]
    runs: list[Run]
    faults: list[str]

    @property
    def where(self) -> str:
        """The folders in words."""
        return in_words([str(folder) for folder in self.folders])


def gathered(
    results: Folders, tasks: Names = (), algorithms: Names = (), until: int | None = None, brief: bool = False
) -> Gathered:
    """What lies in these folders, of these tasks and algorithms alone where some are named.

    until, brief: each run as `Store.everything` leaves it then. A run that several folders hold counts once; a copy of it
    under another seed is not believed. Raises UserError where two folders hold one run with other numbers, or one identity with
    other settings; for a folder that is not there or, of several, holds no run; for a task or an algorithm without a run; and
    for a run without an evaluation up to that step.
    """
    chosen, until = folders_of(results), None if until is None else converted(until, Count, "--until")
    folders = list(chosen)
    found = [(each, folder) for folder in folders for each in Store(folder).everything(brief, until=until)]
    for folder, wanted in chosen.items():
        there = {each.algorithm for each, home in found if home is folder}
        if absent := [name for name in wanted if name not in there]:
            raise UserError(f"{folder}: no run of {absent[0]} in it, but of {', '.join(sorted(there)) or 'nothing'}")
    found = [(each, folder) for each, folder in found if not chosen[folder] or each.algorithm in chosen[folder]]
    for empty in [folder for folder in folders if len(folders) > 1 and all(folder is not other for _, other in found)]:
        raise UserError(f"no runs in {empty}: leave it out, or name a folder of `mopo-bench run`")
    for kind, wanted in (("task", names_of(tasks, "--tasks")), ("algorithm", names_of(algorithms, "--algorithms"))):
        there = {getattr(each, kind) for each, _ in found}
        for name in wanted:
            if name not in there:
                raise UserError(f"--{kind}s {name}: no run of it here, but of {', '.join(sorted(there)) or 'nothing'}")
        found = [(each, folder) for each, folder in found if not wanted or getattr(each, kind) in wanted]
    runs = _each_once([(each, folder) for each, folder in found if isinstance(each, Run)])
    for run in runs:
        if LEFT_OUT_AFTER in run.record and not run.evaluations:
            first = f"{_place(run)}/seed-{run.seed} has no evaluation up to that step"
            raise UserError(f"--until {until}: {first}; leave it out with --tasks and --algorithms, or say a later step")
    faults = [str(each) if len(folders) == 1 else f"{folder}: {each}" for each, folder in found if isinstance(each, Fault)]
    runs, copies = _without_copies(runs)
    return Gathered(folders, runs, faults + copies)


_ADVICE = (
    "leave one folder out, choose others with --tasks and --algorithms, or take some of one with --results FOLDER:ALGORITHM"
)


def _each_once(found: Iterable[tuple[Run, Path]]) -> list[Run]:
    """Every run once, in order of their places. UserError where two folders differ in a run, or in the cell of its identity."""
    runs: dict[tuple[str, int], tuple[Run, Path]] = {}
    cells: dict[str, tuple[Run, Path]] = {}
    for run, folder in found:
        first, home = cells.setdefault(_place(run), (run, folder))
        if home is not folder and (differs := _other_cell(first.cell, run.cell)):
            raise UserError(f"{_place(run)}: {differs} differs between {home} and {folder}: {_ADVICE}")
        run.cell = first.cell  # one identity, one cell: its dataset is told of in one way
        other, home = runs.setdefault((_place(run), run.seed), (run, folder))
        if other is not run and _told(other) != _told(run):
            advice = f"{_ADVICE}, or take both at one step with --until" if other.steps != run.steps else _ADVICE
            raise UserError(
                f"{_place(run)}/seed-{run.seed} is not the same in {home} ({other.state}, step {other.steps:,}) and in "
                f"{folder} ({run.state}, step {run.steps:,}): {advice}"
            )
    return [runs[key][0] for key in sorted(runs)]


def _without_copies(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs without those that copy another seed of their identity, which would make intervals too narrow; and which.

    Of a run and its copy the longer one counts, of two as long the one that is done, then the lower seed.
    """
    kept: dict[str, list[Run]] = {}
    copies = {}
    for run in sorted(runs, key=lambda each: (-len(each.evaluations), each.state != "done", each.seed)):
        others = kept.setdefault(_place(run), [])
        if run.cell.get("imported") or not _has_many_digits(run):
            continue  # imported returns may come from rounded scores
        if (first := next((each for each in others if evaluated_alike(each.evaluations, run.evaluations)), None)) is None:
            others.append(run)
        else:
            said = f"has the evaluations of seed {first.seed} to the last digit, as a copy has"
            copies[_place(run), run.seed] = f"{_place(run)}/seed-{run.seed}: {said}"
    return [run for run in runs if (_place(run), run.seed) not in copies], [copies[key] for key in sorted(copies)]


def _has_many_digits(run: Run) -> bool:
    """Whether the returns of its last evaluation have, which a brief record holds, too: counts may well be alike."""
    return many_digits(run.evaluations[-1].get("returns") or ()) if run.evaluations else False


def _place(run: Run) -> str:
    """What all seeds of one identity have in common, as the path of their folder."""
    return f"{run.task}/{run.algorithm}/{run.identity}"


def folders_of(results: Folders) -> dict[Path, list[str]]:
    """The folders that are meant, each once however it is spelt, with the algorithms that are named after it, "runs:mopo,bc".

    None named means all. Raises UserError for what is no path or no folder.
    """
    named = [results] if isinstance(results, str | os.PathLike) else results
    found: dict[Path, tuple[Path, list[str]]] = {}
    try:
        for each in named:
            path, wanted = _folder_and_names(each)
            folder, before = found.get(path.resolve(), (path, None))
            found[path.resolve()] = folder, [*(before or ()), *wanted] if wanted and before != [] else []
    except TypeError:
        raise UserError(f"--results {results!r}: expected a path, or several") from None
    if not found:
        raise UserError("--results: name at least one folder of `mopo-bench run`")
    return dict(found.values())


def _folder_and_names(text: Path | str) -> tuple[Path, list[str]]:
    """A folder, and the algorithms that are named after a colon; a colon may stand in the name of a folder, too."""
    path, colon, algorithms = str(text).rpartition(":")
    if Path(text).exists() or not colon or not Path(path).exists():
        return existing_folder(Path(text)), []
    if not (wanted := names_of(algorithms, "--results")):
        raise UserError(f"--results {text}: name algorithms after the colon, or leave it out")
    return existing_folder(Path(path)), wanted


def names_of(wanted: Names, option: str) -> list[str]:
    """Names from a text with commas or from several texts."""
    try:
        return [each.strip() for each in (wanted.split(",") if isinstance(wanted, str) else wanted) if each.strip()]
    except (TypeError, AttributeError):
        raise UserError(f"{option} {wanted!r}: expected names, as a text with commas or a list") from None


def _other_cell(one: dict[str, Any], other: dict[str, Any]) -> str:
    """What two cells of one identity say differently of settings and data, in words; nothing where they agree."""
    changed = sorted(changed_defaults(one["config"], other["config"]))
    return in_words(changed + [f"the dataset's {name}" for name in OF_DATA if one["data"][name] != other["data"][name]] or [""])


def _told(run: Run) -> tuple[Any, ...]:
    """What two copies of a run must agree in: all that tables show of it. A later version may have recorded more beside."""
    curve = [[row["step"], row["return_mean"], row.get("value")] for row in run.evaluations]
    last = run.evaluations[-1]["returns"] if run.evaluations else None
    return run.state, run.steps, curve, last, run.record.get("warnings"), run.record.get("stages")
