"""The dynamics ensemble beside its textbook version: a training step, a whole fit, a rollout."""

import os

import numpy as np
import parts
import textbook
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics, likelihood_loss, regression_rows
from mopo_bench.algorithms.learning.optimisation import Adam, gradient
from mopo_bench.common.streams import torch_stream
from parts import Training, sized

LEARNING_RATE = 1e-3


def layers_of(network):
    """Weights and biases of each layer of our first seed's networks, the two heads last; and the bounds, maximum first."""
    *layers, maximum, minimum = (weight[0] for weight in network.weights)
    return list(zip(layers[::2], layers[1::2], strict=True)), (maximum.flatten(), minimum.flatten())


def copied(network) -> textbook.Ensemble:
    """The textbook's ensemble with the weights of ours."""
    layers, bounds = layers_of(network)
    networks, size_in, _ = layers[0][0].shape
    hidden = [weight.shape[-1] for weight, _ in layers[:-2]]
    twin = textbook.Ensemble(size_in, len(bounds[0]), hidden, networks)
    with torch.no_grad():
        twin.maximum.copy_(bounds[0])
        twin.minimum.copy_(bounds[1])
        for index, each in enumerate(twin.networks):
            for linear, (weight, bias) in zip((*each.layers, each.mean, each.log_variance), layers, strict=True):
                linear.weight.copy_(weight[index].T)
                linear.bias.copy_(bias[index, 0])
    return twin


def stacked(network) -> textbook.Stacked:
    """The ports' ensemble with the weights of ours."""
    (*layers, mean, log_variance), bounds = layers_of(network)
    heads = [torch.cat(pair, -1) for pair in zip(mean, log_variance, strict=True)]
    networks, size_in, _ = layers[0][0].shape
    twin = textbook.Stacked(size_in, len(bounds[0]), [weight.shape[-1] for weight, _ in layers], networks)
    with torch.no_grad():
        twin.maximum.copy_(bounds[0])
        twin.minimum.copy_(bounds[1])
        for index, (weight, bias) in enumerate((*layers, heads)):
            twin.weights[index].copy_(weight)
            twin.biases[index].copy_(bias)
    return twin


def copied_policy(actor) -> textbook.Policy:
    weights = [weight[0] for weight in actor.weights]
    twin = textbook.Policy(weights[0].shape[0], weights[-1].shape[-1] // 2, [weight.shape[-1] for weight in weights[:-2:2]])
    linears = [layer for layer in twin.body if isinstance(layer, torch.nn.Linear)]
    heads = zip(weights[-2].chunk(2, -1), weights[-1].chunk(2, -1), strict=True)
    pairs = [*zip(weights[:-2:2], weights[1:-2:2], strict=True), *heads]
    with torch.no_grad():
        for linear, (weight, bias) in zip((*linears, twin.mean, twin.log_std), pairs, strict=True):
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias[0])
    return twin


class Fitting:
    """Training steps on the batch's rows at the same indices, ours and the plain ones, from the same weights."""

    def __init__(self):
        problem, self.config = parts.the_problem(), parts.configs("mopo")["dynamics"]
        self.rows = regression_rows(problem, torch.float32, "cpu")
        self.size_in, self.observation_size = problem.observation_size + problem.action_size, problem.observation_size
        self.inputs, self.targets = self.rows[:, : self.size_in].numpy(), self.rows[:, self.size_in :].numpy()
        self.indices = torch.randint(len(self.rows), (self.config.networks, self.config.batch_size))
        self.network = parts.ensemble_network(problem, self.config)
        self.textbook, self.stacked = copied(self.network), stacked(self.network)
        decays, variance_decay = self.config.weight_decays, self.config.variance_weight_decay
        self.adam = Adam(self.network.weights, LEARNING_RATE, self.network.decays(decays, variance_decay))
        self.textbook_adam = self.textbook.optimiser(LEARNING_RATE, decays, variance_decay)
        self.stacked_adam = torch.optim.Adam(self.stacked.parameters(), lr=LEARNING_RATE)

    def step(self):
        batch = self.rows[self.indices][None]
        inputs, targets = batch[..., : self.size_in], batch[..., self.size_in :]
        gradients, _, _ = gradient(self.network, lambda trained: likelihood_loss(trained, inputs, targets))
        self.adam.step(self.network.weights, gradients)

    def textbook_step(self):
        textbook.train_step(self.textbook, self.textbook_adam, self.rows, self.indices, self.size_in)

    def stacked_step(self):
        rows, decays = (self.inputs, self.targets, self.indices.numpy()), self.config.weight_decays
        textbook.stacked_train_step(self.stacked, self.stacked_adam, *rows, decays)


