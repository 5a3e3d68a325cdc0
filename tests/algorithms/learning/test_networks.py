"""First weights: their limits and their distribution, by the formulas of Glorot and Bengio (2010) and of PyTorch's Linear."""

import math

import pytest
import torch
from mopo_bench.algorithms.learning.networks import MLP, Critics, Initialiser
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group

SIZES = (6, 300, 40, 2)
LIMITS = {
    "glorot": [(math.sqrt(6 / (size_in + size_out)), 0.0) for size_in, size_out in zip(SIZES, SIZES[1:], strict=False)],
    "torch": [(1 / math.sqrt(size_in), 1 / math.sqrt(size_in)) for size_in in SIZES[:-1]],
}


def first_weights(initialisation, seeds=(0, 1, 2)):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return MLP.create(Initialiser(generators, torch.float64, "cpu", initialisation), SIZES, (2,)).weights


@pytest.mark.parametrize("initialisation", LIMITS)
def test_first_weights_are_uniform_within_the_limit(initialisation):
    """Of each of three seeds and two members; n uniform numbers come within 10/n of their limit but for once in e^10."""
    weights = first_weights(initialisation)
    limits = [limit for layer in LIMITS[initialisation] for limit in layer]
    for weight, limit in zip(weights, limits, strict=True):
        assert weight.shape[:2] == (3, 2) and weight.abs().max() <= limit
        if limit == 0:
            continue
        values = weight.flatten(0, 1).flatten(1)  # (6, n)
        assert len({tuple(each.tolist()) for each in values}) == 6
        count = values.shape[1]
        assert (values.abs().amax(1) > limit * (1 - 10 / count)).all()
        # mean 0 and variance limit^2 / 3, within six standard errors of all six together
        assert values.mean().abs() < 6 * limit / math.sqrt(3 * values.numel())
        assert (values.square().mean() / (limit**2 / 3) - 1).abs() < 6 * math.sqrt(4 / 5 / values.numel())


def test_glorot_is_what_torch_calls_xavier():
    """The limit by torch's own function, whose weight is (out, in)."""
    for weight in first_weights("glorot")[::2]:
        own = torch.nn.init.xavier_uniform_(torch.empty(weight.shape[-1], weight.shape[-2], dtype=torch.float64))
        assert 0.9 < weight.abs().max() / own.abs().max() < 1.1


def test_values_differ_three_times_as_much_at_first(generator):
    """Over states and actions, of halfcheetah's sizes and the default layers, on average over 20 seeds."""
    states, actions = (torch.randn(20, 500, size, generator=generator, dtype=torch.float64) for size in (17, 6))
    spread = {}
    for initialisation in LIMITS:
        generators = [torch.Generator().manual_seed(seed) for seed in range(20)]
        critics = Critics.create(Initialiser(generators, torch.float64, "cpu", initialisation), 17, 6, (256, 256))
        spread[initialisation] = float(critics(states, torch.tanh(actions)).std(-1).mean())
    assert spread["torch"] == pytest.approx(0.063, abs=0.005) and spread["glorot"] == pytest.approx(0.184, abs=0.015)


@pytest.mark.parametrize("name", ["bc", "sac", "mbpo", "mopo", "brac-p", "brac-v"])
def test_actor_and_critics_begin_as_in_the_authors_code(name, problem):
    """Every network that is not a single number: biases of 0, weights that come near the limit and not beyond."""
    learner = Group(get_algorithm(name), problem, (0,)).learner
    networks = [network for network in learner.networks().values() if len(network.weights) > 1]
    assert len(networks) == (1 if name == "bc" else 3)
    for network in networks:
        for weight, bias in zip(network.weights[::2], network.weights[1::2], strict=True):
            size_in, size_out = weight.shape[-2:]
            limit = math.sqrt(6 / (size_in + size_out))
            assert not bias.any() and 0.7 * limit < weight.abs().max() <= limit


def test_bear_begins_as_pytorch_does(problem):
    learner = Group(get_algorithm("bear"), problem, (0,)).learner
    for network in (learner.actor, learner.critic, learner.behaviour):
        for weight, bias in zip(network.weights[::2], network.weights[1::2], strict=True):
            assert bias.any() and max(weight.abs().max(), bias.abs().max()) <= 1 / math.sqrt(weight.shape[-2])


def test_a_behaviour_policy_begins_as_it_is_asked(problem):
    """BRAC's stage is BC, with BC's settings."""
    config = get_algorithm("brac-v").build_configs(get_algorithm("brac-v").configure())["behaviour"]
    assert (config.initialisation, config.adam) == ("glorot", "keras")
