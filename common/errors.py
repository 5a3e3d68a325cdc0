"""What a user can set right, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# What code from outside this package may raise that is its own failure, not the end of what called it.
FOREIGN = (Exception, SystemExit)
# Why a name may be unknown although a script of the user's registers it.
ENTRY_POINT = "one that a script registers is known elsewhere once a package names it as an entry point (docs: extending)"


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do. The command line prints it and exits with 2."""


class WriteError(UserError):
    """A file that cannot be written: mostly a full disk, on which nothing else would come to anything either."""


def in_words(names: Iterable[str]) -> str:
    """A list as one writes it in a sentence: "bc", "bc and sac", "bc, mopo and sac"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def several(count: int, one: str, many: str = "") -> str:
    """A count with its noun: "1 run", "2,000 runs", "3 processes"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """The seeds with their noun: "seed 1", "seeds 1, 2"."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def unknown(kind: str, name: object, known: Iterable[str], command: str = "", also: str = "") -> UserError:
    """The error for a name nobody registered: the nearest one, the command that lists them all, and `also`, another cause.

    Without a command they are listed here.
    """
    lowered = {str(one).lower(): str(one) for one in known}  # tables print MOPO, the command line takes mopo
    nearest = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.4)
    hint = f"did you mean {lowered[nearest[0]]!r}? " if nearest else ""
    there = in_words(sorted(lowered.values())) if lowered else "none"
    where = f"`{command}` shows all" if command else f"there {'are' if len(lowered) > 1 else 'is'} {there}"
    return UserError(f"unknown {kind} {name!r}: {hint}{where}{also and f'; {also}'}")
