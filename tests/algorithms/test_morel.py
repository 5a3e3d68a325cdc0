"""MOReL's rollouts against loops over states: the detector, its threshold, and what a step into HALT is worth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group
from mopo_bench.algorithms.morel import discrepancy
from mopo_bench.common.errors import UserError

SEEDS = (0, 1)


@pytest.fixture
def watched(problem, monkeypatch):
    """Makes a group, rolls it out once, and gives it with the observations and predictions of each step."""

    def make(problem=problem, **changes):
        group = Group(get_algorithm("morel"), problem, SEEDS, **changes)
        seen, sample = [], group.experience.dynamics.sample

        def watching(*given):
            seen.append((given[0], sample(*given)))
            return seen[-1][1]

        monkeypatch.setattr(group.experience.dynamics, "sample", watching)
        group.experience.refresh(0, group.learner)
        return group, seen

    return make


def apart(means):
    """The largest distance of two next observations, of one state's (E, 1 + obs), by hand."""
    return max(np.sqrt(sum((one - other) ** 2)) for one in means[:, 1:] for other in means[:, 1:])


def stored(group, seed):
    ring = group.experience.ring
    return group.experience.layout.batch(ring.rows[seed, : ring.size[seed]])


def test_discrepancy_equals_a_loop(generator):
    means = torch.randn(2, 7, 9, 4, generator=generator, dtype=torch.float64)
    found = discrepancy(means)
    assert found.shape == (2, 9)
    for seed in range(2):
        for row in range(9):
            np.testing.assert_allclose(found[seed, row], apart(means[seed, :, row].numpy()), rtol=1e-12)
    means[..., 0] += 100 * torch.arange(7)[:, None]  # the reward has no part in it
    assert torch.equal(discrepancy(means), found)


def test_discrepancy_of_near_networks_is_not_lost(generator):
    """As it would be by the difference of squares: predictions of a narrow ensemble far from the origin."""
    means = 1e3 + 1e-5 * torch.randn(1, 3, 2, 4, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(discrepancy(means)[0, 0], apart(means[0, :, 0].numpy()), rtol=1e-6)


@pytest.mark.parametrize("pessimism", [0.5, 2.0])
def test_threshold_is_a_share_of_the_largest_discrepancy_of_the_dataset(pessimism, problem):
    experience = Group(get_algorithm("morel"), problem, SEEDS, pessimism=pessimism).experience
    dataset = problem.dataset
    given = (torch.from_numpy(each).double().expand(2, -1, -1) for each in (dataset.observations, dataset.actions))
    means = experience.dynamics.predict(*given)[0].numpy()
    for seed in range(2):
        largest = max(apart(means[seed, :, row]) for row in range(len(dataset.observations)))
        np.testing.assert_allclose(experience.threshold[seed], largest / pessimism, rtol=1e-12)
    assert experience.threshold[0] != experience.threshold[1]
    assert torch.equal(experience.dataset_vitals["threshold"], experience.threshold)


@pytest.mark.parametrize("halt_penalty", [0.0, 2.5])
@pytest.mark.parametrize("absorbing", [True, False])
def test_an_unknown_step_is_the_last_and_is_worth_halt_for_ever(absorbing, halt_penalty, watched, problem):
    """Or, not absorbing, its own reward less the penalty."""
    changes = {"absorbing": absorbing, "halt_penalty": halt_penalty}
    group, seen = watched(rollout_length=1, rollout_states=60, pessimism=3.0, **changes)
    ((observations, prediction),) = seen
    each_step = float(problem.dataset.rewards.min()) - halt_penalty
    assert problem.dataset.rewards.min() < 0
    halt = sum(0.99**step * each_step for step in range(1, 5000)) if absorbing else -halt_penalty  # the rest is below 1e-19
    for seed in range(2):
        rows, unknown = stored(group, seed), []
        for row in range(60):
            known = apart(prediction.means[seed, :, row].numpy()) <= float(group.experience.threshold[seed])
            unknown.append(not known)
            expected = float(prediction.rewards[seed, row]) + (0 if known else halt)
            np.testing.assert_allclose(rows.rewards[row], expected, rtol=1e-10)
            assert bool(rows.alive[row]) == (known and not bool(prediction.terminals[seed, row]))
            after = prediction.next_observations if rows.alive[row] else observations
            assert torch.equal(rows.next_observations[row], after[seed, row])
        assert 0 < sum(unknown) < 60


def test_nothing_goes_on_from_halt(watched):
    """A rollout of three steps: what was unknown or terminal has no second step."""
    group, seen = watched(pessimism=3.0, rollout_length=3, rollout_states=40)
    for seed in range(2):
        first = seen[0][1]
        unknown = discrepancy(first.means)[seed] > group.experience.threshold[seed]
        alive = ~(unknown | first.terminals[seed])
        kept = 40 + int(alive.sum())
        rows = stored(group, seed)
        assert len(rows.rewards) >= kept and unknown.any()
        second = rows.observations[40:kept]
        assert torch.equal(second, first.next_observations[seed][alive])


def test_without_pessimism_it_is_mbpo(problem):
    """No discrepancy reaches a million times the dataset's largest; the fit is the same one."""
    groups = [Group(get_algorithm("morel"), problem, SEEDS, pessimism=1e-6), Group(get_algorithm("mbpo"), problem, SEEDS)]
    for group in groups:
        group.experience.refresh(0, group.learner)
    for seed in range(2):
        morel, mbpo = (stored(group, seed) for group in groups)
        for mine, other in zip(morel[:5], mbpo[:5], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    configs = [get_algorithm(name).build_configs(get_algorithm(name).configure()) for name in ("morel", "mbpo", "mopo")]
    assert configs[0]["dynamics"] == configs[1]["dynamics"] == configs[2]["dynamics"]
    assert configs[0]["learner"] == configs[1]["learner"] == configs[2]["learner"]


def test_a_network_that_is_no_number_is_unknown(problem):
    experience = Group(get_algorithm("morel"), problem, SEEDS).experience
    _ = experience.threshold
    experience.dynamics.network.weights[-5][1, 0] = torch.nan  # biases of a mean head, of the second seed
    prediction = experience._expected(*(torch.zeros(2, 5, size, dtype=torch.float64) for size in (3, 2)))
    assert not experience.label(prediction)[1][0].all() and experience.label(prediction)[1][1].all()


def test_rewards_that_are_never_negative_end_at_nothing(watched, problem):
    """HALT is never better than an end: the smallest of such rewards is not earned in it."""
    dataset = replace(problem.dataset, rewards=np.abs(problem.dataset.rewards) + 1)
    group, _ = watched(replace(problem, dataset=dataset))
    assert group.experience.halted == 0


def test_without_a_discount_halt_has_to_end(problem):
    undiscounted = replace(problem, discount=1.0)
    with pytest.raises(UserError, match="absorbing=false"):
        Group(get_algorithm("morel"), undiscounted, SEEDS)
    Group(get_algorithm("morel"), undiscounted, SEEDS, absorbing=False)
