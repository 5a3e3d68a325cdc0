"""The contract's acceptance test: TD3+BC written as an outsider would, in under 80 lines, in `examples/`."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from mopo_bench.algorithms.learning.learner import Batch
from mopo_bench.algorithms.learning.registry import all_algorithms, get_algorithm
from mopo_bench.testing import Group, check_compiles, check_contract
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "td3_bc"


@pytest.fixture(scope="module")
def algorithm():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        importlib.import_module("td3_bc")
    yield get_algorithm("td3-bc")
    del all_algorithms()["td3-bc"]


def test_fits_in_under_80_lines():
    assert len((FOLDER / "td3_bc.py").read_text().splitlines()) < 80


def test_registers_and_keeps_the_contract(algorithm, problem):
    assert algorithm.origin == "td3_bc" and algorithm.title == "TD3+BC"
    check_contract(algorithm)


@pytest.mark.slow
def test_compiles_into_one_graph_per_phase(algorithm, problem):
    check_compiles(algorithm, problem)


class Perceptron(nn.Module):
    """An nn.Sequential with the weights of seed 0 of an `MLP`, of its member `member` where it is an ensemble."""

    def __init__(self, weights, member=None):
        super().__init__()
        layers = []
        for weight, bias in zip(weights[::2], weights[1::2], strict=True):
            weight, bias = (weight[0], bias[0]) if member is None else (weight[0, member], bias[0, member])
            layer = nn.Linear(*weight.shape, dtype=weight.dtype)
            layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, *inputs):
        return self.layers(torch.cat(inputs, -1))

    def as_weights(self):
        for layer in self.layers[::2]:
            yield from (layer.weight.detach().T, layer.bias.detach()[None])


class Reference:
    """TD3+BC by nn.Module, autograd, detach and torch.optim, in the order of the authors' `TD3_BC.py`."""

    def __init__(self, learner):
        observations = torch.tensor(learner.problem.dataset.observations, dtype=torch.float64)
        self.mean, self.std = observations.mean(0), observations.std(0, unbiased=False) + 1e-3
        self.actor = Perceptron(learner.actor.weights)
        self.critics = nn.ModuleList(Perceptron(learner.critic.weights, member) for member in (0, 1))
        self.slow_actor, self.slow_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        self.steps = 0

    def train(self, batch: Batch, noise: Tensor):
        self.steps += 1
        state, action = (batch.observations[0] - self.mean) / self.std, batch.actions[0]
        next_state = (batch.next_observations[0] - self.mean) / self.std
        with torch.no_grad():
            next_action = (torch.tanh(self.slow_actor(next_state)) + (noise[0] * 0.2).clamp(-0.5, 0.5)).clamp(-1, 1)
            first, second = (critic(next_state, next_action)[:, 0] for critic in self.slow_critics)
            target = batch.rewards[0] + batch.alive[0] * 0.99 * torch.min(first, second)
        losses = [functional.mse_loss(critic(state, action)[:, 0], target) for critic in self.critics]
        self.critic_optimiser.zero_grad()
        sum(losses).backward()
        self.critic_optimiser.step()
        if self.steps % 2:
            return
        pi = torch.tanh(self.actor(state))
        value = self.critics[0](state, pi)
        loss = -2.5 / value.abs().mean().detach() * value.mean() + functional.mse_loss(pi, action)
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        for slow, fast in ((self.slow_actor, self.actor), (self.slow_critics, self.critics)):
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.data.copy_(0.005 * new.data + 0.995 * old.data)


def test_steps_equal_plain_autograd(algorithm, problem):
    """Four steps: the actor moves in every second one only."""
    group = Group(algorithm, problem, [4])
    learner, reference = group.learner, Reference(group.learner)
    actor_before = [weight.clone() for weight in learner.actor.weights]
    for step in range(4):
        uniform, noise = group.streams.at(step)
        batch = group.experience.draw(uniform)
        metrics = learner.update(batch, noise, learner.phase(step))
        reference.train(batch, noise["smoothing"])
        assert ("actor_loss" in metrics) == (step % 2 == 1)
        if step == 0:
            assert all(torch.equal(*pair) for pair in zip(actor_before, learner.actor.weights, strict=True))
    expected = {"actor": reference.actor, "slow_actor": reference.slow_actor}
    for name, module in expected.items():
        for weight, other in zip(getattr(learner, name).weights, module.as_weights(), strict=True):
            torch.testing.assert_close(weight[0], other, rtol=0, atol=1e-12)
    for name, modules in (("critic", reference.critics), ("slow_critic", reference.slow_critics)):
        members = (each.as_weights() for each in modules)
        for weight, *others in zip(getattr(learner, name).weights, *members, strict=True):
            torch.testing.assert_close(weight[0], torch.stack(others), rtol=0, atol=1e-12)
