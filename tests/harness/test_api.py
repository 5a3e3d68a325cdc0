"""The harness from Python: what it takes, what it refuses, what it says while it runs, and its DataFrames."""

import inspect
import re
from dataclasses import fields

import numpy as np
import pytest
import typer
from mopo_bench import UserError, evaluate, load, load_policy, plot, register_algorithm, report, run, table
from mopo_bench.algorithms.learning.registry import all_algorithms
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.cli.app import app
from mopo_bench.harness.report.frames import EVALUATION_COLUMNS, FIT_COLUMNS, RUN_COLUMNS
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.request import RunRequest

SMALL = {"steps": 20, "evaluate_every": 10, "episodes": 2, "settings": {"hidden": (8,)}, "jobs": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(tasks="point-angle", algorithms="bc,mopo,mbpo", seeds=2, results=folder, **{**SMALL, "settings": SETTINGS})
    return folder


SETTINGS = {"hidden": (8,), "rollout_states": 50, "dynamics.max_epochs": 1, "dynamics.hidden": (8, 8, 8)}


def test_python_takes_what_the_command_takes():
    own = {"suite", "grid", "results", "jobs", "group", "backend", "scheduler", "rerun"}
    asked = {each.name for each in fields(RunRequest) if "help" in each.metadata}
    taken = inspect.signature(run).parameters
    assert set(taken) == asked | own | {"quiet"} and all(each.annotation is not each.empty for each in taken.values())
    command = typer.main.get_command(app).commands["run"]
    assert {each.name for each in command.params} - {"print_grid", "dry_run", "yes"} == asked | own
    words = {each.name.rstrip("_") for each in typer.main.get_command(app).commands["table"].params}
    assert set(inspect.signature(table).parameters) == words


@pytest.mark.parametrize(
    "one",
    [
        {"tasks": "point-angle", "algorithms": "bc", "seeds": 1},
        {"tasks": ("point-angle",), "algorithms": {"bc"}, "seeds": np.int64(1)},
        {"tasks": (name for name in ["point-angle"]), "algorithms": ["bc"], "seeds": np.arange(1)},
    ],
)
def test_one_or_several(one, tmp_path):
    (done,) = run(**one, results=tmp_path, **SMALL)
    assert (done.task, done.algorithm, done.seed, done.state) == ("point-angle", "bc", 0, "done")


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"tasks": 3}, "unknown task"),
        ({"tasks": [None]}, "unknown task"),
        ({"algorithms": None}, "--algorithms"),
        ({"seeds": 1.5}, "--seeds"),
        ({"jobs": 0}, "--jobs"),
        ({"group": "two"}, "--group"),
        ({"steps": [3]}, "--steps"),
        ({"settings": 3}, "--set 3"),
        ({"settings": [("hidden",)]}, "--set"),
        ({"dataset": 3}, "--dataset 3"),
        ({"results": None}, "--results None"),
        ({"grid": 3}, "--grid 3"),
        ({"suite": 3}, "unknown suite"),
    ],
)
def test_refused_in_one_line(wrong, word, tmp_path):
    with pytest.raises(UserError, match=word) as refused:
        run(**{"tasks": "point-angle", "algorithms": "bc", "results": tmp_path, **wrong})
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "asked, word",
    [
        (("scores", "no-such-folder"), "no-such-folder"),
        ((3,), "unknown table"),
        (("scors",), "'scores'"),
        (("scores", None), "--results None"),
        (("scores", ".", "docx"), "unknown format"),
    ],
)
def test_a_table_is_refused_in_one_line(asked, word, results):
    name, folder, *others = (*asked, results)[:2] + asked[2:]
    with pytest.raises(UserError, match=word):
        table(name, folder, *others)


class Breaks(SAC):
    def update(self, batch, noise, phase):
        raise ZeroDivisionError("a [bug]")


