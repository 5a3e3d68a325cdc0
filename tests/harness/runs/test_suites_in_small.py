"""The suites of the paper's figure and appendices, run on a small task, and their tables made of the runs."""

import pytest
from mopo_bench.algorithms.learning.penalties import PENALTIES, SIMULATED
from mopo_bench.harness.api import table
from mopo_bench.harness.report.tables import beside_paper
from mopo_bench.harness.runs.records import Store
from mopo_bench.harness.runs.request import suites
from mopo_bench.harness.runs.runner import execute

TINY = ("--seeds", 1, "--steps", 40, "--evaluate-every", 20, "--episodes", 2, "--jobs", 1, "--rows", 1_000)
SETTINGS = {
    "all.batch_size": 32,
    "all.hidden": "16,16",
    "all.rollout_length": 2,
    "all.rollout_states": 50,
    "all.rollout_every": 20,
    "all.dynamics.hidden": "16,16,16",
    "all.dynamics.weight_decays": "1e-5,1e-5,1e-5,1e-5",
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


@pytest.fixture(scope="module")
def penalties():
    return suites()["ablation"]["settings"]["mopo.penalty"]


def test_ablation(run_suite, penalties):
    """Every penalty for real: each its own run on the one fit, the simulator's named in every table."""
    assert set(penalties) == {*PENALTIES, *SIMULATED}
    folder, runs = run_suite("ablation")
    mopo = {run.cell["config"]["penalty"]: run for run in runs if run.algorithm == "mopo"}
    assert set(mopo) == set(penalties) and {run.state for run in runs} == {"done"} and len(runs) == len(penalties) + 2
    assert len({run.record["stages"]["dynamics"] for run in mopo.values()}) == 1
    uncertainty = {name: run.evaluations[-1]["vitals"]["dataset_uncertainty"] for name, run in mopo.items()}
    assert uncertainty["none"] == 0 and len(set(uncertainty.values())) == len(penalties)
    assert uncertainty["max_variance"] > 0 and uncertainty["max_std_elites"] <= uncertainty["max_std"]
    assert [name for name, run in mopo.items() if run.cell["about"]["needs_simulator"]] == ["true_error"]
    for name in ("ablation", "scores", "aggregate"):
        text = table(name, folder, "html")
        assert "Needs the simulator, as no offline algorithm may: mopo [penalty=true_error] on point-edge." in text, name
    table_of = beside_paper("ablation", runs)
    assert table_of.columns[-1] == "point-edge" and all(row[-1].mean is not None for row in table_of.rows)


def test_true_error_is_refused_before_training(command, tmp_path):
    words = ("--tasks", "halfcheetah-jump", "--algorithms", "mopo", "--rows", 300, "--results", tmp_path / "runs")
    refused = command("run", *words, "--set", "mopo.penalty=true_error", "--task-set", "halfcheetah-jump.z_reference=reset")
    assert refused.code == 2 and "which no observation holds" in refused.err and len(refused.err.splitlines()) == 1
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_true_error_resumes_as_it_would_have_gone_on(plan, tmp_path):
    """The simulator remembers nothing: a resumed run replays its rollouts, and their rewards, bit by bit."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    settings = {"mopo.penalty": "true_error", "mopo.retained_rollouts": 1}
    for results, steps in ((whole, [60]), (half, [30, 60])):
        for until in steps:
            execute(plan("mopo", results=results, steps=until, evaluate_every=30, settings=settings), 1)
    (first,), (second,) = (list(Store(folder).runs()) for folder in (whole, half))
    assert first.evaluations == second.evaluations and first.evaluations[-1]["step"] == 60


def test_appendix_e(run_suite):
    """A run for each angle, each on the rewards of its own; what the suite says of tasks that are not run is left out."""
    folder, runs = run_suite("appendix-e", "--rows", 300, "--episodes", 1, tasks="ant-angle")
    means = {run.cell["rules"]["parameters"]["angle"]: run.cell["data"]["return_mean"] for run in runs}
    assert set(means) == {30.0, 45.0, 60.0} and len(set(means.values())) == 3
    text = table("appendix-e", folder)
    for row in ("ant-angle", r"ant-angle [angle=45.0]", r"ant-angle [angle=60.0]", "halfcheetah-jump"):
        assert f"\n| {row} |" in text, row
    _, runs = run_suite("appendix-e")
    assert [(run.algorithm, run.state) for run in runs if run.task == "point-edge"] == [("mopo", "done")]
