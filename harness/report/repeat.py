"""The command that runs a group of recorded runs once more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .groups import Group, changed_parameters, last_step

ASKED = {"v0": "d4rl", "v2": "d4rl-v2", "regenerated": "regenerated"}  # by the source of a dataset, changed or not


def repeat_command(group: Group) -> str:
    """`mopo-bench run ...` with the task, parameters, dataset, settings, seeds, steps and evaluations of these runs.

    With the versions that made them, and the same dataset behind its name, it gives their identity. A dataset of a user's own
    is named by the path that it had.
    """
    words = ["mopo-bench", "run", "--tasks", group.task, "--algorithms", group.algorithm]
    words += ["--seeds", ",".join(str(run.seed) for run in group.runs)]
    words += [*dataset_options(group.cell), *_budget(group)]
    for key, value in sorted(group.cell.get("overrides", {}).items()):
        words += ["--set", f"{group.algorithm}.{key}={_spelled(value)}"]
    return shlex.join([*words, *task_options(group.task, group.cell)])


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


def _budget(group: Group) -> list[str]:
    """Steps, the steps between evaluations and the episodes of the last of them, as far as the records say."""
    longest = max(group.runs, key=last_step)
    if not longest.evaluations:
        return []
    steps = [row["step"] for row in longest.evaluations]
    words = ["--steps", str(steps[-1]), "--evaluate-every", str(steps[0])]
    return [*words, "--episodes", str(len(longest.evaluations[-1]["returns"]))]


def _spelled(value: Any) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
