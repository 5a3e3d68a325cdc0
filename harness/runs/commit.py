"""Which commit the code comes from: asked of git, or of the file that a build leaves beside this one.

`setup.py` runs this file by itself, so that it imports nothing but Python's own.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> str | None:
    """The commit this package is imported from, or was built from, "-dirty" if changed; None where nobody knows.

    The tree is only read: `git describe --dirty` would write its index, and on a full disk leave a lock behind.
    """
    here = Path(__file__).resolve()
    root, built_from = here.parents[2], here.with_name("COMMIT")
    if not (root / ".git").exists():
        return built_from.read_text(encoding="utf-8").strip() if built_from.exists() else None

    def answer(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # git is not installed
            return ""

    name = answer("describe", "--always", "--abbrev=12")
    return name + "-dirty" * bool(answer("status", "--porcelain", "--untracked-files=no")) if name else None
