"""Run records as pandas DataFrames: runs, evaluations and fits, a row each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...common.trees import dotted
from ..runs.ledger import reason
from ..runs.records import Run, begun, episodes_of, made_with
from .groups import RowKey, grouped, is_counted, labelled, score_of
from .shared_fits import fit_record, which_fit
from .statistics import aggregate

if TYPE_CHECKING:
    import pandas

KEY = ("task", "algorithm", "identity", "seed")  # of a run, in all three frames but for the algorithm of a fit


class Frames(NamedTuple):
    """What a folder of run records holds, as tidy pandas DataFrames.

    runs: a row per run. `task`, `algorithm`, `identity` (of all that decides its numbers but the seed) and `seed` say which;
        `label` is its column in a table; `state` is running, failed, diverged or done, `reason` says why it is not done;
        `steps` of training took `seconds`; `return` is the mean of its last evaluation, `score` the same normalised (NaN
        without reference returns); `data`, `data_rows`, `data_return_max` (its best episode) and `window` are its dataset;
        `data_digest` the SHA-256 of its arrays; `parameters` those of the task that are not its own, `overrides` the settings
        that were chosen, both as text; it was `begun` (UTC), with `versions` of packages, at a `commit` of this project;
        `imported` is the code that made it where this project did not.
    evaluations: a row per evaluation. The four keys of a run, `step`, `episodes` (NaN where an imported curve does not say),
        `return_mean`, `return_std` over episodes, `score`, and all that was stored beside, as `metrics.critic_loss` and
        `vitals.target_lag`.
    fits: a row per fit that a run stands on. `task`, `stage`, `identity` (the fit's own), `seed`, `algorithms` that share it,
        and every number that was recorded of it, such as `epochs`, `holdout_error` and `seconds`.
    """

    runs: pandas.DataFrame
    evaluations: pandas.DataFrame
    fits: pandas.DataFrame


RUN_COLUMNS = (
    *(*KEY, "label", "state", "reason", "steps", "seconds", "return", "score"),
    *("data", "data_rows", "data_return_max", "data_digest", "window", "parameters", "overrides"),
    *("begun", "versions", "commit", "imported"),
)
EVALUATION_COLUMNS = (*KEY, "step", "episodes", "return_mean", "return_std", "score")
NUMBERS = ("seconds", "data_return_max", "return", "return_mean", "return_std", "score")
FIT_COLUMNS = ("task", "stage", "identity", "seed", "algorithms")


def frames(runs: Iterable[Run]) -> Frames:
    """The frames of these runs; those of none have their columns and no rows."""
    runs = list(runs)
    groups = labelled(grouped(runs))
    labels = {(group.key, group.identity): group.label for group in groups}
    made = (
        (RUN_COLUMNS, [_run_row(run, labels[RowKey.of(run), run.identity]) for run in runs]),
        (EVALUATION_COLUMNS, [_evaluation_row(run, row) for run in runs for row in run.evaluations]),
        (FIT_COLUMNS, _fit_rows(runs)),
    )
    return Frames(*(_frame(columns, rows) for columns, rows in made))


def _frame(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> pandas.DataFrame:
    from pandas import DataFrame  # half a second

    others = dict.fromkeys(name for row in rows for name in row if name not in columns)
    made = DataFrame(rows, columns=[*columns, *others])
    return made.astype({name: float for name in NUMBERS if name in made})  # None, where there is none, is NaN


def _key(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in KEY}


def _run_row(run: Run, label: str) -> dict[str, Any]:
    value, data = aggregate(run.evaluations, "last") if is_counted(run) else None, run.cell["data"]
    made = made_with([run.record])
    commits = made.pop("commit", [])
    return {
        **_key(run),
        "label": label,
        "state": run.state,
        "reason": "" if run.state == "done" else reason(run.record),
        "steps": run.steps,
        "seconds": run.record.get("seconds"),
        "return": value,
        "score": None if value is None else score_of(run.task, value),
        "data": data["label"],
        "data_rows": data["rows"],
        "data_return_max": data.get("return_max"),
        "data_digest": data.get("digest", ""),
        "window": data["window"],
        "parameters": ", ".join(RowKey.of(run).parameters),
        "overrides": ", ".join(f"{name}={value}" for name, value in sorted(run.cell.get("overrides", {}).items())),
        "begun": begun([run.record]),
        "versions": ", ".join(f"{name} {version}" for name, versions in made.items() for version in versions),
        "commit": ", ".join(commits),
        "imported": str(run.cell["versions"].get("code", "")) if run.cell.get("imported") else "",
    }


def _evaluation_row(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_key(run),
        **dotted(row, but="returns"),  # of single episodes
        "episodes": len(row["returns"]) if episodes_of(run) else None,
        "score": score_of(run.task, row["return_mean"]),
    }


def _fit_rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row per fit, whichever runs stand on it; one made anew has its own where its numbers are others."""
    users: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        for stage, identity in run.record.get("stages", {}).items():
            users.setdefault((stage, identity, run.seed), []).append(run)
    rows = []
    for (stage, identity, seed), here in users.items():
        fits: dict[int, list[Run]] = {}
        for number, run in zip(which_fit([fit_record(run, stage) for run in here]), here, strict=True):
            fits.setdefault(number, []).append(run)
        for of_fit in fits.values():
            fullest = max((fit_record(run, stage) for run in of_fit), key=len)
            algorithms = ", ".join(sorted({run.algorithm for run in of_fit}))
            key = {"task": here[0].task, "stage": stage, "identity": identity, "seed": seed, "algorithms": algorithms}
            rows.append({**key, **dotted(fullest, but="returns")})
    return rows
