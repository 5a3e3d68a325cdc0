"""The suites of the paper's figure and appendices, run on a small task, and their tables made of the runs."""

import pytest
from mopo_bench.harness.api import table
from mopo_bench.harness.runs.records import Store

TINY = ("--seeds", 1, "--steps", 40, "--evaluate-every", 20, "--episodes", 2, "--jobs", 1, "--rows", 1_000)
SETTINGS = {
    "all.batch_size": 32,
    "all.hidden": "16,16",
    "all.rollout_length": 2,
    "all.rollout_states": 50,
    "all.rollout_every": 20,
    "all.dynamics.hidden": "16,16,16",
    "all.dynamics.max_epochs": 1,
}


@pytest.fixture
def run_suite(command, tmp_path):
    """Runs a suite with tiny settings, on point-edge unless other words say otherwise; gives the folder and its runs."""

    def run(suite, *words, tasks="point-edge"):
        folder = tmp_path / suite
        settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
        done = command("run", "--suite", suite, "--tasks", tasks, "--results", folder, *TINY, *settings, *words)
        assert done.code == 0, done.err
        return folder, list(Store(folder).runs())

    return run


def test_figure_1(run_suite):
    folder, runs = run_suite("figure1")
    fits = {run.algorithm: run.record["stage_records"]["dynamics"] for run in runs if run.algorithm != "sac"}
    assert {run.algorithm: run.state for run in runs} == {"sac": "done", "mbpo-single": "done", "mbpo": "done"}
    assert [len(fits[name]["holdout_error"]) for name in ("mbpo-single", "mbpo")] == [1, 7]
    assert fits["mbpo-single"]["elites"] == [0] and fits["mbpo-single"]["elite_error_ratio"] is None
    text = table("figure1", folder)
    assert "MBPO, one network" in text and "| point-edge |" in text
