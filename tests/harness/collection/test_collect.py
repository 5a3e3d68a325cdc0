"""SAC online: a function of its seed, whether or not it was interrupted, and a buffer that holds what happened."""

import csv
from dataclasses import replace

import filelock
import numpy as np
import pytest
import torch
from mopo_bench.common.errors import UserError
from mopo_bench.common.streams import derived_seed
from mopo_bench.harness.collection.collect import ONLINE_SAC, Collection, OnlineTrainer, collect, medium_return
from mopo_bench.harness.runs.records import identity_hash
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.dataset import joined
from mopo_bench.tasks.data.hdf5 import read_hdf5
from mopo_bench.tasks.data.simulator_agreement import replay_physics
from mopo_bench.tasks.environments import make_environment
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import ActionBox, Problem, Task
from mopo_bench.tasks.terminations import hopper

CURVE = ["steps", "return_mean", "return_std", "episode_return_mean", "seconds"]
HOPPER = Task("hopper", "Hopper-v4", Problem(11, 3, hopper, max_episode_steps=60))
PENDULUM = Task("pendulum", "Pendulum-v1", Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=50))


USUAL = {"seed": 4, "random_steps": 50, "evaluate_every": 70, "evaluation_episodes": 2, "snapshot_every": 100}


def collection(task=HOPPER, steps=250, **changes):
    return Collection(task, steps, **{**USUAL, **changes})


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
    collection(seed=5, steps=80).run(tmp_path)
    assert curve(tmp_path)[0] != curve(undisturbed[0])[0]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_interrupted_collection_goes_on(stop_at, undisturbed, tmp_path):
    """Stopped before its first checkpoint, and between the first and the second."""
    reported: list = []

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
    collection(steps=150).run(tmp_path)
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
    assert np.allclose(policy(seen[0].numpy()), trainer.learner.act(seen)[0].numpy(), atol=2e-5)  # actions are rounded


def test_it_stops_at_its_target(tmp_path):
    collection(random_steps=1000, target_return=-1e9).run(tmp_path)
    (row,) = curve(tmp_path)
    policies = [BehaviourPolicy.load(tmp_path / name) for name in ("medium.npz", "best.npz", "policy.npz")]
    assert [policy.about["steps"] for policy in policies] == [row["steps"]] * 3 and 70 <= row["steps"] < 70 + 60
    assert policies[0].about["return_mean"] == row["return_mean"]


def test_it_may_go_on_past_its_target(tmp_path):
    """As for medium-expert: the medium policy is the first that reached the target, the best any."""
    trainer = collection(target_return=-1e9, stop_at_target=False).run(tmp_path)
    rows = curve(tmp_path)
    assert rows[-1]["steps"] >= 250 and trainer.medium_point() == rows[0]["steps"]
    assert BehaviourPolicy.load(tmp_path / "medium.npz").about["steps"] == rows[0]["steps"]
    best = max(rows, key=lambda row: row["return_mean"])
    assert BehaviourPolicy.load(tmp_path / "best.npz").about["return_mean"] == best["return_mean"]


