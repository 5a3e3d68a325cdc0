"""Tasks and algorithms of other packages: modules in the entry-point group `mopo_bench`, imported when first needed.

A package names the module that registers its tasks and algorithms in its pyproject.toml:

    [project.entry-points.mopo_bench]
    anything = "its.module"
"""

from __future__ import annotations

from importlib.metadata import entry_points

_loaded = False


def load_plugins() -> None:
    """Imports the modules of all installed plug-ins, the first time it is called."""
    global _loaded
    if not _loaded:
        _loaded = True  # before loading: a plug-in may itself ask for a registered task
        for entry in entry_points(group="mopo_bench"):
            entry.load()
