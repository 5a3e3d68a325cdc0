"""The dynamics ensemble: its loss and its optimiser against independent forms, and its fit on small problems."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning import dynamics
from mopo_bench.algorithms.learning.dynamics import Dynamics, EnsembleNetwork, likelihood_loss, regression_rows
from mopo_bench.algorithms.learning.networks import Initialiser
from mopo_bench.algorithms.learning.optimisation import Adam, gradient
from mopo_bench.algorithms.learning.testing import check_resumes
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.task import OfflineProblem
from mopo_bench.tasks.terminations import never
from torch.distributions import Normal
from torch.nn import functional

SEEDS, NETWORKS, SIZE_IN, TARGETS = 2, 3, 4, 3
DECAYS = ((2.5e-5, 5e-5, 7.5e-5), 1e-4)


def make_network(hidden=(5, 6), seeds=(0, 1)):
    initialiser = Initialiser([torch.Generator().manual_seed(seed) for seed in seeds], torch.float64, "cpu")
    return EnsembleNetwork.create(initialiser, SIZE_IN, TARGETS, hidden, NETWORKS)


def normals(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def data(generator):
    return normals(generator, SEEDS, NETWORKS, 20, SIZE_IN), normals(generator, SEEDS, NETWORKS, 20, TARGETS)


def forward(weights, inputs):
    """One network of one seed by hand: weights without leading axes."""
    *layers, maximum, minimum = weights
    for index in range(0, len(layers) - 4, 2):
        inputs = inputs @ layers[index] + layers[index + 1]
        inputs = inputs * torch.sigmoid(inputs)
    mean, raw = inputs @ layers[-4] + layers[-3], inputs @ layers[-2] + layers[-1]
    upper = maximum - torch.log1p(torch.exp(maximum - raw))
    return mean, minimum + torch.log1p(torch.exp(upper - minimum))


def test_network_equals_one_by_hand(data):
    inputs, _ = data
    network = make_network()
    mean, log_variance = network(inputs)
    shared_mean, _ = network(inputs[:, :1])
    for seed in range(SEEDS):
        for member in range(NETWORKS):
            weights = [weight[seed, member] for weight in network.weights[:-2]]
            weights += [bound[seed, 0] for bound in network.weights[-2:]]
            expected = forward(weights, inputs[seed, member])
            alone = network.member(seed, member)(inputs[seed, member][None, None])
            for index, value in enumerate((mean, log_variance)):
                torch.testing.assert_close(value[seed, member], expected[index], rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(alone[index][0, 0], expected[index], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(shared_mean[seed, member], forward(weights, inputs[seed, 0])[0])


def test_first_weights():
    """Truncated normal with 1 / (2 sqrt(fan in)), biases of 0, bounds of +0.5 and -10."""
    network = make_network(hidden=(200, 200), seeds=(0,))
    *layers, maximum, minimum = network.weights
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        scale = 1 / (2 * math.sqrt(weight.shape[-2]))
        assert weight.abs().max() <= 2 * scale + 1e-12
        assert not bias.any()
    # the standard deviation of a normal cut at two of its own
    assert float(layers[2].std()) == pytest.approx(0.8796 / (2 * math.sqrt(200)), rel=0.01)
    assert torch.equal(maximum, torch.full_like(maximum, 0.5)) and torch.equal(minimum, torch.full_like(minimum, -10.0))
    assert maximum.shape == minimum.shape == (1, 1, 1, TARGETS)  # shared by the networks


def test_loss_is_the_gaussian_likelihood(data):
    """Twice the negative log-likelihood less log(2 pi), averaged over rows and targets, summed over networks."""
    inputs, targets = data
    network = make_network()
    network.weights[-2] += 0.25
    mean, log_variance = network(inputs)
    log_prob = Normal(mean, (0.5 * log_variance).exp()).log_prob(targets)
    fit = (-2 * log_prob - math.log(2 * math.pi)).mean((2, 3)).sum(1)
    bounds = 0.01 * TARGETS * (0.75 + 10.0)
    torch.testing.assert_close(likelihood_loss(network, inputs, targets), fit + bounds, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("raw, expected", [(60.0, 0.5), (-80.0, -10.0)])
def test_log_variance_is_bounded_softly(raw, expected, data):
    network = make_network()
    network.weights[-3] += raw
    _, log_variance = network(data[0])
    assert log_variance.min() >= -10 and log_variance.max() <= 0.5 + 1e-4  # the lower bound is applied last
    torch.testing.assert_close(log_variance, torch.full_like(log_variance, expected), rtol=0, atol=1e-4)
    _, between = make_network()(data[0])
    assert ((between > -10) & (between < 0.5)).all()


def test_weight_decay_is_half_the_squared_norm(data):
    """Adam with decays against Adam on the loss plus 1/2 decay ||W||^2; biases and bounds have none."""
    inputs, targets = data
    network = make_network()
    decays = network.decays(*DECAYS)
    assert decays == [2.5e-5, 0, 5e-5, 0, 7.5e-5, 0, 1e-4, 0, 0, 0]
    leaves = [weight.clone().requires_grad_() for weight in network.weights]
    scale = 1e3  # or Adam's first step, which knows little but signs, would hide the decay
    optimiser = Adam(network.weights, 1e-3, [scale * decay for decay in decays])
    for _ in range(3):
        gradients, values, _ = gradient(network, lambda trained: likelihood_loss(trained, inputs, targets))
        optimiser.step(network.weights, gradients)
    reference = torch.optim.Adam(leaves, lr=1e-3)
    for _ in range(3):
        reference.zero_grad()
        norms = [0.5 * scale * decay * leaf.square().sum() for decay, leaf in zip(decays, leaves, strict=True)]
        (likelihood_loss(EnsembleNetwork(leaves), inputs, targets).sum() + sum(norms)).backward()
        reference.step()
    for weight, leaf in zip(network.weights, leaves, strict=True):
        torch.testing.assert_close(weight, leaf.detach(), rtol=0, atol=1e-10)
    assert values.shape == (SEEDS,)


@pytest.mark.parametrize("compiling", [False, True])
def test_adam_equals_torch(compiling, generator, monkeypatch):
    """Both of its forms, with decays in groups, over enough steps for the bias corrections to matter."""
    shapes, decays = [(2, 3, 4), (2, 1, 4), (2, 5)], [0.1, 0.0, 0.02]
    weights = [normals(generator, *shape) for shape in shapes]
    leaves = [weight.clone().requires_grad_() for weight in weights]
    optimiser = Adam(weights, 0.01, decays)
    groups = [{"params": [leaf], "weight_decay": decay} for leaf, decay in zip(leaves, decays, strict=True)]
    reference = torch.optim.Adam(groups, lr=0.01)
    for step in range(25):
        gradients = [10.0 ** (-step / 4) * normals(generator, *shape) for shape in shapes]
        with monkeypatch.context() as patched:  # not around the reference, which asks as well
            patched.setattr(torch.compiler, "is_compiling", lambda: compiling)
            optimiser.step(weights, gradients)
        for leaf, value in zip(leaves, gradients, strict=True):
            leaf.grad = value.clone()
        reference.step()
        for weight, leaf in zip(weights, leaves, strict=True):
            torch.testing.assert_close(weight, leaf.detach(), rtol=1e-12, atol=1e-12)
    assert optimiser.count.tolist() == [25]


@pytest.mark.parametrize("compiling", [False, True])
def test_gradient_is_of_one_network_alone(compiling, data, monkeypatch):
    """Both forms; what else is in the loss stays constant, though it may be the same network's weights."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    inputs, _ = data
    network = make_network()
    before = [weight.clone() for weight in network.weights]

    def product(trained):
        return (sum(trained(inputs)) * network(inputs)[0]).flatten(1).sum(1)

    gradients, values, extra = gradient(network, lambda trained: (product(trained), network(inputs)[0]))
    leaves = [weight.clone().requires_grad_() for weight in network.weights]
    expected = torch.autograd.grad(product(EnsembleNetwork(leaves)).sum(), leaves)
    torch.testing.assert_close(tuple(gradients), expected, rtol=1e-12, atol=1e-12)
    assert not values.requires_grad and not extra.requires_grad
    assert all(torch.equal(*pair) for pair in zip(before, network.weights, strict=True))


