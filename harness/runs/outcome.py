"""What came of a grid, in plain lines, for the command line and Python alike."""

from __future__ import annotations

from pathlib import Path

from .plan import Plan
from .records import held


def outcome_lines(plan: Plan, ended: dict[str, list[str]]) -> list[str]:
    """The runs by the state in which they ended, as `execute` gives them, why others are not done, and what to know of all."""
    lines = [
        f"{state}: {len(runs)}" + (f" ({', '.join(runs)})" if state != "done" else "") for state, runs in sorted(ended.items())
    ]
    for cell, seed in plan.undone():
        busy, name = at_work(cell.seed_folder(seed)), f"{cell.task.name}/{cell.algorithm.name}/seed-{seed}"
        if not busy:  # now its record stands still: what it says may have come since it was read, by another command
            plan.ledger.forget([cell.seed_folder(seed)])
        state = plan.ledger.state(cell, seed)
        reason = "another process is at work on it" if busy else plan.ledger.reason(cell, seed)
        lines.append(f"{state}: {name}: {'by another process' if state == 'done' else reason}")
    lines = [*plan.ledger.repaired, *(lines or ["Everything was done already."])]
    for cell, seed in plan.seeds():
        for text in plan.ledger.warnings(cell, seed):
            lines.append(f"warning: {cell.task.name}/{cell.algorithm.name}/seed-{seed}: {text}")
    where = f"Run records are in {plan.results}; `mopo-bench table scores --results {plan.results}` prints them."
    return [*lines, where]


def at_work(folder: Path) -> bool:
    """Whether a process holds a run, here or on another machine that shares the folder."""
    if not folder.is_dir():
        return False
    with held(folder) as free:
        return not free
