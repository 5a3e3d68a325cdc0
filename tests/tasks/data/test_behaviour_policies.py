"""Datasets rolled out from a policy: the same every time, as long as asked for, true to the simulator."""

import math
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import mopo_bench.tasks.data
import mujoco
import numpy as np
import pytest
import torch
from mopo_bench.common.errors import UserError
from mopo_bench.harness.runs.evaluation import Evaluator, reset_seeds
from mopo_bench.tasks.data.behaviour_policies import (
    EPISODES_AT_ONCE,
    BehaviourPolicy,
    bundled_policy,
    roll_out,
)
from mopo_bench.tasks.data.hdf5 import read_hdf5
from mopo_bench.tasks.data.recipes import RECIPE_VERSION, FromPolicies, FromReplayBuffer, from_random_policy
from mopo_bench.tasks.environments import make_environment
from mopo_bench.tasks.registry import all_tasks, get_task
from mopo_bench.tasks.task import ActionBox, Problem, Task

BUNDLED = Path(str(resources.files(mopo_bench.tasks.data))) / "bundled"
ACTORS = sorted(path.stem for path in BUNDLED.glob("*.npz"))
DATASETS = sorted(path.stem for path in BUNDLED.glob("*.hdf5"))
PENDULUM = Task("pendulum", "Pendulum-v1", Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=30))
HOPPER = get_task("hopper-random")


@pytest.fixture(scope="module")
def hopper_dataset():
    return roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 600, seed=1)


def test_same_seed_gives_the_same_dataset(hopper_dataset):
    again = roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 600, seed=1)
    assert again.digest() == hopper_dataset.digest()
    assert roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 600, seed=2).digest() != hopper_dataset.digest()
    assert roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 1), 600, seed=1).digest() != hopper_dataset.digest()


def test_processors_give_the_same_dataset():
    """OpenBLAS sums a product in another order for each kind of processor: in single precision each had other data."""
    code = (
        "from mopo_bench.tasks.registry import get_task\n"
        "for name in ('halfcheetah-medium', 'hopper-medium'):\n"
        "    print(get_task(name).recipe.regenerate(get_task(name), 1_200, 0).digest()[:12])"
    )
    found = []
    for kernels in ({}, {"OPENBLAS_CORETYPE": "Nehalem"}):  # this processor's, and what any has
        ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **kernels}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        found.append(ran.stdout.split())
    assert found[0] == found[1]
    information = Path("/proc/cpuinfo")
    flags = information.read_text().split() if information.exists() else []
    if mujoco.__version__ == "4.0.0" and {"avx2", "fma"} <= set(flags):  # what datasets are said to be the same on
        assert found[0] == ["9bbd71ed8055", "192b36ab6664"]


@pytest.mark.parametrize("rows", [1, 29, 30, 31, 95])
def test_rows_are_cut(rows):
    dataset = roll_out(PENDULUM, BehaviourPolicy.random(PENDULUM, 0), rows, seed=0)
    assert len(dataset) == rows and dataset.valid_next.all() and not dataset.terminals.any()
    assert np.flatnonzero(dataset.timeouts).tolist() == list(range(29, rows, 30))


def test_shorter_dataset_begins_the_longer_one():
    short, long = (roll_out(PENDULUM, BehaviourPolicy.random(PENDULUM, 0), rows, seed=0) for rows in (50, 100))
    assert np.array_equal(short.observations, long.observations[:50])
    assert np.array_equal(short.actions, long.actions[:50]) and np.array_equal(short.rewards, long.rewards[:50])


def test_no_rows():
    with pytest.raises(UserError, match="at least 1"):
        roll_out(PENDULUM, BehaviourPolicy.random(PENDULUM, 0), 0, seed=0)


