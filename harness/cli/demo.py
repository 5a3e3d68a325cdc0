"""`mopo-bench demo`: the main job in small."""

from __future__ import annotations

from pathlib import Path

from ..runs.interrupts import interrupts_held
from .options import Results, checked_count, console
from .run import Jobs, report


def demo(results: Results = Path("runs/demo"), jobs: Jobs = None) -> None:
    """The main job in small, from nothing to a printed table: about ten minutes on two cores.

    Example: mopo-bench demo
    """
    with interrupts_held():
        from ..api import make_table, plan_run
        from ..runs.fits import bring_fits
        from ..runs.runner import execute

    console.print("A small task and one of MuJoCo: training BC, MOPO, MBPO and SAC on two seeds.")
    plan = plan_run(suite="demo", results=results)
    jobs = checked_count("--jobs", plan.usual_jobs if jobs is None else jobs)
    if brought := bring_fits(plan):
        console.print(f"{brought} dynamics models come with the package: each took a core ten minutes.")
    outcome = execute(plan, jobs, console=console)
    console.print(*make_table("scores", results, "text", "last"), sep="\n")
    report(outcome, plan)