@pytest.mark.parametrize("compiling", [False, True])
def test_gradient_of_weights_that_a_loss_leaves_out_is_zero(compiling, data, monkeypatch):
    """A loss on the means alone; eager and compiled have to agree on what it is to the variance head."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    gradients, _, _ = gradient(make_network(), lambda trained: trained(data[0])[0].flatten(1).sum(1))
    assert [bool(value.any()) for value in gradients] == [True] * 6 + [False] * 4


# the fit


def linear_problem(rows=3000, seed=0, invalid=()):
    """r = s - 2a + noise of 0.3, s' = 0.9 s + 0.5 a + noise of 0.1; rows in `invalid` have wild successors."""
    draw = np.random.default_rng(seed)
    observations, actions = draw.normal(1.0, 2.0, (rows, 1)), draw.uniform(-1, 1, (rows, 1))
    rewards = observations[:, 0] - 2 * actions[:, 0] + draw.normal(0, 0.3, rows)
    successors = 0.9 * observations + 0.5 * actions + draw.normal(0, 0.1, (rows, 1))
    valid = np.ones(rows, bool)
    for row in invalid:
        valid[row], successors[row] = False, 1e6
    arrays = [array.astype(np.float32) for array in (observations, actions, rewards, successors)]
    flags = np.zeros(rows, bool)
    return OfflineProblem(1, 1, never, 0.99, 100, OfflineDataset(*arrays, flags, flags, valid))


