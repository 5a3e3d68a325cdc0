"""MOPO's penalty: its forms against loops, its sign and place in the reward, and the defaults it runs with."""

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.dynamics import Prediction
from mopo_bench.algorithms.learning.penalties import PENALTIES, SIMULATED, true_error
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.algorithms.learning.testing import Group
from mopo_bench.common.errors import UserError
from mopo_bench.tasks import terminations as rules
from mopo_bench.tasks.registry import all_tasks, get_task

SEEDS, NETWORKS, ROWS, WIDTH = 2, 7, 15, 4
ELITES = (4, 1, 6)


@pytest.fixture
def prediction(generator):
    def normals(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means, stds = normals(SEEDS, NETWORKS, ROWS, WIDTH), normals(SEEDS, NETWORKS, ROWS, WIDTH).exp()
    terminals = normals(SEEDS, ROWS) > 0
    asked = (normals(SEEDS, ROWS, WIDTH - 1), normals(SEEDS, ROWS, 2), torch.tensor([ELITES] * SEEDS))
    drawn = (normals(SEEDS, ROWS), normals(SEEDS, ROWS, WIDTH - 1), terminals, normals(SEEDS, ROWS))
    return Prediction(*drawn, means, stds, *asked)


def max_std(means, stds):
    """||std||_2 over reward and observation, largest over networks."""
    return max(np.sqrt(sum(value**2 for value in network)) for network in stds)


def max_std_elites(means, stds):
    return max_std(means, stds[list(ELITES)])


def mean_std(means, stds):
    return sum(np.sqrt((network**2).sum()) for network in stds) / len(stds)


def max_variance(means, stds):
    """The trace of the covariance matrix, largest over networks."""
    return max(np.trace(np.diag(network**2)) for network in stds)


def none(means, stds):
    return 0.0


def max_covariance(means, stds):
    """Frobenius norm of the covariance matrix, largest over networks."""
    return max(np.linalg.norm(np.diag(network**2)) for network in stds)


def ensemble(means, stds):
    """||s' - mean s'||_2 without the reward, largest over networks."""
    centre = sum(network[1:] for network in means) / len(means)
    return max(np.linalg.norm(network[1:] - centre) for network in means)


LOOPS = {each.__name__: each for each in (max_std, max_std_elites, mean_std, max_variance, max_covariance, ensemble, none)}


def test_every_penalty_has_its_loop():
    assert set(LOOPS) == set(PENALTIES)


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_equals_a_loop(name, prediction):
    penalty = PENALTIES[name](prediction).numpy()
    means, stds = prediction.means.numpy(), prediction.stds.numpy()
    assert penalty.shape == (SEEDS, ROWS)
    for seed in range(SEEDS):
        for row in range(ROWS):
            expected = LOOPS[name](means[seed, :, row], stds[seed, :, row])
            np.testing.assert_allclose(penalty[seed, row], expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(PENALTIES) - {"none"}))
def test_needs_all_networks(name, prediction):
    with pytest.raises(ValueError, match="all networks"):
        PENALTIES[name](prediction._replace(means=None, stds=None))


def linear_step(observations, actions):
    """A simulator that is known: next observations and rewards of states (n, 3) at actions (n, 2)."""
    return 2 * observations + actions[:, :1], observations.sum(1) - actions[:, 1]


def test_true_error_is_the_largest_distance_from_the_true_step(prediction):
    found = true_error(prediction, linear_step).numpy()
    for seed in range(SEEDS):
        for row in range(ROWS):
            observation, action = prediction.observations[seed, row].numpy(), prediction.actions[seed, row].numpy()
            (successor,), (reward,) = linear_step(observation[None], action[None])
            truth = np.array([reward, *successor])
            errors = [np.linalg.norm(network - truth) for network in prediction.means[seed, :, row].numpy()]
            np.testing.assert_allclose(found[seed, row], max(errors), rtol=1e-12)


def test_true_error_needs_the_simulator_and_no_other_penalty_does(problem):
    with pytest.raises(UserError, match="needs the real simulator"):
        Group(get_algorithm("mopo"), problem, (0,), penalty="true_error")
    experience = get_algorithm("mopo").experience
    told = [name for name in (*PENALTIES, *SIMULATED) if experience.needs_simulator(experience.Config(penalty=name))]
    assert told == ["true_error"] and not get_algorithm("mbpo").experience.needs_simulator(None)


def test_maximum_is_over_all_networks_and_not_over_elites(problem):
    """A network outside the elites, made very uncertain, shows in the stored rewards."""
    free, before = stored_rewards(problem, penalty_coefficient=0.0), stored_rewards(problem)
    group = Group(get_algorithm("mopo"), problem, (0,))
    dynamics = group.experience.dynamics
    outsider = next(network for network in range(4) if network not in dynamics.elites[0].tolist())
    dynamics.network.weights[-3][0, outsider] += 50  # its log variances up to their bounds
    group.experience.refresh(0, group.learner)
    largest = dynamics.network.weights[-2].exp().sum().sqrt()
    assert (free - before < 0.9 * largest).all()
    torch.testing.assert_close(free - stored(group).rewards, largest.expand_as(free), rtol=0, atol=1e-3)


