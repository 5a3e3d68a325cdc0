"""The facts of a dataset against plain computations, and what is odd in it."""

from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection.doubts import doubts
from mopo_bench.harness.collection.inspection import find_dataset, inspect_dataset
from mopo_bench.harness.report.plots import dataset_picture
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import write_hdf5
from mopo_bench.tasks.data.relabelling import with_own_rewards
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task

HOPPER = get_task("hopper-random")


@pytest.fixture(scope="module")
def dataset():
    return roll_out(HOPPER, BehaviourPolicy.random(HOPPER, 0), 400, seed=1)


def test_facts(dataset):
    facts = inspect_dataset(dataset, HOPPER)
    returns = [float(part.sum()) for part in np.split(dataset.rewards.astype(float), dataset.episodes()[1][:-1])]
    lengths = [len(part) for part in np.split(dataset.rewards, dataset.episodes()[1][:-1])]
    assert not (dataset.terminals | dataset.timeouts)[-1]
    returns, lengths = returns[:-1], lengths[:-1]  # the last one is cut
    assert facts["return_mean"] == pytest.approx(np.mean(returns)) and facts["return_std"] == pytest.approx(
        np.std(returns, ddof=1)
    )
    assert facts["episode_length_min"] == min(lengths) and facts["episode_length_max"] == max(lengths)
    assert facts["episode_length_mean"] == pytest.approx(np.mean(lengths))
    assert facts["score_mean"] == pytest.approx(100 * (np.mean(returns) + 20.272305) / (3234.3 + 20.272305))
    assert facts["score_max"] == pytest.approx(100 * (np.max(returns) + 20.272305) / (3234.3 + 20.272305))
    assert facts["observation_low"] == [float(column.min()) for column in dataset.observations.T]
    assert facts["action_high"] == [float(column.max()) for column in dataset.actions.T]
    assert facts["stored_besides"] == ["infos/qpos", "infos/qvel"] and facts["oddities"] == []
    assert "paper_return_mean" not in facts


def test_papers_dataset_stands_beside(dataset):
    """Table 2's Batch Mean and Batch Max."""
    jump = get_task("halfcheetah-jump")
    small = roll_out(jump.as_collected(), BehaviourPolicy.random(jump, 0), 50, seed=0)
    facts = inspect_dataset(with_own_rewards(small, jump), jump)
    assert (facts["paper_return_mean"], facts["paper_return_max"]) == (-1022.6, 1808.6)
    assert facts["score_mean"] is None


def changed(dataset, name, rows, value):
    array = getattr(dataset, name).copy()
    array[rows] = value
    return replace(dataset, **{name: array})


def oddities(dataset, task):
    return inspect_dataset(dataset, task)["oddities"]


def test_a_dataset_that_does_not_fit_its_task_is_not_accepted(dataset):
    """HalfCheetah's observations have the size of Walker2d's, and its rows pass all that is asked of a walker's."""
    running = load_dataset(get_task("halfcheetah-mixed"), DatasetRequest("regenerated", 1_500))
    walker = get_task("walker2d-mixed")
    facts = inspect_dataset(running, walker)
    assert facts["accepted"] is False and facts["acceptance"][0].startswith("fits the task: 1 misfit, FAILS")
    assert all("FAILS" not in each for each in facts["acceptance"][1:])
    assert "2,000 rows are not terminal where the task's termination says that they are" in facts["oddities"][-1]
    assert inspect_dataset(running, get_task("halfcheetah-mixed"))["accepted"] is True


def test_oddities(dataset):
    """Each is found where it was put, and in its number."""
    assert "observations 3, 5 never change" in oddities(changed(dataset, "observations", (slice(None), [3, 5]), 0.5), HOPPER)
    assert "actions 1 never change" in oddities(changed(dataset, "actions", (slice(None), 1), 0.5), HOPPER)
    assert "every reward is 0.25" in oddities(changed(dataset, "rewards", slice(None), 0.25), HOPPER)
    repeated = replace(
        dataset,
        **{
            name: np.concatenate([getattr(dataset, name)[:-7], getattr(dataset, name)[20:27]])
            for name in ("observations", "actions", "rewards", "next_observations", "terminals")
        },
    )
    (only,) = [each for each in oddities(repeated, None) if "repeat" in each]
    assert only.startswith("7 rows")
    standing = np.flatnonzero(~dataset.terminals & ~dataset.timeouts)[:3]
    assert any(
        each.startswith("3 rows are terminal where") for each in oddities(changed(dataset, "terminals", standing, True), HOPPER)
    )
    ended = np.flatnonzero(dataset.terminals)[:2]
    assert any(each.startswith("2 rows are both") for each in oddities(changed(dataset, "timeouts", ended, True), HOPPER))
    endless = replace(dataset, terminals=np.zeros(400, bool), timeouts=np.zeros(400, bool))
    short = replace(HOPPER, problem=replace(HOPPER.problem, max_episode_steps=399))
    assert any(each.startswith("1 of 1 episode go on beyond the task's limit of 399 steps") for each in doubts(endless, short))


def test_rows_that_differ_in_one_place_are_no_repetition(dataset):
    for name in ("observations", "actions", "rewards"):
        array = np.repeat(getattr(dataset, name)[:1], 50, axis=0)
        array[:, ...] = array[0]
        array.reshape(50, -1)[:, -1] = np.arange(50)
        rest = {
            other: np.repeat(getattr(dataset, other)[:1], 50, axis=0)
            for other in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")
        }
        few = replace(dataset, **{**rest, name: array}, extras={})
        assert not any("repeat" in each for each in oddities(few, None))
        assert any("49 rows repeat" in each for each in oddities(replace(few, **{name: rest[name]}), None))


def test_unknown_successors_are_not_held_against_the_rule(dataset):
    """v0 gives a terminal row the next episode's first observation, or none."""
    moved = changed(dataset, "next_observations", np.flatnonzero(dataset.terminals), dataset.observations[0])
    count = int(dataset.terminals.sum())
    assert any(each.startswith(f"{count} rows are terminal where") for each in oddities(moved, HOPPER))
    assert oddities(replace(moved, valid_next=~dataset.terminals), HOPPER) == []


def test_file_and_task(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    write_hdf5(dataset, tmp_path / "mine.hdf5")
    found, task = find_dataset(str(tmp_path / "mine.hdf5"), DatasetRequest())
    assert task is None and found.digest() == dataset.digest()
    assert "score_mean" not in inspect_dataset(found, None)
    found, task = find_dataset("point-angle", DatasetRequest(rows=50))
    assert task.name == "point-angle" and len(found) == 50
    with pytest.raises(UserError, match="--rows"):
        find_dataset(str(tmp_path / "mine.hdf5"), DatasetRequest(rows=5))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_picture(suffix, dataset, tmp_path):
    dataset_picture(dataset, "hopper-random", tmp_path / f"dataset{suffix}")
    assert (tmp_path / f"dataset{suffix}").stat().st_size > 5_000


def test_picture_that_cannot_be_written(dataset, tmp_path):
    with pytest.raises(UserError, match=r"\.png"):
        dataset_picture(dataset, "hopper-random", tmp_path / "dataset.jpeg")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        dataset_picture(dataset, "hopper-random", tmp_path / "file" / "dataset.png")
