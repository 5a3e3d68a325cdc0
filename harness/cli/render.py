"""`mopo-bench render`: a policy at work, in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_RESULTS, Results, checked_count, console
from .policies import Algorithm, Identity, Sampled, Seed


def render(
    task: Annotated[str, typer.Argument(help="The task in whose environment it acts.")],
    out: Annotated[Path, typer.Option(help="A strip of frames (.png, .jpg, .webp) or a film (.gif, .mp4).")],
    algorithm: Algorithm = None,
    seed: Seed = 0,
    results: Results = DEFAULT_RESULTS,
    identity: Identity = "",
    policy: Annotated[Path | None, typer.Option(help="A file of export-policy or of data collect, instead of a run.")] = None,
    sampled: Sampled = False,
    episode: Annotated[int, typer.Option(help="Seed of the episode's start.")] = 0,
    start: Annotated[int, typer.Option(help="The first frame's step.")] = 100,
    frames: Annotated[int, typer.Option(help="How many frames.")] = 8,
    every: Annotated[int, typer.Option(help="Steps from a frame to the next.")] = 5,
    width: Annotated[int, typer.Option(help="Pixels of a frame.")] = 240,
    height: Annotated[int, typer.Option(help="Pixels of a frame.")] = 192,
    fps: Annotated[int, typer.Option(help="Frames a second of a film.")] = 20,
) -> None:
    """Draws a policy at work, as a strip of frames or as a film; without a run or a file, the policies of the task's dataset.

    Example: mopo-bench render halfcheetah-jump --algorithm mopo --out jump.gif --frames 200 --every 2
    """
    from ..report.film import acting, choose_renderer, record, write_film

    for option, number in (("--frames", frames), ("--every", every), ("--width", width), ("--height", height), ("--fps", fps)):
        checked_count(option, number)
    choose_renderer()
    chosen, act = acting(task, results, algorithm, seed, identity, policy, sampled)
    taken, total = record(
        chosen, act, seed=episode, start=start, stop=start + (frames - 1) * every + 1, every=every, size=(width, height)
    )
    write_film(out, taken, fps)
    console.print(
        f"{out}: {len(taken)} frames from step {start} on, return until then {total:,.0f}", highlight=False, markup=False
    )
