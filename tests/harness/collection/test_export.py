"""Datasets as one shares them: what is written reads back as it was, here and by Minari, and the card says what it is."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection.export import export
from mopo_bench.harness.collection.inspection import find_dataset
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import read_hdf5, write_hdf5
from mopo_bench.tasks.data.relabelling import relabel_file
from mopo_bench.tasks.data.request import DatasetRequest
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.registry import get_task

HOPPER, JUMP, PENDULUM = (get_task(name) for name in ("hopper-random", "halfcheetah-jump", "pendulum-mixed"))
COMMAND = "mopo-bench data export hopper-random --to minari --out hopper-v0"


@pytest.fixture(scope="module")
def hopper():
    return load_dataset(HOPPER, DatasetRequest("regenerated", rows=300))


@pytest.fixture
def minari():
    return pytest.importorskip("minari")


@pytest.mark.parametrize("task", [HOPPER, JUMP, PENDULUM], ids=lambda task: task.name)
def test_minari_reads_what_was_written(task, minari, tmp_path):
    dataset = load_dataset(task, DatasetRequest("regenerated", rows=300))
    file = export(dataset, task, "minari", tmp_path / "some-v0", COMMAND)
    read = minari.MinariDataset(file.parent)
    assert (read.total_steps, read.total_episodes, read.id) == (len(dataset), len(dataset.episodes()[0]), "some-v0")
    assert read.env_spec.id == task.environment and read.env_spec.kwargs == dict(task.parameters)
    assert read.action_space.shape == (task.problem.action_size,) and read.action_space.contains(dataset.actions[0])
    for episode, start, stop in zip(read.iterate_episodes(), *dataset.episodes(), strict=True):
        np.testing.assert_array_equal(episode.observations[:-1], dataset.observations[start:stop])
        np.testing.assert_array_equal(episode.observations[1:], dataset.next_observations[start:stop])
        np.testing.assert_array_equal(episode.actions, dataset.actions[start:stop])
        np.testing.assert_array_equal(episode.rewards, dataset.rewards[start:stop])
        np.testing.assert_array_equal(episode.terminations, dataset.terminals[start:stop])
        np.testing.assert_array_equal(episode.truncations, dataset.timeouts[start:stop])
        for name, array in dataset.extras.items():
            np.testing.assert_array_equal(episode.infos[name.removeprefix("infos/")], array[start:stop])


@pytest.mark.parametrize("layout", ["minari", "d4rl"])
def test_there_and_back(layout, hopper, minari, tmp_path):
    """Through the one layout into the other: the same arrays, the same extras, the same origin."""
    first = export(hopper, HOPPER, layout, tmp_path / "first", COMMAND)
    again, task = find_dataset(str(first), DatasetRequest(), HOPPER.name)
    other = "d4rl" if layout == "minari" else "minari"
    second = export(again, task, other, tmp_path / "second", COMMAND)
    for file in (first, second):
        read = load_dataset(HOPPER, DatasetRequest(file=file))
        assert read.digest() == hopper.digest() and read.extras.keys() == hopper.extras.keys()
        assert all(np.array_equal(read.extras[name], array) for name, array in hopper.extras.items())
        assert read.provenance["policy"] == hopper.provenance["policy"] and "flags" not in read.provenance
    assert ("layout" in read.provenance) == (other == "minari")


def test_rows_without_successors(hopper, minari, tmp_path):
    """D4RL's v0 does not store the last next observation of an episode: nothing is invented for it."""
    unknown = hopper.terminals | hopper.timeouts
    v0 = replace(hopper, next_observations=np.roll(hopper.observations, -1, axis=0), valid_next=~unknown, extras={})
    file = export(v0, HOPPER, "minari", tmp_path / "v0", COMMAND)
    read = read_hdf5(file)
    assert np.array_equal(read.valid_next, v0.valid_next) and read.extras == {}
    for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(read, name), getattr(v0, name))
    np.testing.assert_array_equal(read.next_observations[:-1][~unknown[:-1]], v0.next_observations[:-1][~unknown[:-1]])
    np.testing.assert_array_equal(read.next_observations[unknown], v0.observations[unknown])
    text = (tmp_path / "v0" / "README.md").read_text()
    assert f"| rows whose next observation is not known | {unknown.sum()} |" in text and "infos/valid_next" in text


