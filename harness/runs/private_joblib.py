"""The one place that reaches into joblib: worker processes that can be ended at once, which its public interface cannot do.

joblib carries loky within itself; should that change, the package of that name has the same classes.
"""

from __future__ import annotations

import queue

try:
    from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
except ImportError:  # pragma: no cover - a joblib without its own copy depends on loky
    from loky import ProcessPoolExecutor, get_reusable_executor  # type: ignore[no-redef]

__all__ = ["ProcessPoolExecutor", "end", "end_workers"]


def end_workers() -> None:
    """Ends joblib's worker processes at once, whatever they are doing; files are replaced whole, so nothing is half-written."""
    end(get_reusable_executor())


def end(executor: ProcessPoolExecutor) -> None:
    """Kills the executor's processes, and waits until they are gone.

    The executor's thread looks up each job that waits by its number, and dies with a KeyError of one that a shutdown has
    thrown away already (loky 3.5). So no number is left to it, under the lock that every submission takes.
    """
    with executor._shutdown_lock:
        executor._flags.shutdown = executor._flags.kill_workers = True
        while True:
            try:
                executor._work_ids.get(block=False)
            except queue.Empty:
                break
    executor.shutdown(wait=True, kill_workers=True)
