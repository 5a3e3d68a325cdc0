"""The `data` commands on real files: what is fetched, checked, inspected, collected, relabelled."""

import csv
import hashlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import mopo_bench
import numpy as np
import pytest
from mopo_bench.harness.collection import actors
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.tasks import registry
from mopo_bench.tasks.data import behaviour_policies
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, bundled_policy, roll_out
from mopo_bench.tasks.data.hdf5 import read_hdf5, write_hdf5
from mopo_bench.tasks.registry import get_task


def parsed(finished):
    assert finished.code == 0 and finished.err == ""
    return json.loads(finished.out)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache and a D4RL folder of this test alone."""
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "own"))
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path, monkeypatch, cache):
    """A folder with files that the registry takes for D4RL's of hopper-random, one of v0 of 2020 and one of v2."""
    task = get_task("hopper-random")
    log = roll_out(task, BehaviourPolicy.random(task, 0), 200, seed=1)
    folder = tmp_path / "mirror"
    folder.mkdir()
    v0, v2 = task.recipe.files
    with h5py.File(folder / v0.name, "w") as file:
        for name in ("observations", "actions", "rewards", "terminals"):
            file[name] = getattr(log, name)
    write_hdf5(log, folder / v2.name)
    files = []
    for file in task.recipe.files:
        content = (folder / file.name).read_bytes()
        files.append(replace(file, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(registry._TASKS, task.name, replace(task, recipe=replace(task.recipe, files=tuple(files))))
    return folder


def states(command, *words):
    found = command("data", "verify", *words, "--json")
    return {row["file"]: row["state"] for row in json.loads(found.out)}, found


def test_fetch_verify_inspect_train(mirror, cache, command, tmp_path):
    """From a folder with the files to runs that are labelled with what they were trained on."""
    nothing, said = states(command, "hopper-random")
    assert nothing == {"hopper_random.hdf5": "absent", "hopper_random-v2.hdf5": "absent"}
    assert said.code == 2 and "no file of D4RL's for hopper-random is here to verify" in said.err
    assert states(command)[1].code == 2, "none of any task"
    finished = command("data", "fetch", "hopper-random", "--version", "all", "--mirror", mirror)
    assert finished.code == 0 and str(cache / "d4rl" / "hopper_random.hdf5") in finished.out
    assert (cache / "d4rl" / "hopper_random.hdf5").read_bytes() == (mirror / "hopper_random.hdf5").read_bytes()
    assert set(states(command, "hopper-random")[0].values()) == {"verified"} and states(command)[1].code == 0
    row = {row["name"]: row for row in parsed(command("data", "list", "--json"))}["hopper-random"]
    assert (row["dataset"], row["rows"], row["here"], row["v0"]) == ("hopper-random@v0", 200, "yes", "right size")
    facts = parsed(command("data", "inspect", "hopper-random", "--json"))
    assert facts["label"] == "hopper-random@v0" and facts["repaired"] == facts["repaired_by_count"] == 0
    assert facts["dropped"] == 1  # the last row: nothing follows it
    facts = parsed(command("data", "inspect", "hopper-random", "--data", "d4rl-v2", "--json"))
    assert facts["label"] == "hopper-random@v2" and facts["dropped"] == 0
    run = ("run", "--tasks", "hopper-random", "--algorithms", "bc", "--seeds", "1", "--jobs", "1", "--steps", "2")
    small = ("--set", "bc.hidden=8,8", "--episodes", "1", "--results", tmp_path / "runs")
    for data, label in (("auto", "v0"), ("d4rl-v2", "v2"), ("regenerated", "regenerated")):
        rows = ("--rows", "100") if data == "regenerated" else ()
        assert command(*run, *small, "--data", data, *rows).code == 0
        assert f"hopper-random@{label}" in {each.cell["data"]["label"] for each in load_runs(tmp_path / "runs")}


def test_a_missing_file_does_not_stop_the_others(mirror, cache, command):
    """D4RL's v0 is asked for first; what is missing is said at the end, and by the exit status."""
    (mirror / "hopper_random.hdf5").unlink()
    finished = command("data", "fetch", "hopper-random,hopper-medium", "--version", "all", "--mirror", mirror)
    assert finished.code == 2 and (cache / "d4rl" / "hopper_random-v2.hdf5").exists()
    missing = ["hopper_random.hdf5", "hopper_medium.hdf5", "hopper_medium-v2.hdf5"]
    words = f"mopo-bench: 3 of 4 files are missing, for the reasons above: {', '.join(missing)}"
    assert finished.err.splitlines() == [words] and finished.out.count("missing: ") == 3 and "no such file" in finished.out
    finished = command("data", "fetch", "hopper-random", "--version", "all", "--offline")
    assert finished.code == 2 and "1 of 2 files" in finished.err and "--offline opens no connection" in finished.out


def test_damaged_file(mirror, cache, command):
    assert command("data", "fetch", "hopper-random", "--mirror", mirror).code == 0
    path = cache / "d4rl" / "hopper_random.hdf5"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found, finished = states(command, "hopper-random")
    assert found["hopper_random.hdf5"] == "wrong checksum" and finished.code == 2 and "data fetch" in finished.err
    refused = command("data", "inspect", "hopper-random")
    assert refused.code == 2 and "checksum" in refused.err
    assert command("data", "fetch", "hopper-random", "--mirror", mirror).code == 0
    assert states(command, "hopper-random")[0]["hopper_random.hdf5"] == "verified"


def test_file_that_changed_upstream(mirror, cache, command):
    """Refused, accepted by its checksum alone, and never labelled as D4RL's after that."""
    changed = mirror / "hopper_random.hdf5"
    with h5py.File(changed, "r+") as file:
        file["rewards"][:] = 7.0
    changed.write_bytes(changed.read_bytes())
    refused = command("data", "fetch", "hopper-random", "--mirror", mirror)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and "--accept-sha256" in refused.err
    assert not (cache / "d4rl" / "hopper_random.hdf5").exists()
    sha256 = hashlib.sha256(changed.read_bytes()).hexdigest()
    assert command("data", "fetch", "hopper-random", "--mirror", mirror, "--accept-sha256", sha256).code == 0
    facts = parsed(command("data", "inspect", "hopper-random", "--json"))
    assert facts["label"] == "hopper-random@v0-changed" and "every reward is 7" in facts["oddities"]
    assert states(command, "hopper-random")[0]["hopper_random.hdf5"] == "accepted"


def test_physics_of_a_v2_file(mirror, cache, command):
    """v2 stores the states; without it the regenerated dataset does."""
    assert command("data", "fetch", "hopper-random", "--version", "v2", "--mirror", mirror).code == 0
    (facts,) = parsed(command("data", "verify", "hopper-random", "--physics", "--rows", "100", "--json"))
    assert facts["dataset"] == "hopper-random@v2" and facts["rows"] == 100
    assert facts["observation_error_median"] < 1e-5 and facts["terminals_differ"] == 0
    (facts,) = parsed(
        command("data", "verify", "hopper-random", "--physics", "--dataset", mirror / "hopper_random-v2.hdf5", "--json")
    )
    assert facts["dataset"] == "hopper-random@file" and facts["rows"] == 200
    refused = command("data", "verify", "hopper-random", "--physics", "--dataset", mirror / "hopper_random.hdf5")
    assert refused.code == 2 and "infos/qpos" in refused.err


def test_the_option_s_former_name_is_understood(mirror, command):
    old = command("data", "verify", "hopper-random", "--physics", "--batch", mirror / "hopper_random-v2.hdf5", "--json")
    assert (
        json.loads(old.out)[0]["dataset"] == "hopper-random@file" and old.err == "mopo-bench: --batch is now called --dataset\n"
    )


def test_inspect_with_picture(cache, command, tmp_path):
    finished = command("data", "inspect", "point-angle", "--plot", tmp_path / "dataset.png")
    assert finished.code == 0 and (tmp_path / "dataset.png").stat().st_size > 5_000
    assert "return mean" in finished.out and "oddities" in finished.out


def test_collect_and_relabel(cache, command, tmp_path):
    """SAC on the behaviour reward, relabelled with the task's, then with another angle."""
    folder = tmp_path / "ant"
    finished = command("data", "collect", "ant-angle", "--steps", "120", "--out", folder)
    assert finished.code == 0 and "rows in" in finished.out
    facts = parsed(command("data", "inspect", folder / "ant-angle.hdf5", "--json"))
    assert facts["rows"] >= 120 and "infos/y_velocity" in facts["stored_besides"]
    words = ("--reward", "ant-angle", "--set", "angle=60", "--set", "survive_bonus=0.5", "--out", tmp_path / "60.hdf5")
    assert command("data", "relabel", folder / "ant-angle.hdf5", *words).code == 0
    old, new = read_hdf5(folder / "ant-angle.hdf5"), read_hdf5(tmp_path / "60.hdf5")
    x, y = (old.extras[f"infos/{name}_velocity"].astype(float) for name in "xy")
    difference = (np.cos(np.pi / 3) - np.cos(np.pi / 6)) * x + (np.sin(np.pi / 3) - np.sin(np.pi / 6)) * y - 0.5
    np.testing.assert_allclose(new.rewards - old.rewards, difference, atol=1e-5)
    assert new.provenance["relabelled"]["parameters"] == {"angle": 60, "survive_bonus": 0.5}
    assert new.provenance["command"] == old.provenance["command"]


def made(folder):
    """Every file's bytes, and the curve but for its seconds."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npz")}
    curve = [line.rpartition(",")[0] for line in (folder / "curve.csv").read_text().splitlines()]
    return files | {path.name: path.read_bytes() for path in folder.glob("*.hdf5")}, curve


def test_killed_collection_ends_with_the_same_bytes(command, start, wait_for, tmp_path):
    """SIGKILL between two checkpoints, then the same command again."""
    words = ("data", "collect", "hopper-medium-expert", "--steps", "1100", "--evaluate-every", "100", "--target", "-1000")
    words += ("--rows", "60", "--seed", "3")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert command(*words, "--out", undisturbed).code == 0
    process = start(*words, "--out", killed)
    wait_for(lambda: (killed / "curve.csv").exists() and len((killed / "curve.csv").read_text().splitlines()) > 9, process)
    process.kill()
    process.wait()
    assert not list(killed.glob("*.hdf5")) and (killed / "checkpoint.pt").exists()
    assert command(*words, "--out", killed).code == 0
    assert made(killed) == made(undisturbed)
    assert set(made(killed)[0]) == {"medium.npz", "best.npz", "policy.npz", "hopper-medium-expert.hdf5"}


MY_REWARDS = """
def height(dataset, weight=1.0):
    return weight * dataset.observations[:, 0]


def sideways(dataset):
    return dataset.extras["infos/y_velocity"]
"""


@pytest.fixture
def my_rewards(tmp_path, monkeypatch):
    """A module in the folder in which the command is called, and a v0 log of hopper whose ends no flag tells."""
    task = get_task("hopper-random")
    log = roll_out(task, BehaviourPolicy.random(task, 0), 150, seed=1)
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards"):
            file[name] = getattr(log, name)
        file["terminals"] = np.zeros(150, bool)
    (tmp_path / "my_rewards.py").write_text(MY_REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return log


def test_relabel_with_a_function_of_the_users_own(my_rewards, command, cache):
    """What the file leaves open stays open, so that it is still found by who knows the task."""
    words = ("data", "relabel", "log.hdf5", "--reward", "my_rewards:height", "--set", "weight=2", "--out", "new.hdf5")
    assert command(*words).code == 0
    np.testing.assert_array_equal(read_hdf5("new.hdf5").rewards, 2 * my_rewards.observations[:, 0])
    with h5py.File("new.hdf5") as file:
        assert set(file) == {"observations", "actions", "rewards", "terminals", "metadata"}
    facts = parsed(command("data", "inspect", "new.hdf5", "--task", "hopper-random", "--json"))
    assert facts["repaired_by_data"] == my_rewards.terminals[:-1].sum() > 2 and facts["label"] == "hopper-random@file"
    facts = parsed(command("data", "inspect", "new.hdf5", "--json"))
    assert facts["repaired_by_data"] == 0 and facts["episodes"] == 1
    assert "where episodes end" not in str(facts["oddities"])  # 150 rows are no 1000: nothing was counted either


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("my_rewards:height", "--set", "weight=heavy"), "my_rewards:height failed"),
        (("my_rewards:height", "--set", "weight"), "parameter=value"),
        (("my_rewards:sideways",), "infos/y_velocity"),
        (("builtins:max",), "builtins:max"),
        (("my_rewards:nothing",), "nothing"),
        (("halfcheetah-jump", "--set", "z_reference=rest"), "nominal"),
    ],
)
def test_relabel_that_fails(words, complaint, my_rewards, command, tmp_path):
    finished = command("data", "relabel", "log.hdf5", "--reward", *words, "--out", "new.hdf5")
    assert finished.code == 2 and len(finished.err.splitlines()) == 1 and complaint in finished.err
    assert not (tmp_path / "new.hdf5").exists() and not list(tmp_path.glob(".*part"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--window", "nonsense"), "last_1m"),
        (("--data-seed", "3"), "--data-seed"),
        (("--data", "d4rl"), "--data"),
        (("--clip-actions",), "--task"),
        (("--task", "halfcheetah-random"), "17"),
        (("--task", "hoper-random"), "'hopper-random'"),
    ],
)
def test_inspect_takes_no_option_in_silence(words, complaint, my_rewards, command, cache):
    finished = command("data", "inspect", "log.hdf5", *words)
    assert finished.code == 2 and len(finished.err.splitlines()) == 1 and complaint in finished.err


def test_ends_that_a_file_does_not_mark_are_found_and_said(cache, command, tmp_path):
    """As in D4RL's medium-replay of v2: next observations are stored, and hardly a timeout is marked. Under tables, too."""
    task = get_task("hopper-random")
    log = roll_out(task, BehaviourPolicy.random(task, 0), 200, seed=1)
    ends = log.terminals[:-1].sum()
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "next_observations"):
            file[name] = getattr(log, name)
        file["terminals"] = file["timeouts"] = np.zeros(200, bool)
    for words in ((), ("--task", "hopper-random")):
        facts = parsed(command("data", "inspect", tmp_path / "log.hdf5", *words, "--json"))
        assert facts["episodes"] == ends + 1 > 5 and facts["return_max"] == pytest.approx(log.episode_returns().max())
        (note,) = [each for each in facts["oddities"] if "mark" in each]
        assert note == f"ends of episodes that the file does not mark, found from its rows: {ends}"
    run = ("run", "--tasks", "hopper-random", "--algorithms", "bc", "--seeds", "1", "--jobs", "1", "--steps", "2")
    small = ("--set", "bc.hidden=8,8", "--episodes", "1", "--results", tmp_path / "runs", "--dataset", tmp_path / "log.hdf5")
    assert command(*run, *small).code == 0
    doubt = f"{ends} rows are not terminal where the task's termination says that they are"
    assert f"; {note}; {doubt}." in command("table", "scores", "--results", tmp_path / "runs", "--format", "markdown").out


def test_what_takes_minutes_is_announced(cache, command, monkeypatch, capsys):
    """A dry run of a suite rolls out whole datasets; it had said nothing meanwhile."""
    monkeypatch.setattr(behaviour_policies, "LONG", 100)
    words = ("run", "--tasks", "hopper-random", "--algorithms", "bc", "--steps", "2", "--dry-run", "--rows", "100")
    said = "hopper-random: rolling out 100 rows in the simulator, which takes minutes\n"
    assert command(*words).err == said
    assert command(*words).err == ""  # it is there
    here = {"tasks": "hopper-random", "algorithms": "bc", "seeds": 1, "steps": 1, "jobs": 1, "results": cache.parent / "runs"}
    mopo_bench.run(**here, rows=101, quiet=True)
    assert "rolling out" not in capsys.readouterr().err
    mopo_bench.run(**here, rows=102)
    assert said.replace("100", "102") in capsys.readouterr().err


def test_export(cache, command, tmp_path):
    """To D4RL's layout and on; the card holds the command, without a path of this machine."""
    finished = command("data", "export", "point-angle", "--to", "d4rl", "--rows", "50", "--out", tmp_path / "shared" / "point")
    file = tmp_path / "shared" / "point" / "point.hdf5"
    assert finished.code == 0 and str(file) in finished.out
    digest = parsed(command("data", "inspect", "point-angle", "--rows", "50", "--json"))["digest"]
    assert parsed(command("data", "inspect", file, "--task", "point-angle", "--json"))["digest"] == digest
    card = (file.parent / "README.md").read_text()
    assert "`mopo-bench data export point-angle --to d4rl --rows 50 --out point`" in card and str(tmp_path) not in card
    assert command("data", "export", file, "--task", "point-angle", "--to", "d4rl", "--out", tmp_path / "again").code == 0
    assert "data export point.hdf5 --to d4rl --task point-angle --out again`" in (tmp_path / "again" / "README.md").read_text()
    whole = command("data", "export", "halfcheetah-mixed", "--to", "d4rl", "--rows", "1500", "--out", tmp_path / "more")
    assert "2,000 rows (1,500 were asked for: recorded episodes stay whole)" in whole.out
    refused = command("data", "export", file, "--to", "d4rl", "--out", tmp_path / "again")
    assert refused.code == 2 and "again.hdf5 exists: name another folder" in refused.err


def test_run_on_a_file_that_was_relabelled_for_another_task(cache, command, tmp_path):
    ant = get_task("ant-angle")
    write_hdf5(roll_out(ant.as_collected(), BehaviourPolicy.random(ant, 0), 60, seed=0), tmp_path / "log.hdf5")
    relabel = ("data", "relabel", tmp_path / "log.hdf5", "--reward", "ant-angle", "--set", "angle=90")
    assert command(*relabel, "--out", tmp_path / "90.hdf5").code == 0
    run = ("run", "--tasks", "ant-angle", "--algorithms", "bc", "--seeds", "1", "--jobs", "1", "--steps", "2")
    small = ("--set", "bc.hidden=8,8", "--episodes", "1", "--results", tmp_path / "runs", "--dataset", tmp_path / "90.hdf5")
    refused = command(*run, *small)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and not (tmp_path / "runs").exists()
    assert "--task-set ant-angle.angle=90, or relabel it with `mopo-bench data relabel" in refused.err


def test_list_says_what_a_run_would_find(mirror, cache, command, monkeypatch):
    walker2d = get_task("walker2d-random")
    walker2d = replace(walker2d, recipe=replace(walker2d.recipe, regenerate=None))
    monkeypatch.setitem(registry._TASKS, "walker2d-random", walker2d)
    (cache / "d4rl").mkdir(parents=True)
    (cache / "d4rl" / "hopper_random.hdf5").write_bytes(b"short")
    rows = {row["name"]: row for row in parsed(command("data", "list", "--json"))}
    assert rows["hopper-random"]["here"] == "no: wrong size" and rows["walker2d-random"]["here"] == "no"
    assert rows["point-angle"]["here"] == "made when asked for"
    assert command("data", "inspect", "point-angle").code == 0 and command("data", "inspect", "hopper-random").code == 2
    rows = {row["name"]: row for row in parsed(command("data", "list", "--json"))}
    assert rows["point-angle"]["here"] == "yes"


def test_collect_that_does_not_get_there(command, tmp_path):
    words = ("data", "collect", "hopper-medium", "--steps", "120", "--rows", "50", "--out", tmp_path / "hopper")
    finished = command(*words)
    assert finished.code == 2 and "not reached" in finished.err and len(finished.err.splitlines()) == 1
    assert (tmp_path / "hopper" / "checkpoint.pt").exists() and not (tmp_path / "hopper" / "hopper-medium.hdf5").exists()
    assert command(*words, "--target", "-1000").code == 0
    assert parsed(command("data", "inspect", tmp_path / "hopper" / "hopper-medium.hdf5", "--json"))["rows"] == 50


def test_committed_table_of_actors_is_of_the_bundled_ones(command, monkeypatch):
    """As the command writes it, for the policies that are bundled now; few episodes, since it is about the form."""
    with (Path(__file__).parents[3] / "results" / "collection" / "actors.csv").open() as file:
        committed = list(csv.DictReader(file))
    expected = [(f"{name}.npz", str(bundled_policy(name).about["steps"])) for name in actors.bundled_names()]
    assert [(row["file"], row["steps"]) for row in committed] == expected
    assert {row["episodes"] for row in committed} == {"100"}
    monkeypatch.setattr(actors, "bundled_names", lambda: ["hopper-medium"])
    finished = command("data", "actors", "--episodes", "3", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(finished.out))
    assert finished.code == 0 and list(row) == list(committed[0]) and row["episodes"] == "3"
    assert float(row["return_mean"]) == pytest.approx(float(row["trained_return"]), rel=0.5)