SMALL = Dynamics.Config(networks=4, elites=2, hidden=(16, 16), weight_decays=(1e-5,) * 3, batch_size=128, max_epochs=2)


def fit(problem, config=SMALL, seed=0, report=lambda row: None):
    return Dynamics.fit(problem, config, seed, dtype=torch.float64, report=report)


def test_learns_a_linear_gaussian_system():
    """Its means and, for each target, its noise."""
    problem = linear_problem()
    state, record = fit(problem, replace(SMALL, max_epochs=60, learning_rate=5e-3))
    model = Dynamics(problem, SMALL, [state])
    draw = np.random.default_rng(9)
    observations = torch.tensor(draw.normal(1, 1.5, (1, 500, 1)))
    actions = torch.tensor(draw.uniform(-0.9, 0.9, (1, 500, 1)))
    means, stds = model.predict(observations, actions)
    elites = state["elites"]
    expected = torch.cat((observations - 2 * actions, 0.9 * observations + 0.5 * actions), -1)
    error = (means[0, elites].mean(0) - expected[0]).square().mean(0).sqrt()
    assert error[0] < 0.06 and error[1] < 0.02
    assert stds[0, elites].mean((0, 1)).tolist() == pytest.approx([0.3, 0.1], rel=0.12)
    assert record["holdout_reward_r2"] > 0.95


def holdout_rows(problem, config, seed=0):
    """(inputs, targets) held out, by the stream that names them."""
    rows = regression_rows(problem, torch.float64, "cpu")
    inputs, targets = rows.split((problem.observation_size + problem.action_size, problem.observation_size + 1), 1)
    order = torch.randperm(len(inputs), generator=dynamics.torch_stream(seed, "dynamics", "holdout"))
    count = min(int(len(inputs) * config.holdout_fraction), config.holdout_rows)
    return (inputs[order[:count]], targets[order[:count]]), (inputs[order[count:]], targets[order[count:]])


def test_elites_and_record_follow_from_the_state():
    """Holdout errors, their order and the standardisation, all recomputed from the weights that came back."""
    problem = linear_problem(800)
    state, record = fit(problem)
    (held, targets), (train, _) = holdout_rows(problem, SMALL)
    torch.testing.assert_close(state["input_mean"], train.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["input_std"], train.std(0, unbiased=False), rtol=1e-12, atol=1e-12)
    errors = []
    for member in range(SMALL.networks):
        weights = [weight[member] for weight in state["weights"][:-2]] + [bound[0] for bound in state["weights"][-2:]]
        mean, _ = forward(weights, (held - state["input_mean"]) / state["input_std"])
        errors.append(functional.mse_loss(mean, targets).item())
    assert record["holdout_error"] == pytest.approx(errors, rel=1e-10)
    assert record["elites"] == state["elites"].tolist() == list(np.argsort(errors)[: SMALL.elites])
    best, *others = np.split(np.sort(errors), [SMALL.elites])
    assert record["elite_error_ratio"] == pytest.approx(np.mean(best) / np.mean(others)) and record["elite_error_ratio"] < 1
    assert record["holdout_rows"] == 160 and record["rows"] == 640


