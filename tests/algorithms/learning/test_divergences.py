"""Divergences against loops over pairs, torch.distributions and quadrature."""

import math

import pytest
import torch
from mopo_bench.algorithms.learning.divergences import dual_kl, gradient_penalty, sampled_kl, squared_mmd
from mopo_bench.algorithms.learning.networks import Critics, Initialiser
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

KERNELS = ("laplacian", "gaussian")


def normals(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# MMD


def kernel_value(one, other, kernel, width):
    """Of two actions, in plain Python."""
    power = {"laplacian": 1, "gaussian": 2}[kernel]
    distance = sum(abs(a - b) ** power for a, b in zip(one, other, strict=True))
    return math.exp(-distance / (2 * width))


def mean_over_pairs(first, second, kernel, width):
    total = sum(kernel_value(one, other, kernel, width) for one in first for other in second)
    return total / (len(first) * len(second))


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_equals_a_loop_over_pairs(kernel, generator):
    """The two sets differ in size: a mean over the wrong number of pairs would show."""
    first, second = normals(generator, 2, 4, 3, 2), 0.5 + normals(generator, 2, 5, 3, 2)
    found = squared_mmd(first, second, kernel, 0.7)
    assert found.shape == (2, 3)
    for seed in range(2):
        for state in range(3):
            one, other = first[seed, :, state].tolist(), second[seed, :, state].tolist()
            expected = mean_over_pairs(one, one, kernel, 0.7) + mean_over_pairs(other, other, kernel, 0.7)
            expected -= 2 * mean_over_pairs(one, other, kernel, 0.7)
            assert found[seed, state].item() == pytest.approx(expected, rel=0, abs=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_of_the_same_samples_is_zero(kernel, generator):
    """In whatever order they come."""
    samples = normals(generator, 2, 4, 3, 2)
    torch.testing.assert_close(
        squared_mmd(samples, samples[:, [2, 0, 3, 1]], kernel, 0.7), torch.zeros(2, 3).double(), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_is_never_negative(kernel, generator):
    """An unbiased estimate would be, about every second time, where both sets come from the same distribution."""
    values = squared_mmd(normals(generator, 50, 2, 40, 2), normals(generator, 50, 3, 40, 2), kernel, 20.0)
    assert values.min() > -1e-14 and values.mean() > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_grows_with_a_shift(kernel, generator):
    samples = 0.1 * normals(generator, 2, 4, 3, 2)
    values = torch.stack([squared_mmd(samples, samples + shift, kernel, 1.0) for shift in (0.0, 0.5, 1.0, 2.0, 4.0)])
    assert (values.diff(dim=0) > 0.01).all()


@pytest.mark.parametrize(
    "kernel, similarity", [("laplacian", math.exp(-1.75 / (2 * 0.8))), ("gaussian", math.exp(-(0.5**2 + 1.25**2) / (2 * 0.8)))]
)
def test_mmd_of_one_sample_each(kernel, similarity):
    """k(x, x) - 2 k(x, y) + k(y, y), with k(x, x) = 1."""
    one, other = torch.tensor([0.25, -0.5], dtype=torch.float64), torch.tensor([0.75, 0.75], dtype=torch.float64)
    found = squared_mmd(one.view(1, 1, 1, 2), other.view(1, 1, 1, 2), kernel, 0.8)
    assert found.item() == pytest.approx(2 - 2 * similarity, rel=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_keeps_states_and_seeds_apart(kernel, generator):
    first, second = normals(generator, 3, 4, 5, 2), normals(generator, 3, 4, 5, 2)
    before = squared_mmd(first, second, kernel, 0.7)
    first[1, :, 2] += 1.0
    second[2, 0, 4] = float("nan")
    changed = squared_mmd(first, second, kernel, 0.7) != before
    assert changed.nonzero().tolist() == [[1, 2], [2, 4]]


# KL by samples


def gaussians(generator, seeds, states):
    """A policy and a behaviour policy of two action dimensions, apart by about their own spread."""
    parameters = []
    for _ in range(2):
        parameters.append((normals(generator, seeds, states, 2), 0.3 * normals(generator, seeds, states, 2) - 0.5))
    return parameters


def test_sampled_kl_estimates_the_kl_of_the_gaussians(generator):
    """tanh is one-to-one and cancels. 100 estimates of 400 samples each tell the standard error."""
    policy, behaviour = gaussians(generator, 1, 6)
    plain = [Independent(Normal(mean[0], log_std[0].exp()), 1) for mean, log_std in (policy, behaviour)]
    spread = [tuple(part.expand(100, 6, 2) for part in each) for each in (policy, behaviour)]
    estimates = sampled_kl(*spread, normals(generator, 100, 400, 6, 2), 1e-12)
    error = estimates.std(0) / 10
    expected = kl_divergence(*plain)
    assert (expected > 10 * error).all() and (error < 0.2).all()
    assert ((estimates.mean(0) - expected).abs() < 4 * error).all()


def test_sampled_kl_equals_torch_distributions(generator):
    """The policy about its own actions, the behaviour policy about those moved inside the box, which far ones really are."""
    margin, noise = 1e-3, 8 * normals(generator, 2, 5, 40, 2)
    (mean, log_std), (other_mean, other_log_std) = policy, behaviour = gaussians(generator, 2, 40)
    inside, outside, expected = 0, 0, torch.zeros(2, 40, dtype=torch.float64)
    for seed in range(2):
        for sample in range(5):
            own = TransformedDistribution(Normal(mean[seed], log_std[seed].exp()), TanhTransform(cache_size=1))
            action = own.transforms[0](mean[seed] + log_std[seed].exp() * noise[seed, sample])
            other = TransformedDistribution(Normal(other_mean[seed], other_log_std[seed].exp()), TanhTransform())
            moved = action.clamp(-1 + margin, 1 - margin)
            expected[seed] += (own.log_prob(action) - other.log_prob(moved)).sum(-1) / 5
            inside, outside = inside + (moved == action).sum(), outside + (action.abs() > 1 - 1e-6).sum()
    assert inside > 300 and outside > 100
    torch.testing.assert_close(sampled_kl(policy, behaviour, noise, margin), expected, rtol=1e-10, atol=1e-10)


def test_sampled_kl_of_a_policy_to_itself(generator):
    """Zero at every sample, but for what the margin does to those beyond it."""
    policy, noise = gaussians(generator, 2, 40)[0], 4 * normals(generator, 2, 5, 40, 2)
    assert (sampled_kl(policy, policy, noise, 1e-15) == 0).all()
    assert (sampled_kl(policy, policy, noise, 1e-3) != 0).any()


# KL in its dual form


POLICY, BEHAVIOUR = Normal(torch.tensor(0.4).double(), 0.5), Normal(torch.tensor(-0.1).double(), 0.8)


def best_logits(action):
    """softplus of them is pi / b."""
    ratio = (POLICY.log_prob(action) - BEHAVIOUR.log_prob(action)).exp()
    return ratio + torch.log(-torch.expm1(-ratio))


def test_dual_kl_is_tight_at_the_ratio_and_a_lower_bound_elsewhere(generator):
    """Expectations over both Gaussians by quadrature, so that the bound has no sampling error to hide in."""
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)
    policy_weights, behaviour_weights = (each.log_prob(grid).exp() * 12 / 600 for each in (POLICY, BEHAVIOUR))

    def bound(logits):
        return (policy_weights[:, None] * behaviour_weights * dual_kl(logits[:, None], logits)).sum().item()

    best, kl = best_logits(grid), kl_divergence(POLICY, BEHAVIOUR).item()
    assert bound(best) == pytest.approx(kl, rel=0, abs=1e-6)
    others = [best + 0.3, best - 0.3, 0.7 * best, 1.3 * best, best.flip(0), 0 * best]
    others += [best + 0.2 * torch.sin(frequency * grid) for frequency in (1, 3, 9)]
    others += [normals(generator, 601) for _ in range(20)]
    assert max(map(bound, others)) < kl - 1e-3


def test_dual_kl_from_samples(generator):
    """As the learner takes it: a sample of each side at every row."""
    samples = [each.mean + each.stddev * normals(generator, 40_000) for each in (POLICY, BEHAVIOUR)]
    estimates = dual_kl(*map(best_logits, samples))
    error = estimates.std() / 200
    assert error < 0.01 and (estimates.mean() - kl_divergence(POLICY, BEHAVIOUR)).abs() < 4 * error


def test_dual_kl_far_out_is_finite():
    logits = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    values = dual_kl(logits[:, None], logits[None, :])
    assert values.isfinite().all() and values[0, 0].item() == pytest.approx(math.log(1e-8) + 1)


# slope


def test_gradient_penalty_equals_numeric_slopes(generator):
    """By central differences of every row; weights so large that about half of the slopes exceed 1."""
    initialiser = Initialiser([torch.Generator().manual_seed(seed) for seed in (0, 1)], torch.float64, "cpu")
    discriminator = Critics.create(initialiser, 3, 2, (16, 16), count=1)
    discriminator = discriminator.with_weights([2.5 * weight for weight in discriminator.weights])
    observations, actions, step = normals(generator, 2, 40, 3), normals(generator, 2, 40, 2), 1e-6

    def logits(actions):
        return discriminator(observations, actions)[:, 0]

    moves = step * torch.eye(2, dtype=torch.float64)
    slopes = torch.stack([(logits(actions + move) - logits(actions - move)) / (2 * step) for move in moves], -1)
    size = slopes.square().sum(-1).sqrt()
    assert 10 < (size > 1).sum() < 70
    expected = torch.where(size > 1, (size - 1) ** 2, 0.0)
    torch.testing.assert_close(gradient_penalty(discriminator, observations, actions), expected, rtol=1e-5, atol=1e-6)


def test_gradient_penalty_has_a_gradient_in_the_weights(generator):
    """Against a second derivative by torch.autograd, on nn.Linear: this is what the discriminator learns from."""
    initialiser = Initialiser([torch.Generator().manual_seed(0)], torch.float64, "cpu")
    discriminator = Critics.create(initialiser, 3, 2, (16,), count=1)
    weights = [(4 * weight).requires_grad_() for weight in discriminator.weights]
    observations, actions = normals(generator, 1, 40, 3), normals(generator, 1, 40, 2)
    found = gradient_penalty(discriminator.with_weights(weights), observations, actions)
    first, second = nn.Linear(5, 16, dtype=torch.float64), nn.Linear(16, 1, dtype=torch.float64)
    for layer, weight, bias in ((first, *weights[:2]), (second, *weights[2:])):
        layer.weight.data, layer.bias.data = weight[0, 0].detach().T.clone(), bias[0, 0, 0].detach().clone()
    leaf = actions[0].clone().requires_grad_()
    logits = second(torch.relu(first(torch.cat((observations[0], leaf), -1))))
    (slopes,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
    expected = (torch.sqrt((slopes**2).sum(-1) + 1e-8) - 1).relu() ** 2
    torch.testing.assert_close(found[0].detach(), expected.detach(), rtol=1e-10, atol=1e-12)
    wanted = torch.autograd.grad(expected.mean(), (first.weight, second.weight))
    gradients = torch.autograd.grad(found.mean(), (weights[0], weights[2]))
    for gradient, other in zip(gradients, wanted, strict=True):
        assert other.abs().max() > 0.01
        torch.testing.assert_close(gradient[0, 0], other.T, rtol=1e-10, atol=1e-12)
