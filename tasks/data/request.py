"""Which dataset of a task is wanted, and the choices there are, for readers, downloads and command-line options alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from ...common.settings import Choice

SOURCES = Choice("auto", "d4rl", "d4rl-v2", "regenerated")
VERSIONS = Choice("v0", "v2", "all")  # of D4RL's files; v0 is the paper's
# the rows that a window keeps: MOPO's code trained on a ring of a million, D4RL's BC and BRAC runs read the first million
WINDOWS = {"all": slice(None), "last_1m": slice(-1_000_000, None), "first_1m": slice(1_000_000)}

Source = Annotated[str, SOURCES]
Version = Annotated[str, VERSIONS]
Window = Annotated[str, Choice(*WINDOWS)]


@dataclass(frozen=True)
class DatasetRequest:
    """Which dataset of a task is wanted.

    source: "auto" is D4RL's v0 file where it is on this machine, else a regenerated dataset. "d4rl-v2" is never chosen by
        itself, since its scores do not compare with v0's.
    rows: of a regenerated dataset; None is the recipe's own number.
    window: see `OfflineDataset.window`.
    file: the user's own HDF5 file in D4RL's layout, instead of any source.
    seed: of a regenerated dataset.
    clip_actions: accepts actions outside the action box, and clips them.
    """

    source: Source = "auto"
    rows: int | None = None
    window: Window = "all"
    file: Path | None = None
    seed: int = 0
    clip_actions: bool = False

    def describe(self) -> dict[str, Any]:
        """The request as JSON holds it; a file by its whole path."""
        return asdict(self) | {"file": None if self.file is None else str(self.file.absolute())}
