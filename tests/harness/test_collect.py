"""SAC online: a function of its seed, whether or not it was interrupted, and a buffer that holds what happened."""

import csv

import numpy as np
import pytest
import torch
from mopo_bench.harness.collect import Collection, OnlineTrainer, medium_return
from mopo_bench.tasks.behaviour import BehaviourPolicy
from mopo_bench.tasks.dataset import read_hdf5
from mopo_bench.tasks.environments import make_environment
from mopo_bench.tasks.errors import UserError
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.rules import hopper
from mopo_bench.tasks.task import Task

CURVE = ["steps", "return_mean", "return_std", "episode_return_mean", "seconds"]
HOPPER = Task("hopper", "Hopper-v4", 11, 3, termination=hopper, max_episode_steps=60)
PENDULUM = Task("pendulum", "Pendulum-v1", 3, 1, action_low=-2.0, action_high=2.0, max_episode_steps=50)


def collection(task=HOPPER, max_steps=250, **changes):
    usual = {"seed": 4, "random_steps": 50, "evaluate_every": 70, "evaluation_episodes": 2}
    return Collection(task, target_return=1e9, max_steps=max_steps, **{**usual, **changes})


def curve(folder):
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    assert all(list(row) == CURVE for row in rows)
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    rows = []
    collection().run(folder, rows.append)
    return folder, rows


def test_same_seed_gives_the_same_bytes(undisturbed, tmp_path):
    collection().run(tmp_path)
    assert (tmp_path / "policy.npz").read_bytes() == (undisturbed[0] / "policy.npz").read_bytes()
    assert curve(tmp_path) == curve(undisturbed[0])


def test_other_seed_gives_another_policy(undisturbed, tmp_path):
    collection(seed=5, max_steps=80).run(tmp_path)
    assert curve(tmp_path)[0] != curve(undisturbed[0])[0]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_interrupted_collection_goes_on(stop_at, undisturbed, tmp_path):
    """Stopped before its first checkpoint, and between the first and the second."""
    reported = []

    def stop(row):
        reported.append(row)
        if len(reported) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection().run(tmp_path, stop)
    assert not (tmp_path / "policy.npz").exists()
    assert (tmp_path / "checkpoint.pt").exists() == (stop_at > 1)
    after = []
    collection().run(tmp_path, after.append)
    assert [row["steps"] for row in reported[:-1] + after] == [row["steps"] for row in undisturbed[1]]
    assert (tmp_path / "policy.npz").read_bytes() == (undisturbed[0] / "policy.npz").read_bytes()
    assert curve(tmp_path) == curve(undisturbed[0])


def test_longer_collection_equals_a_short_one_continued(undisturbed, tmp_path):
    """As the command line advises where the target was not reached; the step of the short one's end is evaluated, too."""
    collection(max_steps=150).run(tmp_path)
    collection().run(tmp_path)
    weights = [BehaviourPolicy.load(folder / "policy.npz").weights for folder in (tmp_path, undisturbed[0])]
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


def test_curve(undisturbed):
    folder, rows = undisturbed
    found = curve(folder)
    assert [row["steps"] for row in found] == [row["steps"] for row in rows]
    assert [row["return_mean"] for row in found] == [row["return_mean"] for row in rows]
    steps = [row["steps"] for row in found]
    assert len(steps) >= 3 and all(later - earlier >= 70 for earlier, later in zip(steps, steps[1:-1], strict=False))
    assert 250 <= steps[-1] < 250 + 60


def test_policy_is_the_learners_mode(undisturbed):
    """What the file says of itself is of this policy: its return is that of the last row."""
    folder, rows = undisturbed
    policy = BehaviourPolicy.load(folder / "policy.npz")
    assert policy.about["task"] == "hopper" and policy.about["seed"] == 4
    assert policy.about["steps"] == rows[-1]["steps"]
    assert policy.about["return_mean"] == rows[-1]["return_mean"]
    trainer = OnlineTrainer(collection())
    trainer.load(torch.load(folder / "checkpoint.pt", weights_only=True))
    assert trainer.steps == policy.about["steps"]
    seen = torch.randn(1, 7, 11, generator=torch.Generator().manual_seed(0))
    assert np.allclose(policy(seen[0].numpy()), trainer.learner.act(seen)[0].numpy(), atol=1e-6)


