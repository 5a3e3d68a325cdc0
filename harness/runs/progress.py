"""How far a grid is, while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .ledger import Ledger, Todo


@contextmanager
def progress(results: Path, todo: Sequence[Todo], console: Console | None) -> Iterator[None]:
    """Draws a bar over gradient steps with the time left, read from the run records; quiet where output is no terminal."""
    if console is None or not console.is_terminal or not todo:
        yield
        return
    ended, total = threading.Event(), sum(cell.steps - steps for cell, _, steps in todo)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task(f"{len(todo)} runs", total=total)

        def watch() -> None:
            said = set[str]()
            while not ended.wait(1.0):
                ledger = Ledger(results)
                for cell, seed, _ in todo:
                    for text in ledger.warnings(cell, seed):
                        warning = f"warning: {cell.task.name}/{cell.algorithm.name}/seed-{seed}: {text}"
                        if warning not in said:
                            said.add(warning)
                            bar.console.print(escape(warning))
                steps = sum(max(ledger.steps(cell, seed) - before, 0) for cell, seed, before in todo)
                finished = sum(ledger.state(cell, seed) in ("done", "diverged", "failed") for cell, seed, _ in todo)
                bar.update(line, completed=steps, description=f"{finished}/{len(todo)} runs")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            bar.update(line, completed=total)
