"""Code from outside this package is tried before a run begins: a few steps of throw-away copies, on rows of its dataset."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...algorithms.learning.resumption import check_resumed_copy
from ...common.errors import FOREIGN, UserError, WriteError
from ...common.source_digest import OURS, source_digest
from ...tasks.data.d4rl import cache_folder
from ...tasks.task import OfflineProblem
from .cell import SHORT_ROWS, Cell, build, load_problem, short_configs
from .machine import describe_machine, prepare_process
from .records import identity_hash, plain, write_json

TRIED_ROWS = 20_000  # of the dataset, in memory of their own


def check_first_use(cells: Iterable[Cell]) -> None:
    """UserError for an algorithm from outside the package that breaks the contract in its first steps, or that does not resume.

    What was tried is remembered in the data cache by its source. Another exception is left to the run itself,
    which meets it again, and keeps its traceback.
    """
    for cell in cells:
        sources = outside_sources(cell)
        if sources == []:
            continue
        path = None if sources is None else tried(cell, sources)
        if path is None or not path.exists():
            try:
                try_copy(cell)
            except UserError as error:
                raise UserError(f"{cell.algorithm.name}: {error}") from error
            except FOREIGN:
                continue
            if path is not None:
                with suppress(WriteError):  # without a cache it is tried again next time
                    write_json(path, {"algorithm": cell.algorithm.name, "task": cell.task.name})


def outside_sources(cell: Cell) -> list[str] | None:
    """Digests of the classes from outside this package that it is made of; None where the source of one cannot be read."""
    parts = (cell.algorithm.learner, cell.algorithm.experience, *cell.algorithm.stages.values())
    digests = sorted({source_digest(part) for part in parts if part.__module__.partition(".")[0] != OURS})
    return None if "" in digests else digests


def tried(cell: Cell, sources: list[str]) -> Path:
    """Where it is remembered that this code was tried with these settings, on data and a task of this kind."""
    what = {
        "sources": sources,
        "parts": [f"{part.__module__}.{part.__qualname__}" for part in (cell.algorithm.learner, cell.algorithm.experience)],
        "settings": plain(cell.algorithm.changed(cell.config)),
        "task": plain(cell.task.identity()),
        "device": cell.device,
        "package": {name: describe_machine()[name] for name in ("versions", "commit")},
    }
    return cache_folder() / "tried" / f"{identity_hash(what)}.json"


def try_copy(cell: Cell) -> None:
    """Some steps of one seed with the run's own settings, but for refreshes and fits, which are short.

    They are taken on a copy of the first rows. The run's dataset may be a file mapped into memory, where a write kills the
    process; in a copy it is found. What is refused about these rows need not hold of all of them, which are then tried, too.
    """
    prepare_process(cell.device)
    own = load_problem(cell)
    rows = own.dataset.head(TRIED_ROWS).copy()
    arrays = (rows.table(), rows.terminals, rows.timeouts, rows.valid_next)
    before, failure = [array.copy() for array in arrays], None
    try:
        _steps(cell, cell.task.offline_problem(rows))
    except FOREIGN as error:
        failure = error
    if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(arrays, before, strict=True)):
        raise UserError(
            "it writes into the dataset, which all columns and seeds share: change copies (array.copy(), tensor.clone())"
        ) from failure
    if isinstance(failure, UserError) and len(own.dataset) > TRIED_ROWS:
        _steps(cell, own)
    elif failure is not None:
        raise failure


def _steps(cell: Cell, problem: OfflineProblem) -> None:
    configs, few = short_configs(cell), cell.task.offline_problem(problem.dataset.head(SHORT_ROWS))
    short = replace(cell, config=cell.config | vars(configs["experience"]), seeds=cell.seeds[:1])
    fits = {name: [kind.fit(few, configs[name], 0, device=cell.device)[0]] for name, kind in cell.algorithm.stages.items()}
    check_resumed_copy(lambda: build(short, fits, problem))