def test_snapshots_along_training(undisturbed):
    """At the first look after each 100 steps, named by their step, as they acted then."""
    folder, rows = undisturbed
    steps = [row["steps"] for row in rows]
    due = [now for before, now in zip([0, *steps], steps, strict=False) if before // 100 < now // 100]
    found = sorted((folder / "snapshots").iterdir())
    assert [path.name for path in found] == [f"{step:08d}.npz" for step in due] and len(due) >= 2
    returns = {row["steps"]: row["return_mean"] for row in rows}
    for path in found:
        about = BehaviourPolicy.load(path).about
        assert about["return_mean"] == returns[about["steps"]] and about["steps"] == int(path.stem)
    assert found[-1].read_bytes() != found[0].read_bytes()


def rows_of(trainer):
    """(observations, actions, rewards, alive, successors) of the buffer's filled part, each with rows first."""
    size, layout = trainer.buffer.size[0], trainer.layout
    dataset = layout.batch(trainer.buffer.rows[:, :size])
    return [
        part[0].numpy()
        for part in (dataset.observations, dataset.actions, dataset.rewards, dataset.alive, dataset.next_observations)
    ]


@pytest.mark.parametrize("task", [HOPPER, PENDULUM], ids=["hopper", "pendulum"])
def test_buffer_holds_what_happened(task):
    trainer = OnlineTrainer(collection(task, random_steps=150, steps=400))
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
    over = task.problem.termination(*(torch.as_tensor(part) for part in (observations, actions, successors)))
    assert np.array_equal(alive == 0, over.numpy())
    assert (task is HOPPER) == bool((alive == 0).any())
    lengths = np.array(ends) - np.array(starts) + 1
    assert (lengths[alive[ends] == 1] == task.problem.max_episode_steps).all()


@pytest.mark.parametrize("task", [HOPPER, PENDULUM], ids=["hopper", "pendulum"])
def test_replay_is_the_buffer(task, tmp_path):
    """In the environment's own actions, with the episodes' ends."""
    task = replace(task, recipe=replace(task.recipe, protocol=("replay",)))
    collect(task, tmp_path, steps=170, **{**USUAL, "random_steps": 1000})
    trainer = OnlineTrainer(collection(task, 170, random_steps=1000))
    trainer.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    box = task.problem.action_box
    dataset = read_hdf5(tmp_path / f"{task.name}.hdf5", action_low=box.low, action_high=box.high)
    observations, actions, rewards, alive, successors = rows_of(trainer)
    assert len(dataset) == trainer.steps
    assert np.array_equal(dataset.observations, observations) and np.array_equal(dataset.next_observations, successors)
    assert np.array_equal(dataset.rewards, rewards) and np.array_equal(dataset.terminals, alive == 0)
    assert dataset.actions == pytest.approx(box.high * actions, abs=1e-6)
    assert dataset.episodes()[1].tolist() == trainer.episode_ends and not (dataset.timeouts & dataset.terminals).any()
    assert set(dataset.extras) == ({"infos/qpos", "infos/qvel"} if task.name == "hopper" else set())
    assert dataset.provenance["source"] == "collected" and dataset.provenance["protocol"] == ["replay"]


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


def collected(tmp_path, protocol, target=-1e9, steps=250, rows=90, task=HOPPER, name="hopper"):
    task = replace(task, name=name, recipe=replace(task.recipe, protocol=protocol))
    return collect(task, tmp_path, steps=steps, rows=rows, target=target, **USUAL)


def test_parts_of_a_dataset(tmp_path):
    """All of one run in one folder, whichever task asks first."""
    expert_mixed = collected(tmp_path, ("expert", "mixed"), name="hopper-first")
    first = (tmp_path / "hopper-first.hdf5").read_bytes()
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    medium_point = int(curve(tmp_path)[0]["steps"])
    mixed, medium, both = (collected(tmp_path, part) for part in (("mixed",), ("medium",), ("medium", "expert")))
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before  # nothing was trained again
    assert (tmp_path / "hopper-first.hdf5").read_bytes() == first  # nor overwritten
    assert len(mixed) == medium_point and len(medium) == 90 and len(both) == 180 and len(expert_mixed) == 90 + medium_point
    assert both.head(90).rewards.tolist() == medium.rewards.tolist()
    assert both.rewards[90:].tolist() == expert_mixed.rewards[:90].tolist() != medium.rewards.tolist()
    assert expert_mixed.rewards[90:].tolist() == mixed.rewards.tolist()
    # a part's end is an episode's end, though nothing ended there
    assert expert_mixed.timeouts[89] or expert_mixed.terminals[89]
    assert {89, 179} <= set(both.episodes()[1] - 1)
    about = BehaviourPolicy.load(tmp_path / "medium.npz")
    assert medium.digest() == roll_out(HOPPER, about, 90, USUAL["seed"]).digest()


def test_dataset_is_the_file(tmp_path):
    dataset = collected(tmp_path, ("medium",))
    read = read_hdf5(tmp_path / "hopper.hdf5")
    assert read.digest() == dataset.digest() and read.provenance == dataset.provenance
    assert collected(tmp_path / "again", ("medium",)).digest() == dataset.digest()


def test_random_needs_no_training(tmp_path):
    dataset = collected(tmp_path, ("random",), target=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "hopper.hdf5"]
    assert dataset.digest() == roll_out(HOPPER, BehaviourPolicy.random(HOPPER, USUAL["seed"]), 90, USUAL["seed"]).digest()


def test_policy_of_a_task_without_protocol(tmp_path):
    dataset = collected(tmp_path, (), target=None)
    assert dataset.digest() == roll_out(HOPPER, BehaviourPolicy.load(tmp_path / "policy.npz"), 90, USUAL["seed"]).digest()
    with pytest.raises(UserError, match="--target or --steps"):
        collected(tmp_path, (), target=None, steps=None)


def test_target_that_is_not_reached(tmp_path):
    with pytest.raises(UserError, match=r"not reached in 2\d\d steps .*--steps"):
        collected(tmp_path, ("medium",), target=1e9)
    assert not (tmp_path / "hopper.hdf5").exists() and (tmp_path / "checkpoint.pt").exists()


def test_medium_policy_of_another_target(tmp_path):
    """The policy of the step that reached it, if it was kept under any name; saying so beats a dataset of another."""
    collected(tmp_path, ("replay",), target=None)
    first = curve(tmp_path)[0]
    (tmp_path / "snapshots" / f"{int(first['steps']):08d}.npz").unlink(missing_ok=True)
    (tmp_path / "best.npz").unlink()
    with pytest.raises(UserError, match=f"no policy of step {first['steps']:.0f}.*--target"):
        collected(tmp_path, ("medium",), target=-1e9)
    last = BehaviourPolicy.load(tmp_path / "policy.npz")
    last.about["steps"] = int(first["steps"])
    last.save(tmp_path / "snapshots" / "some.npz")
    dataset = collected(tmp_path, ("medium",), target=-1e9)
    assert dataset.digest() == roll_out(HOPPER, last, 90, USUAL["seed"]).digest()


@pytest.mark.parametrize("name", ["halfcheetah-jump", "ant-angle"])
def test_logged_under_one_reward_labelled_with_another(name, tmp_path):
    """SAC sees the behaviour reward, the dataset holds the task's, and both agree with the environment's own."""
    task = get_task(name)
    task = replace(task, problem=replace(task.problem, max_episode_steps=50))
    dataset = collect(task, tmp_path, steps=200, **{**USUAL, "random_steps": 1000})
    trainer = OnlineTrainer(collection(task, 200, random_steps=1000))
    trainer.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    behaviour = rows_of(trainer)[2]
    assert trainer.environment.spec.kwargs["reward"] == "behaviour"
    environment = make_environment(task.environment, **task.parameters)
    row = 0
    for episode, stop in enumerate(trainer.episode_ends):
        environment.reset(seed=derived_seed(USUAL["seed"], "exploration", episode) % 2**31)
        while row < stop:
            _, reward, _, _, info = environment.step(dataset.actions[row])
            assert dataset.rewards[row] == pytest.approx(reward, abs=1e-4)
            assert behaviour[row] == pytest.approx(info["reward_behaviour"], abs=1e-4)
            row += 1
    assert np.abs(dataset.rewards - behaviour).max() > 0.1
    facts = replay_physics(dataset, task)
    assert facts["rows"] == len(dataset) and facts["observation_error_median"] < 1e-4 and facts["terminals_differ"] == 0


def test_joined_logs_keep_what_is_beside_them():
    parts = [roll_out(HOPPER, BehaviourPolicy.random(HOPPER, seed), rows, seed) for seed, rows in ((0, 70), (1, 45))]
    dataset = joined(parts)
    assert len(dataset) == 115 and [part["policy"]["seed"] for part in dataset.provenance["parts"]] == [0, 1]
    for name in ("observations", "actions", "rewards", "next_observations", "terminals", "valid_next"):
        assert np.array_equal(getattr(dataset, name), np.concatenate([getattr(part, name) for part in parts]))
    assert np.array_equal(dataset.extras["infos/qpos"], np.concatenate([part.extras["infos/qpos"] for part in parts]))
    ends = np.concatenate([part.timeouts for part in parts])
    ends[[69, 114]] |= ~dataset.terminals[[69, 114]]
    assert np.array_equal(dataset.timeouts, ends)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--out"):
        collected(tmp_path / "file" / "collected", ("random",))
    with pytest.raises(UserError, match="--out"):
        collected(tmp_path / "file", ("random",))


def test_full_disk(command, full_disk, contents, tmp_path):
    """Policies find room, the checkpoint does not: it stays the last one, and the collection goes on from there."""
    words = ["data", "collect", "point-angle", "--evaluate-every", "50", "--rows", "50", "--out", tmp_path]
    assert command(*words, "--steps", "50").code == 0
    checkpoint = tmp_path / "checkpoint.pt"
    before = contents(tmp_path)
    with full_disk(1_000_000):
        finished = command(*words, "--steps", "150")
    assert finished.code == 2 and len(finished.err.splitlines()) == 1
    assert f"{checkpoint}: cannot be written (File too large)" in finished.err and "free space" in finished.err
    after = contents(tmp_path)
    assert after.keys() == before.keys() and after[checkpoint] == before[checkpoint]
    assert command(*words, "--steps", "150").code == 0


def test_folder_in_use(tmp_path):
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another collection is at work"):
        collected(tmp_path, ("medium",))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_was_not_stored_from_the_start_is_refused(tmp_path):
    """Zeros would stand for it, and a reward would be computed from them."""
    collection(steps=80).run(tmp_path)
    with pytest.raises(UserError, match=r"infos/x_velocity.*--out"):
        collection(replace(HOPPER, recipe=replace(HOPPER.recipe, recorded=("x_velocity",))), steps=200).run(tmp_path)


def test_what_a_collection_is_known_by():
    """Long ones resume by it, and bundled policies record it: SAC's own version may rise, this one does not with it."""
    assert collection().identity() == {
        "environment": "Hopper-v4",
        "rules": identity_hash({key: value for key, value in HOPPER.identity().items() if key != "task"}),
        "seed": 4,
        "random_steps": 50,
        "compiled": False,
        "sac": "1.1",
    }
    assert (ONLINE_SAC.initialisation, ONLINE_SAC.adam) == ("torch", "torch")


def test_command_makes_it_again(tmp_path):
    dataset = collected(tmp_path, ("medium",), target=1530.7666666666667 - 1e6)
    words = dataset.provenance["command"].split()
    options = dict(zip(words[4::2], words[5::2], strict=False))
    assert options["--rows"] == "90" and float(options["--target"]) == 1530.7666666666667 - 1e6
    assert options["--steps"] == "250" and options["--seed"] == "4" and options["--compile"] == "off"


@pytest.mark.parametrize("other", [{"seed": 5}, {"task": PENDULUM}], ids=["seed", "task"])
def test_folder_of_another_collection(other, tmp_path):
    """Going on with it would give a policy that is a function of neither seed."""
    collection(steps=80).run(tmp_path)
    with pytest.raises(UserError, match="checkpoint"):
        collection(**other).run(tmp_path)


def test_unreadable_checkpoint(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        collection(steps=80).run(tmp_path)


def test_actions_alone_make_the_buffer_again(undisturbed):
    """A checkpoint can travel without its rows: on the same processor the simulator gives the same bytes."""
    state = torch.load(undisturbed[0] / "checkpoint.pt", weights_only=True)
    trainer = OnlineTrainer(collection())
    actions = trainer.layout.batch(state["rows"][None]).actions[0].numpy()
    trainer.repeat(actions, state["episode_ends"])
    again = trainer.state()
    assert torch.equal(again["rows"], state["rows"]) and again["episode_ends"] == state["episode_ends"]
    assert again["extras"].keys() == state["extras"].keys()
    assert all(torch.equal(again["extras"][name], values) for name, values in state["extras"].items())
