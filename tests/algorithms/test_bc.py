"""Behaviour cloning and the tanh-Gaussian policy against torch.distributions."""

import math

import pytest
import torch
from mopo_bench.algorithms.learning.networks import GaussianActor, Initialiser, log_tanh_slope
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group
from support import TensorFlowAdam
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform


def make_actor(seeds, log_std_range=(-5.0, 0.0), smooth_log_std=False):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    initialiser = Initialiser(generators, torch.float64, "cpu")
    return GaussianActor.create(initialiser, 3, 2, (16, 16), log_std_range, smooth_log_std)


def distribution(actor, observations, cache_size=0):
    mean, log_std = actor.gaussian(observations)
    transforms = [TanhTransform(cache_size=cache_size)]
    return TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), transforms)


def normals(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("smooth_log_std", [False, True])
def test_log_prob_equals_torch_distributions(smooth_log_std, generator):
    actor, observations = make_actor((0, 1), smooth_log_std=smooth_log_std), normals(generator, 2, 50, 3)
    actions = torch.tanh(normals(generator, 2, 50, 2))
    expected = distribution(actor, observations).log_prob(actions)
    torch.testing.assert_close(actor.log_prob(observations, actions), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("edge", [0.999, 0.99999, -0.999998])
def test_log_prob_near_the_edge(edge, generator):
    """By log(1 - a^2) of the action itself, which float64 still holds here."""
    actor, observations = make_actor((0,)), normals(generator, 1, 20, 3)
    actions = torch.full((1, 20, 2), edge, dtype=torch.float64)
    mean, log_std = actor.gaussian(observations)
    before = 0.5 * (math.log1p(edge) - math.log1p(-edge))
    expected = Normal(mean, log_std.exp()).log_prob(torch.tensor(before, dtype=torch.float64)) - math.log1p(-(edge**2))
    torch.testing.assert_close(actor.log_prob(observations, actions), expected.sum(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_actions_on_the_edge_count_as_a_margin_inside(dtype, generator):
    """Batches hold actions of exactly 1, whose density is not finite."""
    actor, observations = make_actor((0,)), normals(generator, 1, 20, 3).to(dtype)
    actor = actor.with_weights([weight.to(dtype) for weight in actor.weights])
    edge = torch.ones(1, 20, 2, dtype=dtype)
    for sign in (1, -1):
        values = actor.log_prob(observations, sign * edge)
        assert values.isfinite().all()
        assert torch.equal(values, actor.log_prob(observations, sign * (edge - 1e-6).clamp(max=1 - 1e-6)))
        assert torch.equal(values, actor.log_prob(observations, sign * 1.5 * edge))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_sampled_actions_and_their_log_probs(scale, generator):
    """Wide noise reaches actions that round to 1, where only the value before tanh tells the density."""
    actor, observations, noise = make_actor((0, 1)), normals(generator, 2, 50, 3), scale * normals(generator, 2, 50, 2)
    actions, log_prob = actor(observations, noise)
    squashed = distribution(actor, observations, cache_size=1)
    mean, log_std = actor.gaussian(observations)
    expected = squashed.transforms[0](mean + log_std.exp() * noise)
    torch.testing.assert_close(actions, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_prob, squashed.log_prob(expected), rtol=1e-10, atol=1e-10)
    given = actor.log_prob(observations, actions, margin=1e-15)
    inside = (actions.abs() < 0.999).all(-1)
    torch.testing.assert_close(given[inside], log_prob[inside], rtol=1e-8, atol=1e-8)


def test_log_slope_far_out():
    """log(1 - tanh(u)^2) is -2|u| + log 4 there, where 1 - tanh(u)^2 itself is 0."""
    before = torch.tensor([-400.0, -50.0, 0.0, 50.0, 400.0], dtype=torch.float64)
    expected = torch.where(before == 0, 0.0, math.log(4) - 2 * before.abs())
    torch.testing.assert_close(log_tanh_slope(before), expected, rtol=1e-14, atol=1e-14)


def test_log_std_is_clipped(generator):
    actor, observations = make_actor((0,), (-5.0, 0.0)), normals(generator, 1, 400, 3)
    actor.weights[-2] *= 200
    log_std = actor.gaussian(observations)[1]
    assert (log_std.min(), log_std.max()) == (-5.0, 0.0)


def test_log_std_is_brought_smoothly_into_its_range(generator):
    """(1 + tanh x) / 2 is the logistic function at 2 x, of what the network gives; the mean stays as it is."""
    actor, clipped = make_actor((0, 1), (-3.0, 1.0), True), make_actor((0, 1), (-1e9, 1e9))
    for each in (actor, clipped):
        each.weights[-2] *= 5
    observations = normals(generator, 2, 400, 3)
    (mean, log_std), (expected, raw) = actor.gaussian(observations), clipped.gaussian(observations)
    assert raw.min() < -1 and raw.max() > 1
    assert torch.equal(mean, expected)
    torch.testing.assert_close(log_std, -3 + 4 * torch.sigmoid(2 * raw), rtol=0, atol=1e-12)
    assert -3 < log_std.min() < -2 and 0 < log_std.max() < 1


def test_smooth_log_std_stays_with_the_network(generator):
    """A copy, or the function with other weights, is the same kind of policy: a loss is taken of the latter."""
    actor, observations = make_actor((0,), smooth_log_std=True), normals(generator, 1, 10, 3)
    expected = actor.gaussian(observations)[1]
    for other in (actor.copy(), actor.with_weights(actor.weights)):
        assert torch.equal(other.gaussian(observations)[1], expected)
    assert not torch.allclose(make_actor((0,)).gaussian(observations)[1], expected)


def brac_s_gaussian(weights, rows):
    """One seed's policy as BRAC's authors have it: the log standard deviation in [-5, 0], half way at 0."""
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        rows = torch.relu(rows) if weight is not weights[0] else rows
        rows = rows @ weight + bias
    mean, raw = rows.chunk(2, -1)
    return Normal(mean, torch.exp(-2.5 + 2.5 * torch.tanh(raw)))


@pytest.mark.parametrize("margin", [1e-3, 0.3])
def test_step_equals_torch_distributions(margin, problem):
    """Both losses, their gradients and one Adam step of every weight, per seed; some actions lie beyond the margin."""
    group = Group(get_algorithm("bc"), problem, (3, 8), action_margin=margin)
    learner = group.learner
    before = [weight.clone() for weight in learner.actor.weights]
    uniform, noise = group.streams.at(0)
    batch = group.experience.draw(uniform)
    batch = batch._replace(actions=batch.actions.where(batch.actions < 0.9, 1.0))
    assert 0 < (batch.actions == 1).sum() < 20 and learner.actor.log_std_range == (-5.0, 0.0)
    metrics = learner.update(batch, noise, learner.phase(0))
    for seed in range(2):
        weights = [weight[seed].clone().requires_grad_() for weight in before]
        log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
        gaussian = brac_s_gaussian(weights, batch.observations[seed])
        squashed = TransformedDistribution(Independent(gaussian, 1), [TanhTransform(cache_size=1)])
        likelihood = squashed.log_prob(batch.actions[seed].clamp(-1 + margin, 1 - margin)).mean()
        sampled = squashed.transforms[0](gaussian.mean + gaussian.stddev * noise["now"][seed])
        log_prob = squashed.log_prob(sampled).mean()
        loss = log_temperature.exp().detach() * log_prob - likelihood
        temperature_loss = -log_temperature * (log_prob.detach() - 2.0)
        (loss + temperature_loss).backward()
        TensorFlowAdam(weights, 5e-4, epsilon=1e-7).step()
        TensorFlowAdam([log_temperature], 3e-4, epsilon=1e-7).step()
        torch.testing.assert_close(metrics["policy_loss"][seed], loss.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(metrics["entropy"][seed], -log_prob.detach(), rtol=1e-10, atol=1e-10)
        for weight, expected in zip(learner.actor.weights, weights, strict=True):
            torch.testing.assert_close(weight[seed], expected.detach(), rtol=0, atol=1e-10)
        torch.testing.assert_close(learner.log_temperature()[seed, 0], log_temperature.detach(), rtol=0, atol=1e-12)


def test_finds_the_batch_s_policy(point_angle):
    """The trim, the one action that follows from the state alone: its mean is found to well within its noise of 0.2."""
    group = Group(get_algorithm("bc"), point_angle, (0,), learning_rate=3e-3, batch_size=128, hidden=(32, 32))
    rows = torch.tensor(point_angle.dataset.observations, dtype=torch.float64)[None]
    group.advance(1_000)
    wanted = 0.8 * torch.cos(1.5 * rows[0, :, 0])
    assert (group.learner.act(rows)[0, :, 2] - wanted).square().mean().sqrt() < 0.14
