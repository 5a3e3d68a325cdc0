"""Where a dataset comes from: D4RL's file if it is here, else regenerated once and kept."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.recipes import from_random_policy
from mopo_bench.tasks.data.sources import DatasetRequest, cache_folder, d4rl_path, load_dataset
from mopo_bench.tasks.registry import all_tasks, get_task
from mopo_bench.tasks.task import ActionBox, DatasetRecipe, Problem, Task

HOPPER = get_task("hopper-random")
PENDULUM = Task(
    "pendulum-test",
    "Pendulum-v1",
    Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=30),
    recipe=DatasetRecipe(regenerate=from_random_policy, rows=100, made_from="a random policy"),
)


def made_by(task, **changes):
    """The task with another recipe."""
    return replace(task, recipe=replace(task.recipe, **changes))


SMALL = DatasetRequest(rows=300)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test alone, and a folder for D4RL's own files."""
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    return tmp_path / "cache"


def kept(cache):
    return sorted(cache.rglob("*.hdf5"))


def v0_file(path, rows=50, reward=7.0, observation_size=11):
    """D4RL's v0 layout: no next observations, flags as numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = generator.normal(size=(rows, observation_size)).astype(np.float32)
        file["actions"] = generator.uniform(-1, 1, (rows, 3)).astype(np.float32)
        file["rewards"] = np.full(rows, reward, np.float32)
        file["terminals"] = (np.arange(rows) % 10 == 9).astype(np.uint8)
        file["timeouts"] = np.zeros(rows, np.uint8)
    return path


def knowing(task, path, **layout):
    """The task as if D4RL's file were this one."""
    content = path.read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **layout}
    return made_by(task, files=(replace(task.recipe.files[0], **facts), *task.recipe.files[1:]))


def test_cache_folder_is_the_one_named(cache, monkeypatch):
    assert cache_folder() == cache
    load_dataset(HOPPER, SMALL)
    assert [path.parent for path in kept(cache)] == [cache / "regenerated"]
    monkeypatch.delenv("MOPO_BENCH_DATA")
    assert cache_folder().name == "mopo-bench" and cache_folder() != cache


def test_dataset_is_made_once(cache):
    dataset = load_dataset(HOPPER, SMALL)
    (path,) = kept(cache)
    before = path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()
    again = load_dataset(HOPPER, SMALL)
    assert again.digest() == dataset.digest()
    assert (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) == before
    assert dataset.digest() == roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 300, 0).digest()
    assert kept(cache) == [path]


def test_datasets_are_mapped_from_the_cache(cache, tmp_path):
    """Whatever file they come from; what is unpacked may be deleted."""
    own, regenerated = DatasetRequest(file=v0_file(tmp_path / "mine.hdf5")), SMALL
    for count, request in enumerate((own, regenerated), 1):
        table = load_dataset(HOPPER, request).window("last_1m").table()
        while not isinstance(table, np.memmap):
            table = table.base
        folders = {path.parent for path in (cache / "arrays").rglob("table.npy")}
        assert Path(table.filename).parent in folders and len(folders) == count
    digest = load_dataset(HOPPER, own).digest()
    shutil.rmtree(cache / "arrays")
    assert load_dataset(HOPPER, own).digest() == digest


def test_what_differs_is_kept_apart(cache):
    requests = [SMALL, DatasetRequest(rows=301), DatasetRequest(rows=300, seed=1)]
    digests = {load_dataset(HOPPER, request).digest() for request in requests}
    digests |= {load_dataset(replace(HOPPER, problem=replace(HOPPER.problem, max_episode_steps=5)), SMALL).digest()}
    assert len(digests) == len(kept(cache)) == 4


def test_fewer_rows_than_were_asked_for_are_said(cache):
    """A scripted runner makes 100 episodes, and no more."""
    task = get_task("point-edge")
    assert load_dataset(task, DatasetRequest(rows=500)).provenance["from"] == task.recipe.made_from
    dataset = load_dataset(task, DatasetRequest(rows=200_000))
    assert len(dataset) == 10_000
    assert dataset.provenance["from"] == f"{task.recipe.made_from}, 10,000 of the 200,000 rows asked for"


def test_environments_parameters_are_part_of_the_recipe(cache):
    jump = made_by(get_task("halfcheetah-jump"), regenerate=from_random_policy)
    digests = [load_dataset(task, DatasetRequest(rows=20)).digest() for task in (jump, jump.with_parameters(height_weight=3.0))]
    assert len(set(digests)) == 2


TWO_AT_ONCE = """
import json, pathlib, sys, time
from dataclasses import replace
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.data.recipes import from_random_policy
from mopo_bench.tasks.registry import get_task

folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]

def regenerate(task, rows, seed):
    (folder / f"made-by-{name}").touch()
    time.sleep(0.5)
    return from_random_policy(task, rows, seed)

task = get_task("hopper-random")
task = replace(task, recipe=replace(task.recipe, regenerate=regenerate))
(folder / f"ready-{name}").touch()
until = time.monotonic() + 100
while len(list(folder.glob("ready-*"))) < 2 and time.monotonic() < until:
    time.sleep(0.001)
print(load_dataset(task, DatasetRequest(rows=300)).digest())
"""