def test_what_failed_is_said(capsys, tmp_path):
    register_algorithm("breaks", Breaks)
    try:
        runs = run(tasks="point-angle", algorithms="bc,breaks", seeds=1, results=tmp_path, **SMALL)
    finally:
        del all_algorithms()["breaks"]
    assert {each.algorithm: each.state for each in runs} == {"bc": "done", "breaks": "failed"}
    said = capsys.readouterr()
    assert said.out == "" and "failed: point-angle/breaks/seed-0: ZeroDivisionError: a [bug]" in said.err
    runs = load(tmp_path).runs.set_index("algorithm")
    assert runs.reason["breaks"].startswith("ZeroDivisionError: a [bug] (test_api.py, line ")
    assert runs.reason["bc"] == "" and np.isnan(runs["return"]["breaks"])


def test_quiet_says_nothing(capfd, tmp_path):
    run(tasks="point-angle", algorithms="bc", seeds=1, results=tmp_path, quiet=True, **SMALL)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_own_settings_stay(fails, results, tmp_path):
    """Products of another precision, tensors of another type or plots of another look would be wrong in silence elsewhere."""
    import matplotlib
    import torch

    def settings():
        threads = re.findall(r"\w+_threads\(\) : \d+", torch.__config__.parallel_info())  # of all its pools
        torch_own = torch.get_default_dtype(), threads, torch.get_float32_matmul_precision()
        colours = [matplotlib.colors.to_hex(letter) for letter in "bgrcmyk"]
        return torch_own, dict(matplotlib.rcParams), matplotlib.rcParams._get_backend_or_none(), colours

    asked = {"tasks": "point-angle", "algorithms": "bc", "seeds": 1, "quiet": True, **SMALL}
    usual = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(2)
    try:
        before = settings()
        if fails:
            with pytest.raises(UserError):
                run(results=tmp_path / "runs", backend="none", **asked)
            with pytest.raises(UserError):
                evaluate(load_policy(results, "point-angle", "bc", 0), "ant-angle")
            with pytest.raises(UserError):
                plot("bars", tmp_path / "a.png", tmp_path)
        else:
            run(results=tmp_path / "runs", **asked)
            evaluate(load_policy(results, "point-angle", "bc", 0), episodes=1)
            plot("bars", tmp_path / "a.png", results)
            report(tmp_path / "report", results)
        assert settings() == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(usual)


def test_frames(results):
    runs, evaluations, fits = load(results)
    assert (*runs.columns,) == RUN_COLUMNS and (*evaluations.columns[: len(EVALUATION_COLUMNS)],) == EVALUATION_COLUMNS
    assert (*fits.columns[: len(FIT_COLUMNS)],) == FIT_COLUMNS
    records = {(each.algorithm, each.seed): each for each in load_runs(results)}
    assert len(runs) == len(records) == 6 and set(runs.state) == {"done"} and set(runs.steps) == {20}
    for row in runs.itertuples():
        record = records[row.algorithm, row.seed]
        assert row.identity == record.identity and runs["return"][row.Index] == record.evaluations[-1]["return_mean"]
    assert len(evaluations) == 12 and evaluations["metrics.critic_loss"].notna().sum() == 8  # BC has no critic
    last = evaluations[evaluations.step == 20].merge(runs, on=["task", "algorithm", "identity", "seed"])
    assert (last.return_mean == last["return"]).all() and set(evaluations.episodes) == {2}
    assert list(fits.seed) == [0, 1] and set(fits.algorithms) == {"mbpo, mopo"} and set(fits.epochs) == {1}
    assert evaluations.score.isna().all() and evaluations.score.dtype == float


def test_frames_of_nothing(tmp_path):
    assert [len(each) for each in load(tmp_path)] == [0, 0, 0]
    with pytest.raises(UserError, match="no results folder"):
        load(tmp_path / "nowhere")


def test_a_table_in_every_way(results, tmp_path):
    assert table("scores", results, "text").startswith("Scores") and "┃ BC" in table("scores", results, "text")
    assert table("scores", results).startswith("**Scores**")
    written = table("scores", results, out=tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == written + "\n" == table("scores", results, "csv") + "\n"
    with pytest.raises(UserError, match="--format"):
        table("scores", results, out=tmp_path / "scores.docx")