def stored(group):
    """The rows in the ring of the only seed."""
    ring = group.experience.ring
    return group.experience.layout.batch(ring.rows[0, : ring.size[0]])


def stored_rewards(problem, name="mopo", **changes):
    group = Group(get_algorithm(name), problem, (0,), **changes)
    group.experience.refresh(0, group.learner)
    return stored(group).rewards


@pytest.mark.parametrize("penalty", sorted(set(PENALTIES) - {"none", "max_std_elites"}))
@pytest.mark.parametrize("reward", ["sampled", "mean"])
def test_stored_reward_is_reward_minus_coefficient_times_penalty(penalty, reward, problem, monkeypatch):
    """Watched through `sample`, so that the ring is compared with what the model said; terminals as they were."""
    changes = {"penalty": penalty, "penalised_reward": reward, "penalty_coefficient": 0.7, "rollout_length": 1}
    group = Group(get_algorithm("mopo"), problem, (0,), **changes)
    seen, sample = [], group.experience.dynamics.sample

    def watched(*given):
        seen.append(sample(*given))
        return seen[-1]

    monkeypatch.setattr(group.experience.dynamics, "sample", watched)
    group.experience.refresh(0, group.learner)
    (prediction,) = seen
    penalties = [LOOPS[penalty](prediction.means[0, :, row].numpy(), prediction.stds[0, :, row].numpy()) for row in range(30)]
    assert min(penalties) > 0
    base = prediction.rewards if reward == "sampled" else prediction.mean_rewards
    rows = stored(group)
    torch.testing.assert_close(rows.rewards, base[0] - 0.7 * torch.tensor(penalties), rtol=1e-12, atol=1e-12)
    assert torch.equal(rows.alive, (~prediction.terminals[0]).double())
    live = ~prediction.terminals[0]
    assert torch.equal(rows.next_observations[live], prediction.next_observations[0, live])
    assert torch.equal(rows.next_observations[~live], rows.observations[~live])  # it does not count, and must be finite


def test_coefficient_is_read(problem):
    """Ports have kept the flag and never read it. Rewards fall in proportion; without it they are MBPO's."""
    none, one, three = (stored_rewards(problem, penalty_coefficient=value) for value in (0.0, 1.0, 3.0))
    assert (one < none).all()
    torch.testing.assert_close(none - three, 3 * (none - one), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(stored_rewards(problem, "mbpo"), none, rtol=1e-10, atol=1e-10)


def test_mbpo_has_no_penalty():
    mbpo, mopo = get_algorithm("mbpo"), get_algorithm("mopo")
    assert set(mopo.defaults()) - set(mbpo.defaults()) == {"penalty", "penalty_coefficient", "penalised_reward"}
    assert not mbpo.experience.all_networks and mopo.experience.all_networks


def test_metrics_name_the_model_s_reward(problem):
    """What a run reports of its rollouts: steps a state, and the mean label, penalty included."""
    group = Group(get_algorithm("mopo"), problem, (0, 1))
    group.experience.refresh(0, group.learner)
    for seed in range(2):
        rows = group.experience.layout.batch(group.experience.ring.rows[seed, : group.experience.ring.size[seed]])
        vitals = group.experience.vitals
        assert vitals["rollout_length"][seed] == len(rows.rewards) / 30
        torch.testing.assert_close(vitals["model_reward"][seed], rows.rewards.mean(), rtol=1e-10, atol=1e-12)


# what a setting is by default, where the paper, the authors' code and its ports disagree


@pytest.mark.parametrize("name, expected", [("sac", -2.0), ("bc", -2.0), ("mbpo", -3.0), ("mopo", -3.0)])
def test_target_entropy(name, expected, problem):
    """Of a problem with two action dimensions."""
    assert Group(get_algorithm(name), problem, (0,)).learner.target_entropy == expected


def test_defaults_that_belong_to_tasks():
    assert {task.problem.discount for task in all_tasks().values() if task.origin == "mopo_bench"} == {0.99}
    for name, task in all_tasks().items():
        if name.startswith("hopper-"):
            assert task.problem.termination is rules.hopper  # |obs|, as intended, and not the code's misplaced abs
    mopo = get_algorithm("mopo")
    # 1 in the paper, 5 in the code
    assert task_settings(mopo, "halfcheetah-medium-expert")["penalty_coefficient"] == 1.0
    assert get_task("hopper-medium").evaluation.episodes == 10
    assert {get_task(name).evaluation.steps for name in ("hopper-medium", "walker2d-mixed")} == {1_000_000}