def test_what_a_fit_says_of_itself():
    """Errors by target, z-scores and likelihood of the elites on the holdout rows, by torch's own Normal; and its course."""
    problem, rows = linear_problem(800), []
    state, record = fit(problem, replace(SMALL, max_epochs=8), report=rows.append)
    (held, targets), _ = holdout_rows(problem, SMALL)
    model = Dynamics(problem, SMALL, [state])
    means, stds = model.predict(held[None, :, :1], held[None, :, 1:])
    means = torch.cat((means[..., :1], means[..., 1:] - held[:, :1]), -1)[0, state["elites"]]
    predicted = Normal(means, stds[0, state["elites"]])
    z_scores = (targets - predicted.mean) / predicted.stddev
    assert record["holdout_errors"] == pytest.approx((targets - means).square().mean(1).sqrt().mean(0).tolist(), rel=1e-5)
    assert record["holdout_z_scores"] == pytest.approx(z_scores.square().mean(1).sqrt().mean(0).tolist(), rel=1e-5)
    assert record["holdout_z_score"] == pytest.approx(z_scores.square().mean().sqrt().item(), rel=1e-5)
    assert record["holdout_nll"] == pytest.approx(-predicted.log_prob(targets).sum(-1).mean().item(), rel=1e-5)
    assert len(record["learning_curve"]) == 8 and record["learning_curve"][-1] < record["learning_curve"][0]


@pytest.mark.parametrize("epochs, cut_off", [(7, False), (6, True), (None, False)])
def test_a_fit_that_is_cut_off_says_so(epochs, cut_off, monkeypatch):
    """By the number of epochs, before none has improved for more than five of them."""
    monkeypatch.setattr(dynamics, "Adam", Scripted(FLAT * 8))
    _, record = fit(linear_problem(60), replace(SMALL, max_epochs=epochs, batch_size=1000))
    assert record["cut_off"] == cut_off == ("cut off at 6 epochs while it still improved" in record["warning"])


def test_fewer_finite_networks_than_elites(monkeypatch):
    """An elite that was never trained would be sampled like the others."""
    monkeypatch.setattr(dynamics, "Adam", Scripted([[1.0, NAN, NAN, NAN]] * 8))
    with pytest.raises(FloatingPointError, match=r"1 of 4 networks .* in 7 epochs: fewer than its 2 elites"):
        fit(linear_problem(60), replace(SMALL, max_epochs=None, batch_size=1000))


