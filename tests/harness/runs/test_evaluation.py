"""Returns of the evaluator are those of a plain loop in Gymnasium's own environment."""

import time

import gymnasium
import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.registry import Algorithm
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.runs.cell import build
from mopo_bench.harness.runs.checkpoints import load_checkpoint
from mopo_bench.harness.runs.evaluation import Evaluator, acting, reset_seeds
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.environments import quiet_model_loading
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import ActionBox, Problem, Task

PENDULUM = Task("pendulum", "Pendulum-v1", Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=200))


def policy(task, seed=0):
    """A deterministic policy that moves: tanh of a random linear map, which rounds alike for one row and for many."""
    weights = (
        np.random.default_rng(seed).normal(0, 0.5, (task.problem.observation_size, task.problem.action_size)).astype(np.float32)
    )
    return lambda observations: np.tanh((observations.astype(np.float32)[..., None] * weights).sum(-2))


def plain_returns(task, act, seeds, scale=1.0):
    """One episode after another, wrappers and all; (returns, lengths)."""
    returns, lengths = [], []
    with quiet_model_loading():
        environment = gymnasium.make(task.environment)
    for seed in seeds:
        observation, _ = environment.reset(seed=seed)
        total, length, over = 0.0, 0, False
        while not over:
            action = scale * act(np.asarray(observation, np.float32)[None, None])[0, 0]
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, length, over = total + reward, length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def test_hopper_returns_equal_a_plain_loop():
    """Its episodes end early, each at its own step."""
    task, act, seeds = get_task("hopper-medium"), policy(get_task("hopper-medium")), [3, 4, 5, 6]
    expected, lengths = plain_returns(task, act, seeds)
    assert len(set(lengths)) > 1 and max(lengths) < 1000
    evaluator = Evaluator(task)
    found = evaluator.returns(act, [seeds[:2], seeds[2:]])
    assert found.shape == (2, 2)
    assert found.flatten() == pytest.approx(expected, rel=1e-4)
    again = evaluator.returns(act, [seeds[2:]])  # the environments were used before
    assert again.tolist() == found[1:].tolist()


def test_time_limit():
    task, seeds = get_task("halfcheetah-medium"), [7, 8]
    act = policy(task)
    expected, lengths = plain_returns(task, act, seeds)
    assert lengths == [1000, 1000]
    assert Evaluator(task).returns(act, [seeds])[0] == pytest.approx(expected, rel=1e-3)


def test_action_box_is_mapped():
    act, seeds = policy(PENDULUM), [1, 2, 3]
    expected, lengths = plain_returns(PENDULUM, act, seeds, scale=2.0)
    assert lengths == [200] * 3
    found = Evaluator(PENDULUM).returns(act, [seeds])[0]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found != pytest.approx(plain_returns(PENDULUM, act, seeds)[0], rel=1e-2)


def test_discounted_returns_lengths_and_first_observations():
    task, act, seeds = get_task("hopper-medium"), policy(get_task("hopper-medium")), [3, 4]
    played = Evaluator(task).episodes(act, [seeds])
    with quiet_model_loading():
        environment = gymnasium.make(task.environment)
    for place, seed in enumerate(seeds):
        observation, _ = environment.reset(seed=seed)
        assert played.first[0, place] == pytest.approx(observation)
        expected, length, over = 0.0, 0, False
        while not over:
            observation, reward, terminated, truncated, _ = environment.step(act(np.asarray(observation, np.float32)))
            expected, over = expected + task.problem.discount**length * reward, terminated or truncated
            length += 1
        assert played.discounted[0, place] == pytest.approx(expected, rel=1e-4)
        assert played.lengths[0, place] == length < task.problem.max_episode_steps


