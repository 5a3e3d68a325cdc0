"""Tasks and algorithms of other packages: modules in the entry-point group `mopo_bench`, imported when first needed.

A package names the module that registers its tasks and algorithms in its pyproject.toml:

    [project.entry-points.mopo_bench]
    anything = "its.module"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import FOREIGN, UserError

_loaded = False
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")  # a folder of results bears it, and the command line reads it
TAKEN = ("all", "stages", "slurm", "set-aside")  # `--set all.KEY`, and folders of results that are no task's


def origin_of(namespace: Mapping[str, Any]) -> str:
    """The module of a namespace. One that runs as `python -m NAME` or `python NAME.py` is NAME, as where it is imported."""
    name = str(namespace.get("__name__", ""))
    if name != "__main__":
        return name
    if specification := namespace.get("__spec__"):
        return str(specification.name).removesuffix(".__main__")
    return Path(namespace["__file__"]).stem if "__file__" in namespace else name


def load_plugins() -> None:
    """Imports the modules of all installed plug-ins, the first time it is called.

    One that cannot be imported is named by one line on standard error; what it registered before it failed stays.
    """
    global _loaded
    if not _loaded:
        _loaded = True  # before loading: a plug-in may itself ask for a registered task
        for entry in entry_points(group="mopo_bench"):
            try:
                entry.load()
            except FOREIGN as error:
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                package = f" of {entry.dist.name}" if entry.dist else ""
                print(f"mopo-bench: plug-in {entry.name} ({entry.value}{package}) does not load: {why}", file=sys.stderr)


def checked_name(kind: str, name: str, known: dict[str, str], origin: str, replace: bool) -> None:
    """Raises UserError for a name that a folder or the command line could not bear, or that another module registered.

    known: the origins of what is registered, by name. The same module may register a name again, as a notebook does.
    """
    if not NAME.fullmatch(name) or name in TAKEN:
        raise UserError(f"{kind} {name!r}: a name is made of letters, digits, +, -, _ and ., and is none of {', '.join(TAKEN)}")
    if name in known and known[name] != origin and not replace:
        raise UserError(f"{kind} {name!r} is registered by {known[name]} already: choose another name, or say replace=True")
