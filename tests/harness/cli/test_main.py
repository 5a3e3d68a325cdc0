"""The command line: what it refuses and how, what scripts may rely on, how it is stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mopo_bench.common.errors import UserError
from mopo_bench.harness.cli.app import app
from mopo_bench.harness.cli.main import main
from mopo_bench.harness.cli.options import labels
from mopo_bench.harness.runs.ledger import choices_of, load_runs
from mopo_bench.harness.runs.request import RunRequest
from mopo_bench.harness.runs.runner import execute
from typer.main import get_command

RUN = ("run", "--tasks", "point-angle", "--algorithms")
SAC = (*RUN, "sac")
MOPO = (*RUN, "mopo")


def setting(text):
    return (*MOPO, "--set", text, "--steps", "2")


# Words of the command line, and a word of the complaint: the nearest name, the option or the file at fault.
REFUSED = [
    (("rum",), "'run'"),
    (("statsu",), "'status'"),
    (("nonsense",), "nonsense"),
    (("data", "lst"), "'list'"),
    ((*SAC, "--nope", "3"), "--nope"),
    ((*SAC, "--step", "3"), "--steps"),
    (("run", "--tasks", "hoper-medium", "--algorithms", "sac"), "'hopper-medium'"),
    (("run", "--tasks", "nothing-like-it", "--algorithms", "sac"), "list tasks"),
    ((*RUN, "mopoo"), "'mopo'"),
    ((*RUN, "awac"), "entry point"),
    (
        ("run", "--tasks", "hopper-mixed,walker2d-mixed,ant-angle", "--algorithms", "bc", "--data", "d4rl"),
        "walker_mixed.hdf5 are not in",
    ),
    ((*SAC, "--set", "rollout_length=1"), "none of the algorithms of this run (sac) has it"),
    (("run", "--suite", "tabel1"), "'table1'"),
    (("run",), "--tasks"),
    (("run", "--tasks", "point-angle"), "--algorithms"),
    (("list", "nothing"), "algorithms"),
    (("table", "table3"), "table1"),
    (("table", "table1", "--format", "docx"), "markdown"),
    (("table", "table1", "--metric", "worst"), "mean10"),
    (("table", "table1", "--results", "no-such-folder"), "no-such-folder"),
    (("status", "--results", "no-such-folder"), "no-such-folder"),
    (("status", "--results", "."), "no run was planned or recorded"),
    (("table", "tabel1"), "'name': 'tabel1' is not one of"),
    (("table", "score"), "Did you mean scores?"),
    (("plot", "curve", "--out", "curve.png"), "Did you mean curves?"),
    (("table", "scores", "--until", "1.5"), "'1.5' is not a whole number"),
    ((*SAC, "--steps", "1e"), "whole number"),
    (("run", "--tasks", "point-angle", "--algorithms", "bc", "sac", "--seeds", "0", "1"), "separated by commas"),
    (("run", "--grid", "no-such-file.toml"), "there is no such file"),
    (("data", "inspect", "hoper-medium"), "'hopper-medium'"),
    (("data", "inspect", "no-such-file.hdf5"), "no-such-file.hdf5"),
    (("data", "inspect", "point-angle", "--rows", "0"), "0 rows"),
    (("data", "collect", "point-angle", "--out", "collected"), "--target"),
    (("data", "collect", "hopper-medium", "--out", "collected", "--steps", "0"), "--steps"),
    (("data", "inspect", "point-angle", "--plot", "batch.docx"), ".png"),
    (("data", "inspect", "point-angle", "--window", "last"), "last_1m"),
    (("data", "fetch", "ant-angle"), "not a task of D4RL"),
    (("data", "fetch", "hopper-medium", "--version", "v1"), "v2"),
    (("data", "fetch", "hopper-medium", "--offline"), "hopper_medium.hdf5"),
    (("data", "fetch", "hopper-medium", "--mirror", "no-such-folder"), "--mirror"),
    (("data", "fetch", "hopper-medium", "--mirror", "ftp://example.org"), "--mirror"),
    (("data", "fetch", "hopper-medium", "--offline", "--accept-sha256", "abc"), "--accept-sha256"),
    (("data", "fetch", "--offline", "--accept-sha256", "0" * 64), "--accept-sha256"),
    (("data", "verify", "point-angle"), "not a task of D4RL"),
    (("data", "verify", "--physics"), "--physics"),
    (("data", "verify", "point-angle", "--physics"), "MuJoCo"),
    (("data", "verify", "hopper-medium", "--dataset", "mine.hdf5"), "--physics"),
    (("data", "relabel", "no-such-file.hdf5", "--reward", "ant-angle", "--out", "new.hdf5"), "no-such-file.hdf5"),
    (("data", "relabel", "no-such-file.hdf5", "--reward", "ant-angel", "--out", "new.hdf5"), "'ant-angle'"),
    (("data", "actors", "--episodes", "0"), "--episodes"),
    # seeds, steps and other numbers
    ((*SAC, "--seeds", "0"), "at least 1"),
    ((*SAC, "--seeds", "-1"), "--seeds"),
    ((*SAC, "--seeds", "0,-1"), "--seeds"),
    ((*SAC, "--seeds", "two"), "21-23"),
    ((*SAC, "--seeds", "0-1-2"), "21-23"),
    ((*SAC, "--seeds", "3-1"), "3-1"),
    ((*SAC, "--seeds", ","), "--seeds"),
    ((*SAC, "--seeds", "0,1,0"), "once"),
    ((*SAC, "--seeds", "0-2,1"), "once"),
    ((*SAC, "--steps", "0"), "steps"),
    ((*SAC, "--steps", "-5"), "steps"),
    ((*SAC, "--steps", "many"), "--steps"),
    ((*SAC, "--steps", "1.5"), "--steps"),
    ((*SAC, "--jobs", "0"), "--jobs"),
    ((*SAC, "--jobs", "-1"), "--jobs"),
    ((*SAC, "--group", "0"), "--group"),
    ((*SAC, "--evaluate-every", "0"), "--evaluate-every"),
    ((*SAC, "--episodes", "0"), "--episodes"),
    ((*SAC, "--compile", "maybe"), "auto"),
    ((*SAC, "--compile"), "--compile"),
    ((*SAC, "--no-compile"), "--no-compile"),
    ((*SAC, "--rows", "0"), "--rows"),
    # data and devices
    ((*SAC, "--data", "web"), "regenerated"),
    (("run", "--tasks", "hopper-medium", "--algorithms", "sac", "--data", "d4rl"), "hopper_medium.hdf5"),
    ((*SAC, "--data", "d4rl"), "--dataset"),
    (("run", "--tasks", "hopper-mixed", "--algorithms", "sac", "--data", "d4rl-v2"), "hopper_medium_replay-v2.hdf5"),
    (("run", "--tasks", "ant-angle", "--algorithms", "sac", "--data", "d4rl"), "--dataset"),
    ((*SAC, "--data-seed", "-1"), "--data-seed"),
    ((*SAC, "--window", "last"), "last_1m"),
    ((*SAC, "--device", "tpu"), "cuda"),
    # settings
    (setting("mopo.penalty_coeficient=5"), "'penalty_coefficient'"),
    (setting("mopo.dynamics.elite=5"), "'dynamics.elites'"),
    (setting("moppo.tau=0.1"), "'mopo'"),
    (setting("sac.tau=0.1"), "mopo"),
    (setting("all.penalty_coeficient=5"), "'penalty_coefficient'"),
    (setting("tua=0.1"), "'tau'"),
    (setting("hopper-medium:mopo.tau=0.1"), "hopper-medium"),
    (setting("hoper-medium:mopo.tau=0.1"), "'hopper-medium'"),
    (("run", "--grid", "no-such-file.toml"), "no-such-file.toml"),
    (("run", "--suite", "ci", "--grid", "mine.toml"), "--suite"),
    (setting("mopo.tau"), "algorithm.key=value"),
    (setting("mopo.=1"), "mopo"),
    (setting("mopo.tau="), "mopo.tau"),
    (setting("mopo.tau=small"), "number"),
    (setting("mopo.tau=nan"), "mopo.tau"),
    (setting("mopo.batch_size=2.5"), "whole number"),
    (setting("mopo.hidden=64,wide"), "mopo.hidden"),
    (setting("mopo.log_std_range=1"), "log_std_range"),
    (setting("mopo.penalty=foo"), "max_std"),
    (setting("mopo.penalised_reward=median"), "sampled"),
    (setting("mopo.batch_size=0"), "batch_size"),
    (setting("mopo.batch_size=-1"), "batch_size"),
    (setting("mopo.hidden="), "hidden"),
    (setting("mopo.hidden=64,0"), "hidden"),
    (setting("mopo.actor_learning_rate=-1e-3"), "actor_learning_rate"),
    (setting("mopo.tau=1.5"), "tau"),
    (setting("mopo.initial_temperature=0"), "initial_temperature"),
    (setting("mopo.log_std_range=2,-20"), "log_std_range"),
    (setting("mopo.rollout_length=0"), "rollout_length"),
    (setting("mopo.rollout_every=0"), "rollout_every"),
    (setting("mopo.rollout_states=0"), "rollout_states"),
    (setting("mopo.retained_rollouts=0"), "retained_rollouts"),
    (setting("mopo.real_fraction=2"), "real_fraction"),
    (setting("mopo.real_fraction=-0.1"), "real_fraction"),
    (setting("mopo.penalty_coefficient=inf"), "penalty_coefficient"),
    (setting("mopo.dynamics.elites=9"), "elites"),
    (setting("mopo.dynamics.networks=0"), "networks"),
    (setting("mopo.dynamics.max_epochs=0"), "max_epochs"),
    (setting("mopo.dynamics.learning_rate=0"), "learning_rate"),
    (setting("mopo.dynamics.holdout_fraction=1.5"), "holdout_fraction"),
    (setting("mopo.dynamics.holdout_fraction=1"), "holdout_fraction"),
    (setting("mopo.dynamics.hidden=64,64"), "weight_decays"),
]


def assert_refused(finished, word):
    assert finished.code == 2, finished.out
    assert len(finished.err.splitlines()) == 1, finished.err
    assert finished.err.startswith("mopo-bench: ") and word in finished.err
    assert "Traceback" not in finished.err + finished.out


@pytest.mark.parametrize("words, word", REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_refused_in_one_line(words, word, command, contents, monkeypatch, tmp_path):
    """The folder of results is `runs` in the folder in which the command is given."""
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*words), word)
    assert contents(tmp_path) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(command):
    assert_refused(command(*SAC, "--device", "cuda"), "--device cpu")


def test_results_folder_that_cannot_be_written(arguments, command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert_refused(command(*arguments("sac", results=tmp_path / "file" / "runs")), "--results")
    assert_refused(command(*arguments("sac", results=tmp_path / "file")), "--results")
    assert (tmp_path / "file").read_text() == "in the way"


def user_batch(path, rows=60, **changes):
    """A user's own file for point-angle in D4RL's layout; a change of None leaves the array out."""
    generator = np.random.default_rng(0)
    arrays = {
        "observations": generator.normal(0, 0.3, (rows, 2)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "terminals": np.arange(rows) % 20 == 19,
    }
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changes).items():
            if array is not None:
                file[name] = array
    return path


def truncated(path):
    user_batch(path)
    path.write_bytes(path.read_bytes()[:-2000])


def with_nan(path):
    user_batch(path, rewards=np.where(np.arange(60) == 7, np.nan, 1.0).astype(np.float32))


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_text("not HDF5"), "HDF5"),
        (truncated, "truncated"),
        (lambda path: user_batch(path, observations=np.zeros((60, 5), np.float32)), "5 columns"),
        (lambda path: user_batch(path, rewards=np.zeros(50, np.float32)), "50 rows"),
        (lambda path: user_batch(path, rewards=None), "'rewards'"),
        (lambda path: user_batch(path, actions=np.full((60, 3), 1.2, np.float32)), "box"),
        (with_nan, "row 7"),
        (lambda path: user_batch(path, rows=1, terminals=np.zeros(1, bool)), "two rows"),
    ],
    ids=["missing", "folder", "text", "truncated", "columns", "rows", "key", "box", "nan", "one row"],
)
def test_bad_batch_file(make, word, command, tmp_path):
    path = tmp_path / "mine.hdf5"
    make(path)
    results = tmp_path / "runs"
    assert_refused(command(*SAC, "--dataset", path, "--results", results, "--steps", "2"), word)
    assert not results.exists()


def test_batch_file_belongs_to_one_task(command, tmp_path):
    words = ("run", "--tasks", "point-angle,hopper-medium", "--algorithms", "sac", "--results", tmp_path / "runs")
    assert_refused(command(*words, "--dataset", user_batch(tmp_path / "mine.hdf5")), "one task")
    assert not (tmp_path / "runs").exists()


def test_own_batch_file(arguments, command, tmp_path):
    path = user_batch(tmp_path / "mine.hdf5", actions=np.full((60, 3), 1.2, np.float32))
    words = arguments("sac", results=tmp_path / "runs", steps=2)
    assert command(*words, "--dataset", path, "--clip-actions").code == 0
    (run,) = load_runs(tmp_path / "runs")
    assert run.cell["data"]["label"] == "point-angle@file" and run.cell["data"]["rows"] == 60
    assert run.cell["data"]["provenance"]["clipped_actions"] == 60


def test_debug_shows_the_traceback(command):
    finished = command("run", "--tasks", "hoper-medium", "--algorithms", "sac", "--debug")
    assert finished.code == 2 and "Traceback" in finished.err and "hopper-medium" in finished.err.splitlines()[-1]


def test_no_words_shows_the_help(command):
    finished = command()
    assert "Usage" in finished.out + finished.err and "table" in finished.out + finished.err
    assert len((finished.out + finished.err).splitlines()) > 5


def commands():
    """Words of every command, groups opened."""

    def walk(node, words):
        for name, child in getattr(node, "commands", {}).items():
            yield from walk(child, (*words, name))
        if not getattr(node, "commands", None):
            yield words

    return list(walk(get_command(app), ()))


def test_there_are_commands():
    assert {("run",), ("status",), ("table",), ("demo",), ("list",), ("data", "list"), ("data", "inspect")} <= set(commands())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_has_an_example(words, command):
    for option in ("--help", "-h"):
        finished = command(*words, option)
        assert finished.code == 0 and finished.err == ""
        assert f"Example: mopo-bench {' '.join(words)}" in " ".join(finished.out.split())


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("1", [0]),
        ("6", [0, 1, 2, 3, 4, 5]),
        ("0,1,5", [0, 1, 5]),
        ("21-23", [21, 22, 23]),
        ("7,", [7]),
        ("4-4", [4]),
        ("0-2, 9", [0, 1, 2, 9]),
    ],
)
def test_parse_seeds(text, seeds):
    assert list(RunRequest(tasks="t", algorithms="a", seeds=text).seeds) == seeds


@pytest.mark.parametrize("text", ["", "0", "-3", "x", "1-x", "3-1", ",", "1.5"])
def test_parse_seeds_refuses(text):
    with pytest.raises(UserError, match="--seeds"):
        RunRequest(tasks="t", algorithms="a", seeds=text)


def parsed(finished):
    assert finished.code == 0 and finished.err == ""
    return json.loads(finished.out)


def test_lists_as_json(command):
    tasks = {row["name"]: row for row in parsed(command("list", "tasks", "--json"))}
    assert tasks["hopper-medium"]["environment"] == "Hopper-v4" and tasks["hopper-medium"]["paper"] == "table1"
    assert {"point-angle", "ant-angle", "halfcheetah-jump"} <= set(tasks)
    algorithms = {row["name"]: row for row in parsed(command("list", "algorithms", "--json"))}
    assert {"bc", "sac", "mbpo", "mopo"} <= set(algorithms)
    assert algorithms["mopo"]["settings"]["penalty_coefficient"] == 1.0 and algorithms["mopo"]["from"]
    suites = {row["name"]: row for row in parsed(command("list", "suites", "--json"))}
    assert len(suites["table1"]["tasks"]) == 12 and suites["table1"]["seeds"] == 6
    data = {row["name"]: row for row in parsed(command("data", "list", "--json"))}
    assert set(data) == set(tasks)
    hopper = data["hopper-medium"]
    assert (hopper["d4rl_file"], hopper["v0"], hopper["v2"]) == ("hopper_medium.hdf5", "absent", "absent")
    assert (
        hopper["dataset"] == "hopper-medium@regenerated"
        and data["halfcheetah-jump"]["dataset"] == "halfcheetah-jump@regenerated"
    )
    assert data["ant-angle"]["v0"] is None and all(row["rows"] or row["rows_at_most"] for row in data.values())


def test_a_dataset_that_is_here_is_listed_with_its_own_rows(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path))

    def listed():
        row = {row["name"]: row for row in parsed(command("data", "list", "--json"))}["point-angle"]
        return row["rows"], row["rows_at_most"]

    assert listed() == (None, 10_000)
    facts = parsed(command("data", "inspect", "point-angle", "--json"))
    assert listed() == (facts["rows"], None) and facts["rows"] < 10_000


@pytest.mark.parametrize("words", [("list", "tasks"), ("list", "algorithms"), ("list", "suites"), ("data", "list")])
def test_lists_as_text(words, command):
    finished = command(*words)
    names = [row["name"] for row in parsed(command(*words, "--json"))]
    assert finished.code == 0 and all(name in finished.out for name in names)


def test_inspect_as_json(command, tmp_path):
    promised = {"rows", "episodes", "return_mean", "return_max", "terminals", "repaired", "dropped"}
    facts = parsed(command("data", "inspect", "point-angle", "--json"))
    assert promised <= set(facts)
    assert facts["episodes"] == 100 and 7_870 <= facts["rows"] <= 9_145 and 154 <= facts["return_max"] <= 183
    assert facts["label"] == "point-angle@regenerated"
    facts = parsed(command("data", "inspect", user_batch(tmp_path / "mine.hdf5"), "--json"))
    assert promised <= set(facts)
    assert (facts["rows"], facts["episodes"], facts["terminals"], facts["dropped"]) == (60, 3, 3, 0)
    assert "60" in command("data", "inspect", tmp_path / "mine.hdf5").out


def test_status_as_json(arguments, command, tmp_path):
    assert command(*arguments("sac", "bc", results=tmp_path, seeds="2", steps=10)).code == 0
    rows = parsed(command("status", "--results", tmp_path, "--json"))
    assert [(row["task"], row["algorithm"], row["seed"], row["state"], row["steps"]) for row in rows] == [
        ("point-angle", algorithm, seed, "done", 10) for algorithm in ("sac", "bc") for seed in (0, 1)
    ]


def test_status_tells_variants_of_one_algorithm_apart(arguments, command, tmp_path):
    words = arguments("bc", results=tmp_path, seeds="2", steps=10)
    command(*words)
    command(*words, "--set", "bc.learning_rate=0.01", "--seeds", "1")
    rows = parsed(command("status", "--results", tmp_path, "--json"))
    assert [(row["overrides"].get("learning_rate"), row["seed"]) for row in rows] == [(None, 0), (None, 1), (0.01, 0)]
    assert len({row["identity"] for row in rows}) == 2
    lines = [line.split() for line in command("status", "--results", tmp_path).out.splitlines()[1:]]
    assert lines == [
        ["point-angle", "bc", "2", "20", "of", "20"],
        ["point-angle", "bc", "[learning_rate=0.01]", "1", "10", "of", "10"],
    ]


def test_what_a_longer_plan_wants_is_unfinished(arguments, command, tmp_path):
    """Whether anybody is at work on it a record cannot know."""
    words = arguments("bc", results=tmp_path, seeds="1", steps=10)
    assert command(*words).code == 0
    shown = command(*words, "--steps", "20", "--dry-run", "--jobs", "9999").out
    assert re.search(r"point-angle +regenerated +bc +1 +20 +1 unfinished", shown)
    assert "--jobs 9999: the time is that of " in shown
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({key: run | {"steps": 20} for key, run in plan.items()}))
    assert command("status", "--results", tmp_path).out.splitlines()[0].split() == ["task", "algorithm", "unfinished", "steps"]


def test_a_plan_tells_variants_apart_and_counts_in_words(arguments, command, tmp_path):
    words = arguments("bc", results=tmp_path, seeds="1", steps=10)
    shown = command(*words, "--dry-run").out
    assert re.search(r"point-angle +regenerated +bc +1 +10 +1 missing", shown)
    assert "\n1 run takes" in shown and "Computed from 1 measurement in" in shown
    shown = command(*words, "--dry-run", "--set", "bc.learning_rate=0.01,0.02").out
    assert "bc [learning_rate=0.01]" in shown and "bc [learning_rate=0.02]" in shown and "All 2 runs take" in shown


def test_status_labels():
    def row(identity, data="t@v0", rows=9, **overrides):
        cell = {"task": "t", "algorithm": "a", "identity": identity}
        return cell | choices_of(overrides, {"label": data, "rows": rows, "window": "all"})

    def names(*rows):
        return {cell[2]: label for cell, label in labels(list(rows)).items()}

    assert names(row("i", steps=3), row("i", steps=3)) == {"i": "a"}
    assert names(row("i", rows=1000), row("j")) == {"i": "a [1,000 rows]", "j": "a [9 rows]"}
    assert names(row("i", "t@v0"), row("j", "t@v2")) == {"i": "a [t@v0]", "j": "a [t@v2]"}
    assert names(row("i", rate=1), row("j", rate=1, size=2), row("k", rate=3)) == {
        "i": "a [rate=1]",
        "j": "a [rate=1, size=2]",
        "k": "a [rate=3]",
    }
    assert names(row("i"), row("j")) == {"i": "a [i]", "j": "a [j]"}
    unknown = dict.fromkeys(("overrides", "data", "data_rows", "window"))
    assert names(row("i") | unknown) == {"i": "a"}
    assert names(row("i", rate=1), row("j") | unknown)["j"] == "a [j]"


def test_what_an_older_plan_did_not_say(arguments, command, tmp_path):
    """Settings and data of a missing run are told by another seed of it, or by the next run; else nothing is claimed."""
    words = arguments("bc", results=tmp_path, seeds="2", steps=10)
    more = (*words, "--set", "bc.learning_rate=0.01")
    for each in (words, more):
        command(*each)
    plan = json.loads((tmp_path / "plan.json").read_text())
    for entry in plan.values():
        for name in ("overrides", "data", "data_rows", "window"):
            del entry[name]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    cells = {path.parent: json.loads(path.read_text())["overrides"] for path in tmp_path.glob("point-angle/bc/*/cell.json")}
    ((changed, chosen),) = [each for each in cells.items() if "learning_rate" in each[1]]
    shutil.rmtree(changed / "seed-1")

    def shown():
        rows = parsed(command("status", "--results", tmp_path, "--json"))
        return {(row["identity"], row["seed"]): (row["overrides"], row["state"]) for row in rows}

    assert shown()[changed.name, 1] == (chosen, "missing")
    shutil.rmtree(changed)
    assert shown()[changed.name, 1] == (None, "missing")
    assert f"bc [{changed.name}" in command("status", "--results", tmp_path).out
    command(*more, "--seeds", "1")
    assert shown()[changed.name, 1] == (chosen, "missing")


def test_scores_as_json(arguments, command, tmp_path):
    assert command(*arguments("sac", results=tmp_path, seeds="2", steps=30)).code == 0
    rows = parsed(command("table", "scores", "--results", tmp_path, "--format", "json"))
    runs = load_runs(tmp_path)
    assert [(row["task"], row["algorithm"], row["seed"], row["steps"], row["state"], row["score"]) for row in rows] == [
        ("point-angle", "sac", seed, 30, "done", None) for seed in (0, 1)
    ]
    assert [row["return"] for row in rows] == pytest.approx([run.evaluations[-1]["return_mean"] for run in runs])
    assert {row["data"] for row in rows} == {"point-angle@regenerated"}


def test_run_as_installed(arguments, tmp_path):
    """The script that pip makes, in a process of its own: its exit status, and nothing but its own words."""
    script = shutil.which("mopo-bench", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    words = arguments("mopo", results=tmp_path / "runs", steps=10)
    done = subprocess.run([script, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == ""
    assert next(line for line in done.stdout.splitlines() if "% done; " not in line) == "done: 1"
    words[words.index("point-angle")] = "point-angel"
    for name in ([script], [sys.executable, "-m", "mopo_bench"]):
        refused = subprocess.run([*name, *words], capture_output=True, text=True, timeout=300)
        assert refused.returncode == 2 and refused.stdout == ""
        assert len(refused.stderr.splitlines()) == 1 and "'point-angle'" in refused.stderr


@pytest.mark.parametrize(("jobs", "beside"), [(1, 0), (1, 2), pytest.param(2, 0, marks=pytest.mark.slow)])
def test_interrupted_by_the_user(jobs, beside, plan, arguments, start, wait_for, evaluations, tmp_path):
    results = tmp_path / "runs"
    words = arguments("sac", results=results, seeds="2", steps=9_000)  # of more, the time is measured first
    process = start(*words, "--compile", "off", "--jobs", jobs, "--evaluation-processes", beside)
    wait_for(lambda: any(run.steps for run in load_runs(results)), process, seconds=300)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    # joblib's own tracker warns now and then, in two lines, that a folder it was to delete is gone already
    said = [line for line in err.splitlines() if "resource_tracker" not in line]
    assert len(said) == 1 and "next run goes on" in said[0], err
    wait_for(lambda: not alive(process.pid), seconds=30)
    reached = {run.seed: run.steps for run in load_runs(results)}
    assert {run.state for run in load_runs(results)} == {"running"} and max(reached.values()) > 0
    further = max(reached.values()) + 50
    assert execute(plan("sac", results=results, seeds=(0, 1), steps=further), jobs=1).keys() == {"done"}
    for run in load_runs(results):
        # where it was told to stop, which may be in the midst of the next evaluation: that one is made again
        assert 0 <= run.record["segments"][-1]["from_step"] - reached.get(run.seed, 0) <= 25
    execute(plan("sac", results=tmp_path / "undisturbed", seeds=(0, 1), steps=further), jobs=1)
    assert evaluations(results) == evaluations(tmp_path / "undisturbed")


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", ["tasks", "suites"])  # more and less than a buffer holds
def test_output_cut_short_is_no_complaint(kind):
    """`mopo-bench list tasks --json | head -1`."""
    program = "from mopo_bench.harness.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "list", kind, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == ""


@pytest.mark.parametrize("buffered", [True, False])  # with a buffer Python writes, and may fail, at its exit, too
@pytest.mark.parametrize(
    "words", [("list", "tasks"), ("status", "--results", "RUNS"), ("table", "scores", "--results", "RUNS")]
)
def test_output_that_cannot_be_written_is_no_regression(words, buffered, command, tmp_path, monkeypatch):
    """1 is the status of a check that found one."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    runs, program = tmp_path / "runs", "from mopo_bench.harness.cli.main import main; main()"
    budget = ("--steps", "20", "--evaluate-every", "10", "--episodes", "1", "--jobs", "1", "--yes")
    assert command("run", "--tasks", "point-angle", "--algorithms", "bc", "--seeds", "1", "--results", runs, *budget).code == 0
    call = [sys.executable, "-c", program, *(str(runs) if word == "RUNS" else word for word in words)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "mopo-bench: the output could not be written: No space left on device\n")
    with open("/dev/full", "w") as full:
        assert subprocess.run(call, stdout=full, stderr=full, timeout=120).returncode == 2
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *call]
    assert subprocess.run(closed, stderr=subprocess.PIPE, timeout=120).stderr == b""
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, "")


def test_a_bug_is_no_regression(command, monkeypatch):
    from mopo_bench.harness.cli import listing

    monkeypatch.setattr(listing, "print_rows", lambda *_: 1 / 0)
    done = command("list", "tasks")
    assert done.code == 70 and done.err.strip().endswith("ZeroDivisionError: division by zero")


def test_a_file_in_the_way_of_a_run(command, tmp_path):
    (tmp_path / "point-angle").write_text("mine")
    done = command(
        "run", "--tasks", "point-angle", "--algorithms", "bc", "--seeds", "1", "--steps", "20", "--results", tmp_path
    )
    assert done.code == 2 and done.err.count("\n") == 1 and "a file lies in the way" in done.err
    assert (tmp_path / "point-angle").read_text() == "mine"


def test_main_is_the_entry_point():
    from importlib.metadata import entry_points

    (entry,) = [each for each in entry_points(group="console_scripts") if each.name == "mopo-bench"]
    assert entry.load() is main