def test_episodes(hopper_dataset):
    """Within an episode each row begins where the one before ended; the next episode begins near the resting state."""
    starts, stops = hopper_dataset.episodes()
    assert len(starts) > 2 * EPISODES_AT_ONCE  # environments were used again
    ends = stops - 1
    inside = np.setdiff1d(np.arange(len(hopper_dataset)), ends)
    assert np.array_equal(hopper_dataset.next_observations[inside], hopper_dataset.observations[inside + 1])
    rest = make_environment("Hopper-v4").reset(seed=0)[0]
    assert np.abs(hopper_dataset.observations[starts] - rest).max() <= 0.0101  # resets scatter by ±0.005
    assert len(np.unique(hopper_dataset.observations[starts], axis=0)) == len(starts)
    assert (np.abs(hopper_dataset.next_observations[ends[:-1]] - rest).max(1) > 0.1).all()


def test_terminals_keep_the_tasks_rule(hopper_dataset):
    arrays = (hopper_dataset.observations, hopper_dataset.actions, hopper_dataset.next_observations)
    over = HOPPER.problem.termination(*(torch.as_tensor(array.copy()) for array in arrays)).numpy()
    assert np.array_equal(hopper_dataset.terminals, over) and over.any()
    assert not hopper_dataset.timeouts.any()  # nobody stands for 1000 steps


def test_rows_agree_with_the_simulator():
    """Pendulum can be put into the state of any row; actions are stored in its own box."""
    dataset = roll_out(PENDULUM, BehaviourPolicy.random(PENDULUM, 0), 100, seed=3)
    assert 1.0 < np.abs(dataset.actions).max() <= 2.0
    environment = make_environment("Pendulum-v1")
    environment.reset(seed=0)
    for row in range(len(dataset)):
        observation = dataset.observations[row].astype(np.float64)
        environment.state = np.array([math.atan2(observation[1], observation[0]), observation[2]])
        successor, reward, *_ = environment.step(dataset.actions[row])
        assert dataset.next_observations[row] == pytest.approx(successor, abs=1e-4)
        assert dataset.rewards[row] == pytest.approx(reward, abs=1e-4)


def test_rows_agree_with_the_simulator_of_hopper(hopper_dataset):
    """All of its state but x is observed, and velocities only up to 10."""
    environment = make_environment("Hopper-v4")
    environment.reset(seed=0)
    checked = 0
    for row in range(0, 200, 3):
        observation = hopper_dataset.observations[row].astype(np.float64)
        if np.abs(observation[5:]).max() > 9.9:
            continue
        environment.set_state(np.concatenate(([0.0], observation[:5])), observation[5:])
        successor, reward, *_ = environment.step(hopper_dataset.actions[row])
        assert hopper_dataset.next_observations[row] == pytest.approx(successor, abs=2e-3)
        assert hopper_dataset.rewards[row] == pytest.approx(reward, abs=2e-3)
        checked += 1
    assert checked > 30


def test_policy_is_sampled_with_noise_and_has_a_mode():
    policy = BehaviourPolicy.random(HOPPER, 0)
    observations = np.random.default_rng(0).normal(size=(5, 11))
    noise = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    mode, sample = policy(observations), policy(observations, noise)
    assert mode.shape == sample.shape == (5, 3) and mode.dtype == np.float64
    first, bias_1, second, bias_2, last, bias_3 = (weight.astype(np.float64) for weight in policy.weights)
    hidden = np.maximum(np.maximum(observations @ first + bias_1, 0) @ second + bias_2, 0) @ last + bias_3
    assert np.allclose(mode, np.tanh(hidden[:, :3]), atol=1e-5)
    assert np.allclose(sample, np.tanh(hidden[:, :3] + np.exp(hidden[:, 3:]) * noise), atol=1e-5)


def test_random_policy():
    """PyTorch's initialisation: uniform within 1 / sqrt(inputs)."""
    policy = BehaviourPolicy.random(HOPPER, 3)
    assert [weight.shape for weight in policy.weights] == [(11, 256), (1, 256), (256, 256), (1, 256), (256, 6), (1, 6)]
    for weight, inputs in zip(policy.weights, (11, 11, 256, 256, 256, 256), strict=True):
        assert np.abs(weight).max() <= 1 / math.sqrt(inputs)
    assert np.abs(policy.weights[0]).max() > 0.99 / math.sqrt(11)
    assert policy.about["seed"] == 3 and "random" in policy.about["policy"]
    same = from_random_policy(HOPPER, 50, 3)
    assert same.digest() == roll_out(HOPPER, policy, 50, 3).digest()
    assert same.provenance["policy"] == policy.about and same.provenance["source"] == "regenerated"