def test_it_stops_at_its_target(tmp_path):
    policy = Collection(HOPPER, -1e9, 500, random_steps=1000, evaluate_every=70, evaluation_episodes=2).run(tmp_path)
    assert len(curve(tmp_path)) == 1 and 70 <= policy.about["steps"] < 70 + 60
    assert policy.about["return_mean"] == curve(tmp_path)[0]["return_mean"]


def rows_of(trainer):
    """(observations, actions, rewards, alive, successors) of the buffer's filled part, each with rows first."""
    size, layout = trainer.buffer.size[0], trainer.layout
    batch = layout.batch(trainer.buffer.rows[:, :size])
    return [
        part[0].numpy() for part in (batch.observations, batch.actions, batch.rewards, batch.alive, batch.next_observations)
    ]


@pytest.mark.parametrize("task", [HOPPER, PENDULUM], ids=["hopper", "pendulum"])
def test_buffer_holds_what_happened(task):
    trainer = OnlineTrainer(collection(task, random_steps=150, max_steps=400))
    starts = []
    while trainer.steps < 200:
        starts.append(trainer.steps)
        trainer.episode()
    observations, actions, rewards, alive, successors = rows_of(trainer)
    assert len(rewards) == trainer.steps and len(trainer.episode_ends) == len(starts) > 2
    assert np.abs(actions).max() <= 1 and np.abs(actions).max() > 0.9  # unit actions, whatever the box
    ends = [*[start - 1 for start in starts[1:]], trainer.steps - 1]
    inside = np.setdiff1d(np.arange(trainer.steps), ends)
    assert np.array_equal(successors[inside], observations[inside + 1])
    assert not np.isclose(successors[ends[:-1]], observations[starts[1:]], atol=1e-3).all(1).any()
    assert alive[inside].all()
    over = task.termination(*(torch.as_tensor(part) for part in (observations, actions, successors)))
    assert np.array_equal(alive == 0, over.numpy())
    assert (task is HOPPER) == bool((alive == 0).any())
    lengths = np.array(ends) - np.array(starts) + 1
    assert (lengths[alive[ends] == 1] == task.max_episode_steps).all()


@pytest.mark.parametrize("task", [HOPPER, PENDULUM], ids=["hopper", "pendulum"])
def test_replay_is_the_buffer(task, tmp_path):
    """In the environment's own actions, with the episodes' ends."""
    plan = collection(task, random_steps=1000, max_steps=170)
    plan.run(tmp_path)
    trainer = OnlineTrainer(plan)
    trainer.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    batch = read_hdf5(tmp_path / "replay.hdf5", action_low=task.action_low, action_high=task.action_high)
    observations, actions, rewards, alive, successors = rows_of(trainer)
    assert len(batch) == trainer.steps
    assert np.array_equal(batch.observations, observations) and np.array_equal(batch.next_observations, successors)
    assert np.array_equal(batch.rewards, rewards) and np.array_equal(batch.terminals, alive == 0)
    assert batch.actions == pytest.approx(task.action_high * actions, abs=1e-6)
    assert batch.episodes()[1].tolist() == trainer.episode_ends and not (batch.timeouts & batch.terminals).any()


def test_buffer_agrees_with_the_simulator():
    """Pendulum can be put into the state of any row: what follows, and the reward, are those stored."""
    trainer = OnlineTrainer(collection(PENDULUM, random_steps=1000))
    for _ in range(3):
        trainer.episode()
    environment = make_environment("Pendulum-v1")
    environment.reset(seed=0)
    for observation, action, reward, _, successor in zip(*rows_of(trainer), strict=True):
        environment.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]])
        expected, expected_reward, *_ = environment.step(2 * action)
        assert successor == pytest.approx(expected, abs=1e-4)
        assert reward == pytest.approx(expected_reward, abs=1e-4)


def test_medium_is_a_third_of_the_expert():
    assert medium_return(get_task("hopper-medium")) == pytest.approx(3234.3 / 3)
    with pytest.raises(UserError, match="--target"):
        medium_return(get_task("point-angle"))


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--out"):
        collection().run(tmp_path / "file" / "collected")


@pytest.mark.parametrize("other", [{"seed": 5}, {"task": PENDULUM}], ids=["seed", "task"])
def test_folder_of_another_collection(other, tmp_path):
    """Going on with it would give a policy that is a function of neither seed."""
    collection(max_steps=80).run(tmp_path)
    with pytest.raises(UserError, match="checkpoint"):
        collection(**other).run(tmp_path)


def test_unreadable_checkpoint(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        collection(max_steps=80).run(tmp_path)