def test_inputs_are_standardised_and_targets_raw():
    """A fitted model called on raw rows gives raw means: those of the network on z-scored inputs, s' by adding s."""
    problem = linear_problem(400)
    state, _ = fit(problem)
    model = Dynamics(problem, SMALL, [state])
    observations, actions = torch.tensor([[[3.0], [-2.0]]]).double(), torch.tensor([[[0.5], [-1.0]]]).double()
    means, stds = model.predict(observations, actions)
    inputs = (torch.cat((observations, actions), -1)[0] - state["input_mean"]) / state["input_std"]
    for member in range(SMALL.networks):
        weights = [weight[member] for weight in state["weights"][:-2]] + [bound[0] for bound in state["weights"][-2:]]
        mean, log_variance = forward(weights, inputs)
        mean = torch.stack((mean[:, 0], mean[:, 1] + observations[0, :, 0]), -1)
        torch.testing.assert_close(means[0, member], mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(stds[0, member], torch.exp(log_variance).sqrt(), rtol=1e-12, atol=1e-12)


def test_a_constant_input_is_left_as_it_is(generator):
    problem = linear_problem(200)
    constant = replace(problem.dataset, actions=np.full((200, 1), 0.25, np.float32))
    state, record = fit(replace(problem, dataset=constant))
    assert state["input_std"][1] == 1 and np.isfinite(record["holdout_error"]).all()


def test_only_valid_rows_are_used():
    """Rows without a successor change nothing, wherever they are: the fit equals the fit without them."""
    problem = linear_problem(300, invalid=(0, 17, 100, 299))
    keep = problem.dataset.valid_next
    columns = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")
    rows = OfflineDataset(*(getattr(problem.dataset, column)[keep] for column in columns))
    state, record = fit(problem)
    expected, _ = fit(replace(problem, dataset=rows))
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
    assert record["rows"] + record["holdout_rows"] == 296


@pytest.mark.parametrize("rows, expected", [(400, 80), (4999, 999), (5000, 1000), (7000, 1000)])
def test_holdout_size(rows, expected):
    config = replace(SMALL, max_epochs=1, batch_size=4096, hidden=(2,), weight_decays=(0.0, 0.0))
    _, record = fit(linear_problem(rows), config)
    assert (record["holdout_rows"], record["rows"]) == (expected, rows - expected)


TARGET = 10.0  # of every row of the scripted fits: far from what untrained networks predict


class Scripted:
    """Stands in for Adam: after the step of epoch k, network i's mean is constant with a holdout error of script[k][i].

    The mean head's bias carries the error; the variance head's bias is marked with the epoch, as are the bounds.
    """

    def __init__(self, script):
        self.script, self.epochs = script, 0

    def __call__(self, weights, learning_rate, decays, form):
        return self

    def step(self, weights, gradients):
        errors = self.script[min(self.epochs, len(self.script) - 1)]
        self.epochs += 1
        for weight in weights:
            weight.zero_()
        weights[-5][0, :, 0, :] = TARGET + torch.tensor(errors, dtype=torch.float64).sqrt()[:, None]
        weights[-3][:] = self.epochs
        weights[-2][:] = self.epochs
        weights[-1][:] = -self.epochs


def stops_after(script, patience=5, improvement=0.01):
    """Epochs, each network's best epoch and best error, by the rule of the authors' code in plain Python."""
    best, best_epoch, without = [math.inf] * len(script[0]), [0] * len(script[0]), 0
    for epoch, errors in enumerate(script, 1):
        without += 1
        for network, error in enumerate(errors):
            if math.isfinite(error) and (best[network] == math.inf or best[network] - error > improvement * best[network]):
                best[network], best_epoch[network], without = error, epoch, 0
        if without > patience:
            return epoch, best_epoch, best
    raise AssertionError("the script is too short")


FLAT = [[1.0, 2.0, 3.0, 4.0]]
NAN = math.nan
SCRIPTS = {
    "flat": FLAT * 8,
    "one improves late": FLAT * 6 + [[1.0, 2.0, 3.0, 3.9]] + FLAT * 8,
    "one improves too late": FLAT * 7 + [[1.0, 2.0, 3.0, 0.1]] + FLAT * 8,
    "by less than 1 %": FLAT + [[0.9901, 1.99, 2.98, 3.97]] * 9,
    "by 1 % since the best, not since the last": FLAT + [[0.995, 2, 3, 4], [0.9899, 2, 3, 4]] + FLAT * 8,
    "worse again": [[4.0, 4.0, 4.0, 4.0], [1.0, 3.0, 2.5, 5.0], [3.0, 0.5, 2.4, 6.0]] + [[9.0, 9.0, 9.0, 9.0]] * 8,
    "a network that is never finite": [[2.0, NAN, 1.0, 3.0], [1.0, NAN, 2.0, 4.0]] + [[5.0, NAN, 5.0, 5.0]] * 8,
    "not finite at first": [[2.0, NAN, 1.0, 3.0], [1.0, 0.5, 2.0, 4.0]] + [[5.0, NAN, 5.0, 5.0]] * 8,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_early_stopping_and_best_weights(script, monkeypatch):
    """The whole rule on scripted holdout errors: when it stops, which weights return, which are the elites."""
    problem = linear_problem(60)
    zeros = np.zeros((60, 1), np.float32)
    constant = {"observations": zeros, "next_observations": zeros + TARGET, "rewards": zeros[:, 0] + TARGET}
    problem = replace(problem, dataset=replace(problem.dataset, **constant))
    monkeypatch.setattr(dynamics, "Adam", Scripted(script))
    rows = []
    state, record = fit(problem, replace(SMALL, max_epochs=None, batch_size=1000), report=rows.append)
    epochs, best_epoch, best = stops_after(script)
    assert record["epochs"] == len(rows) == epochs
    finite = [network for network in range(4) if best_epoch[network]]
    assert [record["holdout_error"][network] for network in finite] == pytest.approx([best[n] for n in finite])
    assert state["weights"][-3][finite, 0, 0].tolist() == [best_epoch[network] for network in finite]
    assert record["elites"] == sorted(finite, key=lambda network: best[network])[:2]
    # the bounds are not restored: they are those of the last epoch
    assert state["weights"][-2].unique().tolist() == [epochs] and state["weights"][-1].unique().tolist() == [-epochs]


def test_bootstrap_is_by_network_and_with_replacement(monkeypatch):
    """Each network sees as many rows an epoch as there are, some more than once, and the same ones every epoch."""
    seen = []
    original = dynamics.likelihood_loss

    def watched(network, inputs, targets):
        seen.append(inputs.detach()[0, :, :, 0].clone())
        return original(network, inputs, targets)

    monkeypatch.setattr(dynamics, "likelihood_loss", watched)
    fit(linear_problem(400), replace(SMALL, batch_size=100))
    epochs = [torch.cat(seen[first : first + 4], 1) for first in (0, 4)]
    assert [part.shape[1] for part in seen] == [100, 100, 100, 20] * 2  # 320 rows
    first, second = (epoch.sort(1).values for epoch in epochs)
    assert torch.equal(first, second) and not torch.equal(epochs[0], epochs[1])
    distinct = [len(row.unique()) / 320 for row in first]
    assert distinct == pytest.approx([1 - math.exp(-1)] * 4, abs=0.08)
    assert not torch.equal(first[0], first[1])


# sampling


@pytest.fixture
def model(generator):
    """Two seeds, their elites different, of unfitted networks."""
    config = Dynamics.Config(networks=5, elites=3, hidden=(8, 8), weight_decays=(0.0,) * 3)
    states = []
    for seed, elites in enumerate(([4, 0, 2], [1, 3, 4])):
        initialiser = Initialiser([torch.Generator().manual_seed(seed)], torch.float64, "cpu")
        weights = [weight[0] for weight in EnsembleNetwork.create(initialiser, 5, 4, (8, 8), 5).weights]
        mean, std = normals(generator, 5), normals(generator, 5).exp()
        states.append({"weights": weights, "input_mean": mean, "input_std": std, "elites": torch.tensor(elites)})

    def ends(observations, actions, next_observations):
        return next_observations[..., 0] > 0.5

    return Dynamics(OfflineProblem(3, 2, ends, 0.99, 10, None), config, states)


def draws(generator, count):
    observations, actions = normals(generator, 2, count, 3), normals(generator, 2, count, 2)
    uniform = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return observations, actions, uniform, normals(generator, 2, count, 4)


def test_sample_is_the_chosen_elite_s_gaussian(model, generator):
    observations, actions, uniform, noise = draws(generator, 60)
    drawn = model.sample(observations, actions, uniform, noise)
    for seed in range(2):
        for row in range(60):
            network = int(model.elites[seed, int(uniform[seed, row] * 3)])
            mean, std = drawn.means[seed, network, row], drawn.stds[seed, network, row]
            expected = mean + std * noise[seed, row]
            torch.testing.assert_close(drawn.rewards[seed, row], expected[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(drawn.next_observations[seed, row], expected[1:], rtol=1e-12, atol=1e-12)
            assert drawn.mean_rewards[seed, row] == mean[0]
            assert drawn.terminals[seed, row] == (expected[1] > 0.5)  # of the sampled state
    assert 0 < drawn.terminals.double().mean() < 1


def test_computing_the_chosen_only_gives_the_same_sample(model, generator):
    given = draws(generator, 200)
    every, chosen = model.sample(*given), model.sample(*given, all_networks=False)
    assert chosen.means is None and chosen.stds is None
    for name in ("rewards", "next_observations", "terminals", "mean_rewards"):
        torch.testing.assert_close(getattr(chosen, name), getattr(every, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("all_networks", [True, False])
def test_elites_only_and_each_about_equally_often(all_networks, model, generator):
    """Each network's reward is made its number, so that a sample without noise tells who was asked."""
    count = 3000
    model.network.weights[-6].zero_()
    model.network.weights[-5][:, :, 0, 0] = torch.arange(5.0, dtype=torch.float64)
    observations, actions, uniform, noise = draws(generator, count)
    uniform[:, 0], uniform[:, 1] = 0.0, 1 - 2.0**-53
    asked = model.sample(observations, actions, uniform, 0 * noise, all_networks).rewards
    for seed, elites in enumerate(([4, 0, 2], [1, 3, 4])):
        networks, counts = asked[seed].long().unique(return_counts=True)
        assert networks.tolist() == sorted(elites)
        assert (counts / count).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
        assert (asked[seed, 0], asked[seed, 1]) == (elites[0], elites[-1])


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"elites": 8}, "between 1 and networks=7"),
        ({"elites": 0}, "between 1"),
        ({"hidden": (64,)}, "expected 2 numbers"),
    ],
)
def test_settings_that_do_not_fit(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Dynamics.Config(**wrong)


def test_a_stopped_fit_goes_on(problem):
    check_resumes(Dynamics, problem, replace(SMALL, max_epochs=12), at=4)