def test_the_plain_versions_do_the_same():
    """From the same weights: the loss, the outputs after some steps, and what rollouts are told."""
    fitting = Fitting()
    batch = fitting.rows[fitting.indices]
    inputs, targets = batch[..., : fitting.size_in], batch[..., fitting.size_in :]
    dynamics = parts.untrained_dynamics(parts.the_problem(), fitting.config)
    observations, actions = inputs[0, :, : fitting.observation_size], inputs[0, :, fitting.observation_size :]
    expected = [each[0] for each in dynamics.predict(observations[None], actions[None])]
    for twin in (copied(dynamics.network), stacked(dynamics.network)):
        plain = textbook.Dynamics(twin, np.float32(0), np.float32(1), range(5), 1.0)
        found = plain.predict(observations.numpy(), actions.numpy())
        torch.testing.assert_close([torch.as_tensor(each) for each in found], expected, rtol=1e-4, atol=1e-4)
    loss = likelihood_loss(fitting.network, inputs[None], targets[None])[0]
    for twin in (fitting.textbook, fitting.stacked):
        torch.testing.assert_close(twin.loss(inputs, targets), loss, rtol=1e-4, atol=1e-4)
    for _ in range(5):
        fitting.step()
        fitting.textbook_step()
        fitting.stacked_step()
    expected = [each[0] for each in fitting.network(inputs[None])]
    # loosely: Adam's first steps are as long as the learning rate, whichever way a gradient of nearly 0 points
    by_network = [torch.stack(each) for each in zip(*fitting.textbook(inputs), strict=True)]
    torch.testing.assert_close(by_network, expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(list(fitting.stacked(inputs)), expected, rtol=1e-2, atol=1e-2)


def test_dynamics_step(side_by_side):
    fitting, count = Fitting(), sized(20, 2)

    def repeated(step):
        return lambda: [step() for _ in range(count)]

    side_by_side(
        "dynamics training step",
        repeated(fitting.step),
        {"textbook": repeated(fitting.textbook_step), "ports": repeated(fitting.stacked_step)},
        rounds=sized(8, 3),
        units=count,
        unit="ms",
        goal=(1.8, 2.5),
        flops=parts.flops_of(fitting.step),
        ours_includes="drawing the rows of each network, loss, gradients, Adam",
        peer_includes="the same",
    )


def test_dynamics_fit(side_by_side):
    """A fit of a few epochs, with the error it reaches; MOPO_BENCH_FIT_EPOCHS=0 fits until it stops by itself."""
    epochs = int(os.environ.get("MOPO_BENCH_FIT_EPOCHS", sized(3, 1)))
    problem, config = parts.the_problem(), parts.configs("mopo", **{"dynamics.max_epochs": epochs or None})["dynamics"]
    errors = {"ours": [], "peer": []}
    seeds = {"ours": iter(range(100)), "peer": iter(range(100))}

    def ours():
        _, record = Dynamics.fit(problem, config, next(seeds["ours"]))
        errors["ours"].append((np.mean(record["holdout_error"]), record["epochs"]))

    def peer():
        seed = next(seeds["peer"])
        rows = regression_rows(problem, torch.float32, "cpu")
        inputs, targets = rows.split((problem.observation_size + problem.action_size, problem.observation_size + 1), 1)
        order = torch.randperm(len(inputs), generator=torch_stream(seed, "dynamics", "holdout"))
        _, found, made = textbook.fit(inputs, targets, order, config, seed)
        errors["peer"].append((np.mean(found), made))

    fitted: dict[str, object] = {}
    side_by_side(
        f"dynamics fit on {len(problem.dataset):,} rows, " + (f"{epochs} epochs" if epochs else "until it stops"),
        ours,
        {"textbook": peer},
        rounds=sized(2 if epochs else 1, 1),
        unit="s",
        goal=(2.0, 3.0),
        warm_up=False,
        both_backends=False,
        fitted=fitted,
        ours_includes="from the batch's arrays to the best weights of each network, holdout error after each epoch",
        peer_includes="the same, with the same holdout rows",
    )
    # the same dict stands in the record; the values come with the last round
    for side, values in errors.items():
        fitted[f"{side}_holdout_error"], fitted[f"{side}_epochs"] = np.mean(values, 0).tolist()
        fitted[f"{side}_holdout_error_by_seed"] = [float(error) for error, _ in values]


def test_rollout(side_by_side):
    states = sized(50_000, 2_000)
    training = Training("mopo", rollout_states=states)
    experience, config, observations = training.experience, training.experience.config, parts.the_problem().dataset.observations
    dynamics, policy = experience.dynamics, copied_policy(training.learner.actor)
    facts = np.float32(0), np.float32(1), dynamics.elites[0].tolist(), config.penalty_coefficient
    buffer = textbook.Buffer(experience.ring.capacity, observations.shape[1], parts.the_problem().action_size)

    def plain(ensemble):
        model = textbook.Dynamics(ensemble, *facts)
        return lambda: textbook.roll_out(model, policy, observations, buffer, states, config.rollout_length)

    side_by_side(
        f"rollout of {states:,} x {config.rollout_length}",
        lambda: experience.refresh(0, training.learner),
        {"ports": plain(stacked(dynamics.network)), "textbook": plain(copied(dynamics.network))},
        rounds=2,
        unit="s",
        goal=(6.0, 10.0),
        warm_up=False,
        ours_includes="states in chunks, all as tensors, rows to the ring",
        peer_includes="all states at once, numpy between policy, ensemble, sample and buffer at every step",
    )
