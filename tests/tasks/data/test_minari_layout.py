"""Files in Minari's layout, written here as its documentation describes them."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data import dataset as dataset_module
from mopo_bench.tasks.data.hdf5 import read_hdf5
from mopo_bench.tasks.data.relabelling import relabel_file
from mopo_bench.tasks.data.request import DatasetRequest
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.task import Problem, Task

LENGTHS = (4, 7, 3)
ROWS = sum(LENGTHS)


def episode_arrays(length, generator):
    terminations = np.zeros(length, bool)
    return {
        "observations": generator.normal(size=(length + 1, 3)),
        "actions": generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        "rewards": generator.normal(size=length),
        "terminations": terminations,
        "truncations": terminations.copy(),
        "infos/x_velocity": generator.normal(size=length + 1),
        "infos/qpos": generator.normal(size=(length + 1, 2)),
        "infos/cost": generator.normal(size=length),
        "infos/more/height": generator.normal(size=length + 1),
        "infos/odd": np.zeros(5),
        "infos/words": np.array([b"a"] * (length + 1)),
    }


@pytest.fixture
def made():
    """Three episodes: one ends in a terminal state, one is truncated, and where the last is cut no flag says."""
    generator = np.random.default_rng(0)
    episodes = [episode_arrays(length, generator) for length in LENGTHS]
    episodes[0]["terminations"][-1] = episodes[1]["truncations"][-1] = True
    return episodes


def save(path, episodes):
    with h5py.File(path, "w") as file:
        for number in (10, 2, 0):  # as groups are listed, 10 comes before 2
            for name, array in episodes[{0: 0, 2: 1, 10: 2}[number]].items():
                file[f"episode_{number}/{name}"] = array
    return path


def test_each_row_has_its_successor_and_its_infos(made, tmp_path):
    dataset = read_hdf5(save(tmp_path / "main_data.hdf5", made))

    def joined(name, rows):
        return np.concatenate([episode[name][rows] for episode in made])

    before, after, each = slice(None, -1), slice(1, None), slice(None)
    np.testing.assert_array_equal(dataset.observations, joined("observations", before).astype(np.float32))
    np.testing.assert_array_equal(dataset.next_observations, joined("observations", after).astype(np.float32))
    np.testing.assert_array_equal(dataset.actions, joined("actions", each))
    np.testing.assert_array_equal(dataset.rewards, joined("rewards", each).astype(np.float32))
    assert np.flatnonzero(dataset.terminals).tolist() == [3] and np.flatnonzero(dataset.timeouts).tolist() == [10]
    assert dataset.valid_next.all() and dataset.episode_lengths().tolist() == list(LENGTHS)
    assert set(dataset.extras) == {"infos/x_velocity", "infos/qpos", "infos/cost", "infos/more.height"}
    np.testing.assert_array_equal(dataset.extras["infos/x_velocity"], joined("infos/x_velocity", after))  # what a step gave
    np.testing.assert_array_equal(dataset.extras["infos/qpos"], joined("infos/qpos", before))  # where it began
    np.testing.assert_array_equal(dataset.extras["infos/cost"], joined("infos/cost", each))
    assert dataset.provenance["layout"] == "Minari" and dataset.provenance["left_out"] == ["odd", "words"]


def test_slices_make_no_difference(made, tmp_path, monkeypatch):
    path = save(tmp_path / "main_data.hdf5", made)
    whole = read_hdf5(path)
    for slice_bytes in (1, 24 * 3, 24 * 4, 24 * 5, 24 * ROWS):
        monkeypatch.setattr(dataset_module, "SLICE_BYTES", slice_bytes)
        assert read_hdf5(path).digest() == whole.digest()


def test_as_a_task_s_dataset(made, tmp_path, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    folder = tmp_path / "hopper" / "medium-v0" / "data"
    folder.mkdir(parents=True)
    path = save(folder / "main_data.hdf5", made)
    task = Task("small", "Small-v0", Problem(3, 2))
    dataset = load_dataset(task, DatasetRequest(file=path))
    assert dataset.digest() == read_hdf5(path).digest() and dataset.provenance["label"] == "small@file"
    assert dataset.provenance["from"] == "medium-v0/data/main_data.hdf5, in Minari's layout"
    with pytest.raises(UserError, match="observations has 3 columns, expected 11"):
        load_dataset(replace(task, problem=Problem(11, 2)), DatasetRequest(file=path))
    with pytest.raises(UserError, match=r"data/main_data\.hdf5"):
        load_dataset(task, DatasetRequest(file=folder.parent))


def height(dataset):
    return dataset.extras["infos/more.height"]


def test_relabelled_it_is_in_d4rls_layout(made, tmp_path):
    path = save(tmp_path / "main_data.hdf5", made)
    relabel_file(path, f"{__name__}:height", [], tmp_path / "new.hdf5")
    before, after = read_hdf5(path), read_hdf5(tmp_path / "new.hdf5")
    np.testing.assert_array_equal(after.rewards, before.extras["infos/more.height"].astype(np.float32))
    assert replace(after, rewards=before.rewards).digest() == before.digest() and "layout" not in after.provenance


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("observations", np.zeros((4, 3)), "episode_0/observations has 4 rows where 4 rewards need 5"),
        ("actions", np.zeros((5, 2)), "episode_0/actions has 5 rows where 4 rewards need 4"),
        ("actions", np.zeros((4, 3)), "actions of different episodes have rows of shapes (2,), (3,)"),
        ("actions", np.zeros(4), "actions of different episodes have rows of shapes (), (2,)"),
        ("rewards", None, "episode_0/rewards is missing"),
        ("rewards", np.zeros((0,)), "episode_0/rewards is empty"),
        ("observations/image", np.zeros((5, 3)), "episode_0/observations is a group"),
        ("terminations", h5py.SoftLink("/episode_2/terminations"), "terminations is a soft or external link"),
        ("truncations", np.full(4, 0.5), "timeouts is neither 0 nor 1 in 4 rows"),
        ("observations", np.full((5, 3), np.nan), "observations is not finite"),
    ],
)
def test_bad_file(name, value, words, made, tmp_path):
    path = save(tmp_path / "main_data.hdf5", made)
    with h5py.File(path, "r+") as file:
        del file[f"episode_0/{name.split('/')[0]}"]
        if value is not None:
            file[f"episode_0/{name}"] = value
    with pytest.raises(UserError) as refused:
        read_hdf5(path)
    assert words in str(refused.value) and "\n" not in str(refused.value) and "damaged" not in str(refused.value)