def test_two_processes_at_once_make_one_file(cache, tmp_path):
    command = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path)]
    both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    digests = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert digests[0] == digests[1] and len(digests[0].strip()) == 64
    assert len(list(tmp_path.glob("made-by-*"))) == 1 and len(kept(cache)) == 1


def test_action_box_other_than_unit(cache):
    """Kept in the environment's own actions, mapped for learners."""
    dataset = load_dataset(PENDULUM, DatasetRequest())
    assert len(dataset) == 100 and 1.0 < np.abs(dataset.actions).max() <= 2.0
    seen = PENDULUM.offline_problem(dataset).dataset.actions
    assert seen == pytest.approx(dataset.actions / 2, abs=1e-6) and np.abs(seen).max() <= 1


def test_labels(cache, tmp_path):
    regenerated = load_dataset(HOPPER, SMALL).provenance
    assert regenerated["label"] == "hopper-random@regenerated" and regenerated["source"] == "regenerated"
    assert regenerated["from"] == "a randomly initialised policy" and "random" in regenerated["policy"]["policy"]
    own = load_dataset(HOPPER, DatasetRequest(file=v0_file(tmp_path / "mine.hdf5"))).provenance
    assert own["label"] == "hopper-random@file" and own["from"] == "mine.hdf5"
    path = v0_file(cache / "d4rl" / "hopper_random.hdf5")
    d4rl = load_dataset(knowing(HOPPER, path), DatasetRequest()).provenance
    assert d4rl["label"] == "hopper-random@v0" and "hopper_random.hdf5" in d4rl["from"]


@pytest.mark.parametrize("folder", ["cache/d4rl", "d4rl"])
def test_d4rl_file_is_preferred(folder, cache, tmp_path):
    path = v0_file(tmp_path / folder / "hopper_random.hdf5")
    assert d4rl_path(HOPPER.recipe.files[0]) == path
    for source in ("auto", "d4rl"):
        dataset = load_dataset(knowing(HOPPER, path), DatasetRequest(source))
        assert len(dataset) == 50 and (dataset.rewards == 7.0).all()
        assert dataset.valid_next.sum() == 45 and dataset.terminals.sum() == 5
    assert (load_dataset(HOPPER, DatasetRequest("regenerated", rows=300)).rewards != 7.0).any()


def test_own_folder_comes_before_d4rls(cache, tmp_path):
    path = v0_file(cache / "d4rl" / "hopper_random.hdf5", reward=1.0)
    v0_file(tmp_path / "d4rl" / "hopper_random.hdf5", reward=2.0)
    assert (load_dataset(knowing(HOPPER, path), DatasetRequest()).rewards == 1.0).all()


def test_a_file_is_d4rls_by_checksum(cache):
    """A name alone gives nobody the paper's label."""
    path = v0_file(cache / "d4rl" / "hopper_random.hdf5")
    with pytest.raises(UserError, match="bytes where D4RL's has 54,351,370"):
        load_dataset(HOPPER, DatasetRequest())
    known = knowing(HOPPER, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="another checksum"):
        load_dataset(known, DatasetRequest())


@pytest.mark.parametrize("flags", [False, True], ids=["2020", "with timeouts"])
def test_ends_that_a_file_does_not_tell(flags, cache):
    """A v0 log in which falls are no terminals: where the next row does not follow, the data show it."""
    log = roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 300, seed=1)
    path = cache / "d4rl" / "hopper_random.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards"):
            file[name] = getattr(log, name)
        file["terminals"] = np.zeros(300, np.uint8)
        if flags:
            file["timeouts"] = np.zeros(300, np.uint8)
    dataset = load_dataset(knowing(HOPPER, path), DatasetRequest())
    ends = np.flatnonzero(log.terminals[:-1])
    assert len(ends) > 5 and np.flatnonzero(dataset.timeouts[:-1]).tolist() == ends.tolist()
    assert np.flatnonzero(~dataset.valid_next).tolist() == [*ends, 299]
    facts = dataset.describe()
    assert (facts["repaired"], facts["repaired_by_data"], facts["repaired_by_count"]) == (len(ends), len(ends), 0)


def test_v2_file_is_not_taken_for_v0(cache, tmp_path):
    v0_file(tmp_path / "d4rl" / "hopper_random-v2.hdf5")
    assert load_dataset(HOPPER, SMALL).provenance["source"] == "regenerated"
    with pytest.raises(UserError, match=r"hopper_random\.hdf5 is not in .*data fetch hopper-random"):
        load_dataset(HOPPER, DatasetRequest("d4rl"))


