"""Every registered algorithm keeps the shared contract, on a synthetic batch and on point-angle's."""

import pytest
import torch
from mopo_bench.algorithms.learning.learner import Learner, per_seed
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.learning.testing import Group, assert_seed_same, check_compiles, check_contract, saved_and_loaded
from mopo_bench.algorithms.sac import SAC

MODEL_BASED = ("mbpo", "mbpo-single", "mopo", "morel", "combo", "rambo")
NAMES = ("bc", "sac", *MODEL_BASED, "bear", "bear-2020", "brac-p", "brac-v", "cql", "iql")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, problem):
    check_contract(get_algorithm(name), problem)


def test_contract_on_point_angle(point_angle):
    """Nearly every rollout lives as long as it may here; on the small problem most end early."""
    changes = {"dynamics.max_epochs": 1, "dynamics.batch_size": 512}
    check_contract(get_algorithm("mopo"), point_angle, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiles_into_one_graph(name, problem):
    check_compiles(get_algorithm(name), problem)


class MixesSeeds(SAC):
    """Averages its temperature over the group: right at S = 1."""

    def update(self, batch, noise, phase):
        metrics = super().update(batch, noise, phase)
        for weight in self.log_temperature.weights:
            weight.copy_(weight.mean(0, keepdim=True).expand_as(weight))
        return metrics


class ReducesToAScalar(SAC):
    def update(self, batch, noise, phase):
        return {name: values.mean() for name, values in super().update(batch, noise, phase).items()}


class ForgetsState(SAC):
    def state(self, index):
        return {**super().state(index), "target": super().state(index)["critic"]}


class ActsOutside(SAC):
    def act(self, observations, noise=None):
        return 2 * super().act(observations, noise)


class DrawsItsOwnNoise(SAC):
    def act(self, observations, noise=None):
        action = super().act(observations, noise)
        return (action + 1e-3 * torch.randn_like(action)).clamp(-1, 1)


@pytest.mark.parametrize(
    "learner, complaint",
    [
        (MixesSeeds, "alone differs"),
        (ReducesToAScalar, "one number per seed"),
        (ForgetsState, "after its state was stacked"),
        (ActsOutside, r"outside \[-1, 1\]"),
        (DrawsItsOwnNoise, "not repeatable"),
    ],
)
def test_a_broken_algorithm_is_caught(learner, complaint, problem):
    """The checks themselves: each of these breaks one of them."""
    with pytest.raises(AssertionError, match=complaint):
        check_contract(Algorithm("broken", learner), problem)


def test_nan_that_spreads_is_caught(problem):
    """`0 * NaN` between seeds would pass every check without NaN."""

    class Leaks(Learner):
        Config, build, noise, act = SAC.Config, SAC.build, SAC.noise, SAC.act

        def update(self, batch, noise, phase):
            metrics = SAC.update(self, batch, noise, phase)
            for weight in self.actor.weights:
                weight += 0 * weight.sum()
            return {**metrics, "size": per_seed(batch.rewards)}

    with pytest.raises(AssertionError, match="NaN of seed 1 reached"):
        check_contract(Algorithm("leaks", Leaks), problem)


def test_rows_of_rings_are_compared(problem):
    group = Group(get_algorithm("mopo"), problem, (0, 1))
    group.advance(6)
    other = Group(get_algorithm("mopo"), problem, (0, 1)).load(saved_and_loaded(group.states()), 6)
    other.experience.ring.rows[1, 2, 0] += 1e-9
    assert_seed_same(other, 0, group, 0, "resumed", tolerance=0)
    with pytest.raises(AssertionError, match="resumed: rows of its ring"):
        assert_seed_same(other, 1, group, 1, "resumed")
