"""The one place that reaches into joblib: worker processes that can be ended at once, which its public interface cannot do.

joblib carries loky within itself; should that change, the package of that name has the same classes.
"""

from __future__ import annotations

try:
    from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
except ImportError:  # pragma: no cover - a joblib without its own copy depends on loky
    from loky import ProcessPoolExecutor, get_reusable_executor  # type: ignore[no-redef]

__all__ = ["ProcessPoolExecutor", "end_workers"]


def end_workers() -> None:
    """Ends joblib's worker processes at once, whatever they are doing; files are replaced whole, so nothing is half-written."""
    get_reusable_executor().shutdown(wait=True, kill_workers=True)