def test_policy_is_saved_whole(tmp_path):
    policy = BehaviourPolicy.random(PENDULUM, 0)
    policy.about["return_mean"] = -1234.5
    policy.save(tmp_path / "policy.npz")
    loaded = BehaviourPolicy.load(tmp_path / "policy.npz")
    assert loaded.about == policy.about
    assert all(np.array_equal(one, other) for one, other in zip(loaded.weights, policy.weights, strict=True))
    with np.load(tmp_path / "policy.npz", allow_pickle=False) as file:
        assert len(file.files) == 7


# Several policies in turn.


def test_policies_in_turn_share_the_rows():
    """Whole episodes of each, as many as its share asks for; the rows are cut at the end only."""
    policies = [BehaviourPolicy.random(PENDULUM, seed) for seed in range(3)]
    dataset = roll_out(PENDULUM, list(zip(policies, (2.0, 1.0, 1.0), strict=True)), 200, seed=0)
    assert len(dataset) == 200 and dataset.episode_lengths().tolist() == [30] * 6 + [20]
    # 100 rows of the first want four episodes; 150 rows up to the second want five
    for episode, policy in enumerate([0, 0, 0, 0, 1, 2, 2]):
        rows = slice(30 * episode, min(30 * episode + 30, 200))
        # episode k is the same whichever policies came before it
        alone = [roll_out(PENDULUM, each, 300, seed=0).actions[rows] for each in policies]
        assert [np.array_equal(actions, dataset.actions[rows]) for actions in alone].index(True) == policy
    assert [(each["seed"], each["rows"]) for each in dataset.provenance["policies"]] == [(0, 120), (1, 30), (2, 50)]


def test_one_policy_among_several_with_no_rows():
    """Its share is less than what the one before ran over."""
    policies = [BehaviourPolicy.random(PENDULUM, seed) for seed in range(3)]
    dataset = roll_out(PENDULUM, [(policies[0], 10), (policies[1], 10), (policies[2], 10)], 30, seed=0)
    assert dataset.digest() == roll_out(PENDULUM, policies[0], 30, seed=0).digest()
    assert [each["rows"] for each in dataset.provenance["policies"]] == [30, 0, 0]


def test_states_of_the_simulator_are_stored(hopper_dataset):
    assert {name: array.shape for name, array in hopper_dataset.extras.items()} == {
        "infos/qpos": (600, 6),
        "infos/qvel": (600, 6),
    }
    np.testing.assert_array_equal(hopper_dataset.extras["infos/qpos"][:, 1:], hopper_dataset.observations[:, :5])
    np.testing.assert_array_equal(hopper_dataset.extras["infos/qvel"].clip(-10, 10), hopper_dataset.observations[:, 5:])


# What is bundled.

EXPECTED = [f"{domain}-{part}" for domain in ("halfcheetah", "hopper", "walker2d") for part in ("medium", "expert")]


def test_something_is_bundled():
    assert set(ACTORS) == set(EXPECTED)
    assert {path.suffix for path in BUNDLED.iterdir() if not path.name.startswith(("__", "."))} <= {".npz", ".hdf5"}
    assert sum(path.stat().st_size for path in BUNDLED.iterdir() if path.is_file()) < 60e6  # as the wheel is to stay


