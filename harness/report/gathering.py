"""The runs that a table, a picture, a site or an export is made of: those of one results folder, or of several together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...common.errors import UserError, in_words
from ..runs.ledger import existing_folder
from ..runs.records import Fault, Run, Store

Folders = Path | str | Iterable[Path | str]


class Gathered(NamedTuple):
    """The folders' names in words, their runs, and what in them is not to be believed, a sentence each."""

    folder: str
    runs: list[Run]
    faults: list[str]


def gathered(results: Folders, brief: bool = False) -> Gathered:
    """What lies in these folders; brief: each run as `Store.everything` leaves it then.

    A run that several of them hold counts once, and which of the two copies is meant must not matter. Raises UserError where
    it would, for a folder that is not there, and where none is named.
    """
    folders = folders_of(results)
    if not folders:
        raise UserError("--results: name at least one folder of `mopo-bench run`")
    runs: dict[tuple[str, str, str, int], tuple[Run, Path]] = {}
    faults = []
    for folder in folders:
        for each in Store(folder).everything(brief):
            if isinstance(each, Fault):
                faults.append(str(each) if len(folders) == 1 else f"{folder}: {each}")
                continue
            other, place = runs.setdefault((each.task, each.algorithm, each.identity, each.seed), (each, folder))
            if _numbers(other) != _numbers(each):
                raise UserError(
                    f"{each.task}/{each.algorithm}/{each.identity}/seed-{each.seed} is in {place} ({other.state}, step "
                    f"{other.steps:,}) and in {folder} ({each.state}, step {each.steps:,}), with other numbers: leave one out"
                )
    return Gathered(in_words([str(folder) for folder in folders]), [runs[key][0] for key in sorted(runs)], faults)


def folders_of(results: Folders) -> list[Path]:
    """The folders that are meant, each once. Raises UserError for what is no path, and for a folder that is not there."""
    named = [results] if isinstance(results, Path | str) else results
    try:
        return [existing_folder(folder) for folder in dict.fromkeys(map(Path, named))]
    except TypeError:
        raise UserError(f"--results {results!r}: expected a path, or several") from None


def chosen(runs: list[Run], kind: str, wanted: str | Iterable[str]) -> list[Run]:
    """The runs of these tasks or algorithms, as `kind` says; all where none is named. Raises UserError for one without runs."""
    names = [each.strip() for each in (wanted.split(",") if isinstance(wanted, str) else wanted) if each.strip()]
    there = {getattr(run, kind) for run in runs}
    for name in names:
        if name not in there:
            raise UserError(f"--{kind}s {name}: no run of it here, but of {', '.join(sorted(there)) or 'nothing'}")
    return [run for run in runs if not names or getattr(run, kind) in names]


def _numbers(run: Run) -> tuple[object, ...]:
    """What two copies of a run must agree in."""
    return run.state, run.steps, [(row["step"], row["return_mean"]) for row in run.evaluations]
