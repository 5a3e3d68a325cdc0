"""Tasks and algorithms of other packages: modules named in the entry-point group `mopo_bench`, imported once when needed.

A package that brings its own says in its pyproject.toml:  [project.entry-points.mopo_bench]  anything = "its.module"
"""

from __future__ import annotations

from importlib.metadata import entry_points

_loaded = False


def load_plugins() -> None:
    global _loaded
    if not _loaded:
        _loaded = True  # before loading: a plug-in may itself ask for a registered task
        for entry in entry_points(group="mopo_bench"):
            entry.load()
