"""`mopo-bench demo`, but for its ten minutes of training."""

from importlib import resources
from pathlib import Path

import pytest
from mopo_bench import results as results_room
from mopo_bench.harness import api
from mopo_bench.harness.api import plan_run
from mopo_bench.harness.runs import runner
from mopo_bench.harness.runs.checkpoints import load_fit
from mopo_bench.harness.runs.fits import bring_fits, fits_of, missing_fits

PACKAGE = Path(str(resources.files(results_room)))


def test_demo_checks_its_jobs_first(command, plan, monkeypatch, tmp_path):
    monkeypatch.setattr(api, "plan_run", lambda **options: plan("sac", results=tmp_path))
    monkeypatch.setattr(runner, "execute", lambda *arguments, **options: pytest.fail("it was run"))
    refused = command("demo", "--jobs", "0", "--results", tmp_path)
    assert refused.code == 2 and "--jobs" in refused.err


def test_the_demo_finds_every_model_of_mujoco_in_the_package(tmp_path):
    """A change of an identity asks for them anew: `mopo-bench run --suite demo --tasks halfcheetah-mixed --algorithms mopo`."""
    plan = plan_run(suite="demo", tasks="halfcheetah-mixed", results=tmp_path)
    assert bring_fits(plan) == 2 and bring_fits(plan) == 0
    fits = fits_of(tmp_path, plan.seeds())
    assert len(fits) == 2 and not missing_fits(plan, [(cell, seed, 0) for cell, seed in plan.seeds()])
    for path in fits:
        record = load_fit(path)["record"]
        assert record["machine"] and "diverged" not in record


def test_the_package_brings_nothing_else(tmp_path):
    """Models of other plans are not among those that it holds, nor one that no demo asks for."""
    assert bring_fits(plan_run(suite="ci", tasks="point-edge", algorithms="mopo", seeds=1, results=tmp_path)) == 0
    asked = fits_of(PACKAGE, plan_run(suite="demo", results=tmp_path).seeds())
    assert set(PACKAGE.glob("stages/*/*/*.pt")) <= set(asked)
