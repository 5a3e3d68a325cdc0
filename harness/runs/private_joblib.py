"""The one place that reaches into joblib: worker processes that can be ended at once, which its public interface cannot do.

joblib carries loky within itself; should that change, the package of that name has the same classes.
"""

from __future__ import annotations

import os
import queue
import signal
from contextlib import suppress

try:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.backend import resource_tracker
    from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError
except ImportError:  # pragma: no cover - a joblib without its own copy depends on loky
    from loky import ProcessPoolExecutor  # type: ignore[no-redef]
    from loky.backend import resource_tracker  # type: ignore[no-redef]
    from loky.process_executor import BrokenProcessPool, ShutdownExecutorError  # type: ignore[no-redef]

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "ShutdownExecutorError", "ask", "end", "processes", "ready_to_start"]


def ready_to_start() -> None:
    """Said by the main thread before processes are started with Ctrl-C blocked.

    Python's own tracker of resources, which loky starts with its first process, unblocks it in the thread that starts it
    (CPython 3.11); once it runs it is not started again. Loky's own clears away the semaphores of a process that left at once,
    and would warn of each where the user reads one line.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()


def processes(executor: ProcessPoolExecutor) -> dict[int, object]:
    """The executor's processes, which have an `exitcode`, by their number."""
    return dict(executor._processes)


def ask(executor: ProcessPoolExecutor) -> None:
    """Asks the executor's processes to stop, by SIGTERM."""
    for process in processes(executor):
        with suppress(OSError):
            os.kill(process, signal.SIGTERM)


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