def test_shuffled_rows_have_no_place_in_minaris_layout(hopper, minari, tmp_path):
    order = np.random.default_rng(0).permutation(300)
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")
    shuffled = replace(hopper, **{name: getattr(hopper, name)[order] for name in names}, extras={})
    with pytest.raises(UserError, match=r"2[0-9][0-9] rows are not those of the next row.*--to d4rl"):
        export(shuffled, HOPPER, "minari", tmp_path / "out", COMMAND)
    assert not (tmp_path / "out").exists()
    assert read_hdf5(export(shuffled, HOPPER, "d4rl", tmp_path / "out", COMMAND)).digest() == shuffled.digest()


def test_what_a_file_was_relabelled_with_travels(minari, tmp_path):
    ant = get_task("ant-angle")
    write_hdf5(roll_out(ant.as_collected(), BehaviourPolicy.random(ant, 0), 30, seed=0), tmp_path / "log.hdf5")
    relabel_file(tmp_path / "log.hdf5", "ant-angle", ["angle=90"], tmp_path / "90.hdf5")
    file = export(*find_dataset(str(tmp_path / "90.hdf5"), DatasetRequest()), "minari", tmp_path / "ant-v0", COMMAND)
    with pytest.raises(UserError, match=r"angle=90, and ant-angle has angle=30\.0"):
        load_dataset(ant, DatasetRequest(file=file))
    text = (tmp_path / "ant-v0" / "README.md").read_text()
    assert "relabelled with ant-angle (angle=90, survive_bonus=1.0)" in text and str(tmp_path) not in text


@pytest.mark.parametrize("layout", ["minari", "d4rl"])
def test_card(layout, hopper, minari, tmp_path):
    file = export(hopper, HOPPER, layout, tmp_path / "hopper-v0", COMMAND)
    text, returns = (tmp_path / "hopper-v0" / "README.md").read_text(), hopper.episode_returns()[:-1]  # the last is cut
    for words in (
        "# hopper-v0",
        "| source | hopper-random@regenerated |",
        "| made from | a randomly initialised policy |",
        "| task | hopper-random: Hopper-v4 |",
        f"| rows, episodes | 300, {len(returns) + 1} |",
        f"| return of an episode | {returns.mean():.1f} ± {returns.std(ddof=1):.1f}, from {returns.min():.1f} to",
        f"| normalised score | {HOPPER.references.score(returns.mean()):.1f} |",
        f"| SHA-256 of the arrays | {hopper.digest()} |",
        f"`{COMMAND}`",
        "| licence | MIT, as mopo-bench",
        f"--dataset {file.relative_to(tmp_path / 'hopper-v0')}",
        f"numpy {np.__version__}",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("source", "licence"), [("v0", "CC BY 4.0"), ("v2", "CC BY 4.0"), ("file", "say which"), ("regenerated", "MIT")]
)
def test_licence_follows_the_source(source, licence, hopper, tmp_path):
    export(hopper.noting(source=source), HOPPER, "d4rl", tmp_path / "out", COMMAND)
    (line,) = [line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if line.startswith("| licence")]
    assert licence in line


def test_card_of_what_a_stranger_s_file_says_of_itself(hopper, tmp_path):
    odd = {"relabelled": 3, "policies": 7, "policy": "SAC", "command": "a\n| b |", "from": None, "window": [1], "flags": []}
    export(hopper.noting(**odd), None, "d4rl", tmp_path / "out", COMMAND)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| reward | as it was logged |" in text and r"| collected by | a \| b \| |" in text


@pytest.mark.parametrize("layout", ["minari", "d4rl"])
@pytest.mark.parametrize("place", ["dataset", "README.md"])
def test_nothing_is_overwritten(layout, place, hopper, tmp_path):
    place = {"dataset": "data" if layout == "minari" else "out.hdf5"}.get(place, place)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / place).write_text("mine")
    with pytest.raises(UserError, match=f"{place} exists"):
        export(hopper, HOPPER, layout, tmp_path / "out", COMMAND)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_without_minari(hopper, tmp_path, monkeypatch):
    for name in {"minari"} | {name for name in sys.modules if name.startswith("minari.")}:
        monkeypatch.setitem(sys.modules, name, None)  # as Python has it for what cannot be imported
    with pytest.raises(UserError, match=r"--to minari needs Minari .*pip install 'mopo-bench\[minari\]'") as refused:
        export(hopper, HOPPER, "minari", tmp_path / "out", COMMAND)
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written(hopper, minari, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for layout in ("minari", "d4rl"):
        with pytest.raises(UserError, match="cannot be written"):
            export(hopper, HOPPER, layout, tmp_path / "file" / "out", COMMAND)
