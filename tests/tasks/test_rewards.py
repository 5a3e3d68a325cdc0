"""The same logs, another reward."""

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import read_hdf5, write_hdf5
from mopo_bench.tasks.data.relabelling import relabel, relabel_file, with_own_rewards
from mopo_bench.tasks.environments import make_environment
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.rewards import REWARDS, TORSO_HEIGHT, find_reward


@pytest.fixture(scope="module")
def logs():
    """A random policy's log of each task's own environment, under the behaviour reward."""
    tasks = [get_task(name) for name in REWARDS]
    return {task.name: roll_out(task.as_collected(), BehaviourPolicy.random(task, 0), 300, seed=1) for task in tasks}


VARIANTS = [
    ("halfcheetah-jump", {}),
    ("halfcheetah-jump", {"height_weight": 3.0}),
    ("halfcheetah-jump", {"z_reference": "reset"}),
    ("ant-angle", {}),
    ("ant-angle", {"angle": 60.0}),
    ("ant-angle", {"survive_bonus": 0.0}),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_reward_is_the_environments(name, variant, logs):
    """An environment of that variant, brought through the same actions, pays what the logs are relabelled with."""
    task, dataset = get_task(name).with_parameters(**variant), logs[name]
    relabelled = with_own_rewards(dataset, task)
    environment = make_environment(task.environment, **task.parameters)
    from mopo_bench.common.streams import numpy_stream

    for number, (start, stop) in enumerate(zip(*dataset.episodes(), strict=True)):
        generator = numpy_stream(1, task.environment, "episode", number)
        generator.standard_normal((task.problem.max_episode_steps, task.problem.action_size))
        environment.reset(seed=int(generator.integers(2**31)))
        for row in range(start, stop):
            _, reward, *_ = environment.step(dataset.actions[row])
            assert relabelled.rewards[row] == pytest.approx(reward, abs=2e-4)
    assert relabelled.provenance["relabelled"]["parameters"] == {
        key: value for key, value in task.parameters.items() if key in relabelled.provenance["relabelled"]["parameters"]
    }


@pytest.mark.parametrize(("name", "nothing"), [("halfcheetah-jump", "height_weight"), ("ant-angle", "angle")])
def test_nothing_added_is_the_behaviour_reward(name, nothing, logs):
    dataset = logs[name]
    again = relabel(dataset, REWARDS[name], {nothing: 0.0}, name)
    np.testing.assert_allclose(again.rewards, dataset.rewards, atol=1e-5)
    assert np.abs(with_own_rewards(dataset, get_task(name)).rewards - dataset.rewards).max() > 0.05


def test_only_the_rewards_change(logs):
    dataset = logs["ant-angle"]
    again = with_own_rewards(dataset, get_task("ant-angle"))
    for name in ("observations", "actions", "next_observations", "terminals", "timeouts", "valid_next"):
        assert np.array_equal(getattr(again, name), getattr(dataset, name))
    assert again.digest() != dataset.digest()
    note = again.provenance["relabelled"]
    assert note["parameters"] == {"angle": 30.0, "survive_bonus": 1.0}
    before = dataset.episode_returns()[dataset.whole_episodes()].mean()
    assert note["return_mean_before"] == pytest.approx(before) and note["reward"] == "ant-angle"


def height(dataset, weight=1.0):
    """A user's own reward, found as module:function."""
    return weight * dataset.observations[:, 0]


def test_file_is_relabelled_with_a_users_own_function(tmp_path, logs):
    write_hdf5(logs["ant-angle"], tmp_path / "log.hdf5")
    before, after = relabel_file(tmp_path / "log.hdf5", f"{__name__}:height", ["weight=2.5"], tmp_path / "new.hdf5")
    new = read_hdf5(tmp_path / "new.hdf5")
    np.testing.assert_allclose(new.rewards, 2.5 * new.observations[:, 0], rtol=1e-6)
    assert (before, after) == (pytest.approx(logs["ant-angle"].rewards.mean()), pytest.approx(new.rewards.mean()))
    assert new.provenance["relabelled"]["parameters"] == {"weight": 2.5}


REFUSED = {
    "unknown name": ("ant-angel", [], "ant-angle"),
    "unknown parameter": ("ant-angle", ["angel=45"], "angle"),
    "no such module": ("no_such_module:f", [], "no_such_module"),
    "no such function": (f"{__name__}:width", [], "width"),
    "not a function": (f"{__name__}:REFUSED", [], "not a function"),
    "not stored": ("halfcheetah-jump", [], "infos/z"),
    "wrong shape": ("numpy:asarray_chkfinite", [], "numpy:asarray_chkfinite"),
}


@pytest.mark.parametrize(("reward", "settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_leaves_nothing(reward, settings, words, tmp_path, logs):
    write_hdf5(logs["ant-angle"], tmp_path / "log.hdf5")
    with pytest.raises(UserError, match=words) as caught:
        relabel_file(tmp_path / "log.hdf5", reward, settings, tmp_path / "new.hdf5")
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.hdf5"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (lambda dataset: np.full(len(dataset), np.nan), "not finite in 300 rows, first in row 0"),
        (lambda dataset: np.where(np.arange(len(dataset)) == 7, np.inf, 0), "not finite in 1 rows, first in row 7"),
        (lambda dataset: np.zeros(len(dataset) - 1), "expected a number for each of 300 rows"),
        (lambda dataset: np.zeros((len(dataset), 1)), "expected a number for each of 300 rows"),
        (lambda dataset: np.full(len(dataset), "a"), "expected a number for each of 300 rows"),
    ],
)
def test_rewards_that_are_none(values, words, logs):
    with pytest.raises(UserError, match=words):
        relabel(logs["ant-angle"], values, {}, "mine")


def test_a_file_is_not_overwritten_by_itself(tmp_path, logs):
    write_hdf5(logs["ant-angle"], tmp_path / "log.hdf5")
    with pytest.raises(UserError, match="--out"):
        relabel_file(tmp_path / "log.hdf5", "ant-angle", [], tmp_path / "log.hdf5")


def test_the_torso_stands_where_the_model_has_it():
    environment = make_environment("mopo_bench/HalfCheetahJump-v0")
    assert environment.model.body("torso").pos[2] + environment.init_qpos[1] == pytest.approx(TORSO_HEIGHT)


def test_registered_rewards_are_found():
    assert {name: find_reward(name) for name in REWARDS} == REWARDS
