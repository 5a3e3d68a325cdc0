"""The commands that run a group of recorded runs once more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..runs.records import Run
from ..runs.request import seeds_in_option
from .groups import Group, changed_parameters, last_step

ASKED = {"v0": "d4rl", "v2": "d4rl-v2", "regenerated": "regenerated"}  # by the source of a dataset, changed or not
DIGITS = 12  # of a dataset's digest, in a command


def repeat_commands(group: Group) -> list[str]:
    """`mopo-bench run ...` with the task, parameters, dataset, settings, seeds, steps and evaluations of these runs.

    One for all seeds that were to be run and evaluated alike, mostly for all. With the versions that made them it gives their
    identity; where the name of the dataset stands for other data by then, it refuses to run. A dataset of a user's own is named
    by the path that it had.
    """
    digest = str(group.data["digest"])[:DIGITS]
    words = [*dataset_options(group.cell), "--data-digest", digest]
    for key, value in sorted(group.cell.get("overrides", {}).items()):
        words += ["--set", f"{group.algorithm}.{key}={_spelled(value)}"]
    words += task_options(group.task, group.cell)
    longest, seeds = max(group.runs, key=last_step), dict[tuple[str, ...], list[int]]()
    for run in group.runs:
        seeds.setdefault(_budget(run, longest), []).append(run.seed)
    which = ["mopo-bench", "run", "--tasks", group.task, "--algorithms", group.algorithm, "--seeds"]
    return [shlex.join([*which, seeds_in_option(alike), *budget, *words]) for budget, alike in seeds.items()]


def task_options(task: str, cell: Mapping[str, Any]) -> list[str]:
    """The options of the parameters of its task that are not the registered one's."""
    return [word for parameter in changed_parameters(task, cell) for word in ("--task-set", f"{task}.{parameter}")]


def dataset_options(cell: Mapping[str, Any]) -> list[str]:
    """The options of its dataset, from the request in `cell.json`, or in older ones from what they say of the data."""
    data, asked = cell["data"], cell.get("dataset")
    if not asked:
        made = data.get("source") == "regenerated"
        rows = data.get("whole", data).get("rows") if made else None
        asked = {"rows": rows, "seed": data.get("provenance", {}).get("seed") or 0}
    source = str(data.get("source", "")).removesuffix("-changed")
    words = ["--dataset", str(asked["file"])] if asked.get("file") else ["--data", ASKED.get(source, "auto")]
    for option, value, usual in (
        ("--rows", asked.get("rows"), None),
        ("--window", data.get("window", "all"), "all"),
        ("--data-seed", asked.get("seed", 0), 0),
    ):
        if value != usual:
            words += [option, str(value)]
    return words + ["--clip-actions"] * bool(asked.get("clip_actions"))


def _budget(run: Run, longest: Run) -> tuple[str, ...]:
    """The options of its steps, of the steps between evaluations and of the episodes of the last, as far as records say.

    What a run has not come to is as in the longest of its group.
    """
    if not longest.evaluations:
        return ()
    whole, begun = run if run.state == "done" else longest, run if run.evaluations else longest
    episodes = len(whole.evaluations[-1]["returns"])
    numbers = {"--steps": last_step(whole), "--evaluate-every": begun.evaluations[0]["step"], "--episodes": episodes}
    return tuple(word for option, number in numbers.items() for word in (option, str(number)))


def _spelled(value: Any) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