def test_v2_file_is_taken_when_asked_for(cache):
    """Its label says so, and its own next observations are taken."""
    with pytest.raises(UserError, match=r"hopper_random-v2\.hdf5 is not in .*--version v2"):
        load_dataset(HOPPER, DatasetRequest("d4rl-v2"))
    path = v0_file(cache / "d4rl" / "hopper_random-v2.hdf5")
    with h5py.File(path, "r+") as file:
        file["next_observations"] = file["observations"][()] + np.float32(1)
        file["infos/qpos"] = np.zeros((50, 6))
        file["metadata/algorithm"] = "SAC"
    content = path.read_bytes()
    v2 = replace(HOPPER.recipe.files[1], bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    task = made_by(HOPPER, files=(HOPPER.recipe.files[0], v2))
    dataset = load_dataset(task, DatasetRequest("d4rl-v2"))
    assert dataset.provenance["label"] == "hopper-random@v2" and dataset.valid_next.all() and "infos/qpos" in dataset.extras
    np.testing.assert_array_equal(dataset.next_observations, dataset.observations + 1)
    with pytest.raises(UserError, match="--rows"):
        load_dataset(task, DatasetRequest("d4rl-v2", rows=10))


def test_file_of_another_task_is_refused(cache):
    path = v0_file(cache / "d4rl" / "hopper_random.hdf5", observation_size=17)
    with pytest.raises(UserError, match="17 columns, expected 11"):
        load_dataset(knowing(HOPPER, path), DatasetRequest())


def test_window(cache, tmp_path):
    path = v0_file(tmp_path / "mine.hdf5")
    for window in ("all", "last_1m", "first_1m"):
        assert len(load_dataset(HOPPER, DatasetRequest(file=path, window=window))) == 50
    with pytest.raises(UserError, match="last_1m"):
        load_dataset(HOPPER, DatasetRequest(file=path, window="last"))


@pytest.mark.parametrize(
    "name, request_, problem",
    [
        ("hopper-random", DatasetRequest("internet"), "expected auto, d4rl, d4rl-v2 or regenerated"),
        ("hopper-random", DatasetRequest(rows=0), "at least 1"),
        ("hopper-random", DatasetRequest(rows=-3), "at least 1"),
        (
            "hopper-mixed",
            DatasetRequest("d4rl"),
            r"hopper_mixed\.hdf5 is not in .*d4rl; .*data fetch hopper-mixed --version v0",
        ),
        ("hopper-mixed", DatasetRequest("d4rl-v2"), r"hopper_medium_replay-v2\.hdf5 is not in .*--version v2"),
        ("ant-angle", DatasetRequest("d4rl"), "not a task of D4RL.*--dataset FILE"),
        ("point-angle", DatasetRequest("d4rl"), "not a task of D4RL"),
    ],
)
def test_no_dataset(name, request_, problem, cache):
    with pytest.raises(UserError, match=problem) as refused:
        load_dataset(get_task(name), request_)
    assert "\n" not in str(refused.value)
    assert kept(cache) == []


def test_task_with_nothing_to_make_a_dataset_of(cache):
    task = made_by(get_task("hopper-mixed"), regenerate=None)
    with pytest.raises(UserError, match=r"no policy of it is bundled, and hopper_mixed\.hdf5 is not in .*d4rl; --dataset FILE"):
        load_dataset(task, DatasetRequest())


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match="MOPO_BENCH_DATA"):
        load_dataset(HOPPER, SMALL)


def test_failed_recipe_leaves_nothing(cache):
    """And is not taken for a cache that cannot be written."""

    def broken(task, rows, seed):
        raise FileNotFoundError("the actor is gone")

    with pytest.raises(Exception, match="the actor is gone") as failed:
        load_dataset(made_by(HOPPER, regenerate=broken), SMALL)
    assert "MOPO_BENCH_DATA" not in str(failed.value)
    assert kept(cache) == []


def test_label_tells_seeds_apart(cache):
    labels = [load_dataset(HOPPER, replace(SMALL, seed=seed)).provenance["label"] for seed in (0, 3)]
    assert labels == ["hopper-random@regenerated", "hopper-random@regenerated-seed3"]


def test_every_recipe_makes_a_dataset(cache):
    made = {}
    for name, task in all_tasks().items():
        if task.recipe.regenerate is not None:
            dataset = load_dataset(task, DatasetRequest("regenerated", rows=40))
            sizes = (dataset.observations.shape[1], dataset.actions.shape[1])
            assert sizes == (task.problem.observation_size, task.problem.action_size)
            of_buffer = any(file.endswith(".hdf5") for file in getattr(task.recipe.regenerate, "files", ()))
            assert len(dataset) == 40 or (of_buffer and 0 < len(dataset) < 300)  # whole episodes of a replay buffer
            assert task.recipe.made_from and json.dumps(dataset.provenance)
            made[name] = dataset.digest()
            assert ("too few rows for 1 of these 2 policies" in dataset.provenance["from"]) == (
                name in ("halfcheetah-medium-expert", "walker2d-medium-expert")
            )
    assert len(made) == len(all_tasks())
    for domain in ("halfcheetah", "walker2d"):  # whose first rows are the medium log's
        assert made.pop(f"{domain}-medium-expert") == made[f"{domain}-medium"]
    assert len(set(made.values())) == len(made)
