"""joblib's own process pools, which it keeps for itself, in one place; where they are gone, Python's stand in for them."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor

try:
    from joblib.externals import loky
except ImportError:
    loky = None


def process_pool(processes: int, idle_seconds: float) -> Executor:
    """Processes for work beside this one; joblib's end by themselves when they have had none for `idle_seconds`."""
    if loky is None:
        return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    return loky.ProcessPoolExecutor(processes, timeout=idle_seconds)


def close_pool(pool: Executor) -> None:
    """Ends the pool's processes: joblib's in the midst of their work, Python's when they are done with what they have begun."""
    if loky is None:
        pool.shutdown(wait=True, cancel_futures=True)
    else:
        pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]


def kill_workers() -> None:
    """Ends the processes of `joblib.Parallel` in the midst of their work; without joblib's help they end with this process."""
    if loky is not None:
        loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)