def test_a_run_records_how_far_its_critics_are_from_what_follows(plan, tmp_path):
    """And its target networks from those that they follow: both made again from its checkpoint."""
    execute(plan("sac", results=tmp_path), 1)
    cell, seed = next(plan("sac", results=tmp_path).seeds())
    learner, _ = build(cell, {})
    learner.load_states([load_checkpoint(cell.seed_folder(seed))["learner"]])
    act = acting(learner)
    played = Evaluator(cell.task).episodes(act, [reset_seeds(seed, 100, 3)])
    first = torch.as_tensor(played.first)
    both = learner.critic(first, torch.as_tensor(act(played.first)))  # (1, 2, episodes)
    expected = (both.amin(1).numpy() - played.discounted).mean()
    row = load_runs(tmp_path)[0].evaluations[-1]
    vitals = row["vitals"]
    assert row["step"] == 100 and vitals["value_error"] == pytest.approx(expected, rel=1e-4)
    assert vitals["episode_length"] == played.lengths.mean()
    flat, slow = (torch.cat([weight.flatten() for weight in each.weights]) for each in (learner.critic, learner.target))
    assert vitals["target_lag"] == pytest.approx(float((slow - flat).norm() / flat.norm()), rel=1e-4)
    assert vitals["target_lag"] > 0


def test_a_learner_without_critics_has_neither(plan, tmp_path):
    execute(plan("bc", results=tmp_path, steps=25), 1)
    assert not {"value_error", "target_lag"} & load_runs(tmp_path)[0].evaluations[-1]["vitals"].keys()


def test_what_is_over_counts_no_more():
    """point-angle ends at once where it is pushed sideways; its rewards would go on."""
    task = get_task("point-angle")

    def sideways_where_it_started_right(observations):
        seen.append(observations.copy())
        return np.stack([np.where(right, 0.0, 0.5), np.where(right, 1.0, 0.0), np.zeros_like(right)], -1)[None]

    seen, seeds = [], reset_seeds(0, 0, 12)
    environment = gymnasium.make(task.environment)
    right = np.array([environment.reset(seed=seed)[0][1] > 0 for seed in seeds], float)
    assert 0 < right.sum() < 12
    found = Evaluator(task).returns(sideways_where_it_started_right, [seeds])[0]
    assert len(seen) == task.problem.max_episode_steps  # as long as any is running
    expected = []
    for seed, sideways in zip(seeds, right, strict=True):
        environment.reset(seed=seed)
        total, over, steps = 0.0, False, 0
        while not over:
            action = np.array([0.0, 1.0, 0.0] if sideways else [0.5, 0.0, 0.0])
            _, reward, terminated, truncated, _ = environment.step(action)
            total, over, steps = total + reward, terminated or truncated, steps + 1
        expected.append(total)
        assert (steps < 100) == bool(sideways)
    assert found == pytest.approx(expected, rel=1e-6)


def test_seeds_of_resets():
    assert reset_seeds(0, 1000, 3) == reset_seeds(0, 1000, 5)[:3]
    drawn = [reset_seeds(seed, step, 10) for seed in (0, 1) for step in (1000, 2000)]
    assert len({each for row in drawn for each in row}) == 40
    assert all(0 <= each < 2**31 for row in drawn for each in row)


def test_every_algorithm_meets_the_same_starts(plan, monkeypatch, tmp_path):
    met = {}
    episodes = Evaluator.episodes

    def noted(self, act, seeds):
        met.setdefault(self.name, []).append(seeds)
        return episodes(self, act, seeds)

    for name in ("sac", "bc"):
        monkeypatch.setattr(Evaluator, "name", name, raising=False)
        monkeypatch.setattr(Evaluator, "episodes", noted)
        execute(plan(name, results=tmp_path, seeds=(2,), steps=50), jobs=1)
    assert met["sac"] == met["bc"] == [[reset_seeds(2, step, 3)] for step in (25, 50)]


def test_time_of_a_run_counts_its_evaluations(plan, monkeypatch, tmp_path):
    episodes = Evaluator.episodes

    def slow(self, act, seeds):
        time.sleep(0.5)
        return episodes(self, act, seeds)

    monkeypatch.setattr(Evaluator, "episodes", slow)
    execute(plan("bc", results=tmp_path, steps=50), jobs=1)
    assert load_runs(tmp_path)[0].record["seconds"] >= 1.0


def test_learners_act_in_the_mode(plan, evaluations, tmp_path):
    """Evaluation is of the deterministic policy."""

    class Noisy(SAC):
        def act(self, observations, noise=None):
            assert noise is None
            return super().act(observations, noise)

    outcome = execute(plan(Algorithm("noisy", Noisy), results=tmp_path, steps=25), jobs=1)
    assert outcome == {"done": ["point-angle/noisy/seed-0"]}
