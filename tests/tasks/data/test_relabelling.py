"""A file of one's own has the rewards of its task, and one that was relabelled for another task is refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import write_hdf5
from mopo_bench.tasks.data.relabelling import relabel_file, with_own_rewards
from mopo_bench.tasks.data.request import DatasetRequest
from mopo_bench.tasks.data.sources import load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import ActionBox, DatasetRecipe, Problem, Task

ANT, HOPPER = get_task("ant-angle"), get_task("hopper-random")
STEPS = 50


def constant(dataset, value=-5.0):
    return np.full(len(dataset), value)


def sideways(dataset):
    return dataset.extras["infos/y_velocity"]


CONSTANT = Task(
    "pendulum-constant",
    "Pendulum-v1",
    Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=STEPS),
    parameters={"value": -5.0},
    recipe=DatasetRecipe(reward=constant),
)


@pytest.fixture(scope="module")
def ant_log():
    return roll_out(ANT.as_collected(), BehaviourPolicy.random(ANT, 0), 60, seed=0)


@pytest.fixture
def logged(ant_log, tmp_path):
    """As it was logged, under the behaviour reward."""
    write_hdf5(ant_log, tmp_path / "logged.hdf5")
    return tmp_path / "logged.hdf5"


def loaded(task, file):
    return load_dataset(task, DatasetRequest(file=file))


@pytest.mark.parametrize("value", [-5.0, 2.0])
def test_rows_of_any_file_have_the_reward_of_the_task(value, tmp_path):
    """Whose mean return was that of the log, -131, where the task pays -5 a step, -250 an episode."""
    task = CONSTANT.with_parameters(value=value)
    log = roll_out(replace(task, recipe=DatasetRecipe(), parameters={}), BehaviourPolicy.random(task, 0), 200, seed=0)
    write_hdf5(log, tmp_path / "mine.hdf5")
    dataset = loaded(task, tmp_path / "mine.hdf5")
    assert (dataset.rewards == value).all() and dataset.episode_returns().tolist() == [STEPS * value] * 4
    assert dataset.provenance["from"] == f"mine.hdf5, rewards of pendulum-constant (value={value})"
    assert dataset.provenance["relabelled"]["return_mean_before"] == pytest.approx(log.episode_returns().mean())
    assert dataset.digest() != loaded(replace(task, recipe=DatasetRecipe()), tmp_path / "mine.hdf5").digest()


def test_file_as_it_was_logged(ant_log, logged):
    at_90 = ANT.with_parameters(angle=90.0)
    np.testing.assert_array_equal(loaded(at_90, logged).rewards, with_own_rewards(ant_log, at_90).rewards)
    assert "rewards of ant-angle (angle=90.0, survive_bonus=1.0)" in loaded(at_90, logged).provenance["from"]


def test_file_that_does_not_store_what_the_reward_needs(logged):
    with h5py.File(logged, "r+") as file:
        del file["infos/y_velocity"]
    with pytest.raises(UserError, match=r"logged\.hdf5: ant-angle has a reward of its own: .*infos/y_velocity") as refused:
        loaded(ANT, logged)
    assert "\n" not in str(refused.value)


def test_rewards_of_d4rls_tasks_stay(tmp_path):
    log = roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 60, seed=0)
    write_hdf5(replace(log, rewards=np.full(60, 7, np.float32)), tmp_path / "mine.hdf5")
    dataset = loaded(HOPPER, tmp_path / "mine.hdf5")
    assert (dataset.rewards == 7).all() and dataset.provenance["from"] == "mine.hdf5"


def relabelled(logged, *settings, reward="ant-angle"):
    out = logged.with_name("relabelled.hdf5")
    relabel_file(logged, reward, settings, out)
    return out


def test_relabelled_for_another_angle(logged):
    """Trained at 90 degrees, it was evaluated at 30 without a word."""
    file = relabelled(logged, "angle=90")
    with pytest.raises(UserError) as refused:
        loaded(ANT, file)
    assert str(refused.value) == (
        f"{file} was relabelled with angle=90, and ant-angle has angle=30.0: add --task-set ant-angle.angle=90, "
        f"or relabel it with `mopo-bench data relabel {file} --reward ant-angle --set angle=30.0 --set survive_bonus=1.0 "
        "--out NEW.hdf5`"
    )
    dataset = loaded(ANT.with_parameters(angle=90.0), file)
    np.testing.assert_array_equal(dataset.rewards, loaded(ANT.with_parameters(angle=90.0), logged).rewards)
    assert "rewards of ant-angle (angle=90, survive_bonus=1.0)" in dataset.provenance["from"]


def test_each_parameter_that_differs_is_named(logged):
    with pytest.raises(
        UserError, match=r"with angle=60 and survive_bonus=0, and ant-angle has angle=30.0 and survive_bonus=1.0"
    ):
        loaded(ANT, relabelled(logged, "angle=60", "survive_bonus=0"))


def test_what_the_task_itself_relabelled(ant_log, tmp_path):
    """As `data collect` leaves it: nothing is computed again, so it may lack what the reward needs."""
    write_hdf5(replace(with_own_rewards(ant_log, ANT), extras={}), tmp_path / "collected.hdf5")
    assert len(loaded(ANT, tmp_path / "collected.hdf5")) == 60
    with pytest.raises(UserError, match=r"--task-set ant-angle\.survive_bonus=1\.0"):
        loaded(ANT.with_parameters(survive_bonus=0.0), tmp_path / "collected.hdf5")


def test_relabelled_with_another_reward(logged):
    file = relabelled(logged, reward=f"{__name__}:sideways")
    with pytest.raises(
        UserError, match=r"was relabelled with .*:sideways, which is not the reward of ant-angle: .*data relabel"
    ):
        loaded(ANT, file)
    own = replace(ANT, name="ant-sideways", recipe=replace(ANT.recipe, reward=sideways))
    np.testing.assert_array_equal(loaded(own, file).rewards, sideways(loaded(ANT, logged)))


def test_reward_without_a_name(logged):
    own = replace(ANT, name="mine", recipe=replace(ANT.recipe, reward=lambda dataset: np.zeros(len(dataset))))
    assert (loaded(own, logged).rewards == 0).all()
    with pytest.raises(UserError, match="not the reward of mine: name the file that it was made from"):
        loaded(own, relabelled(logged))


def test_another_task_of_the_same_reward(ant_log, tmp_path):
    other = replace(ANT, name="my-ant")
    write_hdf5(with_own_rewards(ant_log, other), tmp_path / "collected.hdf5")
    np.testing.assert_array_equal(loaded(ANT, tmp_path / "collected.hdf5").rewards, with_own_rewards(ant_log, ANT).rewards)


def test_relabelled_file_of_a_task_without_a_reward_of_its_own(logged):
    """Nothing says what the environment pays: it is said under the table."""
    task = replace(ANT, recipe=replace(ANT.recipe, reward=None))
    said = loaded(task, relabelled(logged, "angle=90")).provenance["from"]
    assert said.endswith("rewards relabelled with ant-angle (angle=90, survive_bonus=1.0), which the environment does not pay")


def test_note_that_says_nothing_is_no_note(ant_log, tmp_path):
    for note in (None, 3, {"reward": 3, "parameters": {}}, {"reward": "ant-angle", "parameters": [90]}):
        write_hdf5(replace(ant_log, provenance={"relabelled": note}), tmp_path / "mine.hdf5")
        np.testing.assert_array_equal(loaded(ANT, tmp_path / "mine.hdf5").rewards, with_own_rewards(ant_log, ANT).rewards)
