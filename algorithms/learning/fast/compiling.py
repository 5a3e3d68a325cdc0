"""Whether the steps of a run are compiled: `--compile auto`, `on` or `off`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from ....common.errors import UserError

# A graph takes 15 to 85 s where it is compiled for the first time, and a few seconds later on, out of torch's cache; a compiled
# step saves 1 to 6 ms, in small networks as in large ones (docs/speed.md). Some algorithms have two graphs.
LONG_RUN = 50_000  # steps


class Compile(StrEnum):
    """What can be asked for."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass(frozen=True)
class Compilation:
    """What was decided, and why, in a few words for the run record. It is no part of a run's identity."""

    wanted: Compile = Compile.off
    compiled: bool = False
    why: str = "off"


def decide(wanted: str | bool, steps: int, device: str = "cpu") -> Compilation:
    """Of a run of so many steps. UserError where "on" is wanted and nothing can be compiled here.

    auto: runs from `LONG_RUN` steps, where a compiler works. All steps of the run count, not those that are left of it: a run
    that was stopped goes on as it was begun, and ends with the numbers of an undisturbed one. One that is extended beyond
    `LONG_RUN` later on is compiled from then on, which its segments say.
    """
    wanted = checked(wanted)
    if wanted is Compile.off:
        return Compilation(wanted, False, "off")
    if wanted is Compile.auto and steps < LONG_RUN:
        return Compilation(wanted, False, f"auto: fewer than {LONG_RUN:,} steps")
    trouble = compiler_trouble(device)
    if wanted is Compile.auto:
        return Compilation(wanted, not trouble, f"auto: {trouble or f'at least {LONG_RUN:,} steps, and a compiler'}")
    if trouble:
        raise UserError(f"--compile on: {trouble}; install a C++ compiler such as g++, or take --compile auto")
    return Compilation(wanted, True, "on")


def checked(wanted: str | bool) -> Compile:
    if isinstance(wanted, bool):
        return Compile.on if wanted else Compile.off
    if wanted not in list(Compile):
        raise UserError(f"unknown compile={wanted!r}: choose auto, on or off")
    return Compile(wanted)


@cache
def compiler_trouble(device: str = "cpu") -> str | None:
    """Why nothing can be compiled here, in a few words; None where it can. Some seconds, once in a process.

    torch.compile wants a C++ compiler that finds its headers, or Triton on a GPU. So one line is compiled in earnest, with a
    number in it that no cache can know.
    """
    import torch  # not above: `mopo-bench --help` reads this file, and does not want the seconds that torch takes

    number = time.time()
    try:
        torch.compile(lambda values: values * number, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return f"nothing can be compiled here ({next((line for line in lines if ' error: ' in line), lines[0])})"
    return None