@pytest.mark.parametrize("name", ACTORS)
def test_bundled_policies(name):
    """Each says where it comes from, and is as good as it says."""
    policy = bundled_policy(name)
    about, task = policy.about, get_task(policy.about["task"])
    assert about["steps"] > 1_000 and about["policy"].startswith("SAC")
    assert about["command"].startswith("mopo-bench data collect ") and about["task"] in about["command"]
    assert isinstance(about["seed"], int) and {"torch", "gymnasium", "mujoco"} <= set(about["machine"]["versions"])
    sizes = (task.problem.observation_size, 2 * task.problem.action_size)
    assert (policy.weights[0].shape[0], policy.weights[-1].shape[1]) == sizes
    assert all(weight.dtype == np.float32 and np.isfinite(weight).all() for weight in policy.weights)
    if name.endswith("medium"):
        assert about["return_mean"] >= about["target_return"] >= 0.9 * task.references.max / 3

    def act(seen):
        return policy(seen[0])[None]

    returns = Evaluator(task.as_collected()).returns(act, [reset_seeds(about["seed"], about["steps"], 10)])
    # the very episodes it was judged by, but rounded otherwise, which moves the end of an episode
    assert returns.mean() == pytest.approx(about["return_mean"], abs=2 * about["return_std"] + 0.1 * abs(about["return_mean"]))


@pytest.mark.parametrize(
    "name", [name for name, task in all_tasks().items() if isinstance(task.recipe.regenerate, FromPolicies)]
)
def test_recipe_rolls_the_bundled_policies_out(name):
    task = get_task(name)
    files = [path.removesuffix(".npz") for path in task.recipe.regenerate.files]
    assert set(files) <= set(EXPECTED)
    dataset = task.recipe.regenerate(task, 200, 0)
    assert len(dataset) == 200 and task.recipe.regenerate(task, 200, 0).digest() == dataset.digest()
    assert task.recipe.regenerate(task, 200, 1).digest() != dataset.digest()


def test_two_replay_buffers():
    """The dataset's seed chooses the training run."""
    task = get_task("halfcheetah-jump")
    datasets = [task.recipe.regenerate(task, 2_000, seed) for seed in (0, 1)]
    assert [dataset.provenance["policy"]["seed"] for dataset in datasets] == [4, 5]
    assert all(dataset.provenance["relabelled"]["reward"] == task.name for dataset in datasets)
    with pytest.raises(UserError, match="2 replay buffers of it: choose --data-seed below 2"):
        task.recipe.regenerate(task, 30, 2)


def test_one_replay_buffer():
    """Another seed would be the same rows under another label."""
    task = get_task("hopper-mixed")
    with pytest.raises(UserError, match="one replay buffer of it: choose --data-seed below 1"):
        task.recipe.regenerate(task, 30, 1)
    dataset = task.recipe.regenerate(task, 2_000, 0)
    assert dataset.provenance["thinned_from"] == 200_920
    # other rows take another version, or caches keep the old ones
    assert (RECIPE_VERSION, dataset.digest()[:12]) == (4, "85545ade828b")


def test_a_thinned_buffer_returns_what_the_whole_does():
    """On ant-angle episodes that fall are short: a choice that prefers short ones had 594 of 1180."""
    task = get_task("ant-angle")
    for seed, run in enumerate((1, 2)):
        dataset = task.recipe.regenerate(task, 10**9, seed)
        assert dataset.provenance["relabelled"]["reward"] == task.name and dataset.provenance["policy"]["seed"] == run
        whole = dataset.provenance["whole"]
        assert whole["rows"] > 500_000
        assert abs(dataset.episode_returns().mean() - whole["return_mean"]) < 0.05 * whole["return_mean"]


@pytest.mark.parametrize("name", DATASETS)
def test_bundled_dataset(name):
    buffers = [task for task in all_tasks().values() if isinstance(task.recipe.regenerate, FromReplayBuffer)]
    (task,) = [task for task in buffers if f"{name}.hdf5" in task.recipe.regenerate.files]
    path = BUNDLED / f"{name}.hdf5"
    sizes = {"observation_size": task.problem.observation_size, "action_size": task.problem.action_size}
    box = task.problem.action_box
    dataset = read_hdf5(path, action_low=box.low, action_high=box.high, **sizes)
    assert dataset.provenance["policy"]["steps"] > 0
    assert dataset.episode_lengths().max() <= task.problem.max_episode_steps
    assert "clipped_actions" not in dataset.provenance
