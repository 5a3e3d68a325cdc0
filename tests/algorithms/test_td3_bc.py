"""The contract's acceptance test: TD3+BC written as an outsider would, in under 80 lines."""

import copy
import inspect
from dataclasses import dataclass

import pytest
import torch
from mopo_bench.algorithms.learning.learner import Batch, Learner, per_seed
from mopo_bench.algorithms.learning.networks import Critics, DeterministicActor
from mopo_bench.algorithms.learning.registry import all_algorithms, get_algorithm, register_algorithm
from mopo_bench.testing import Group, check_compiles, check_contract
from torch import Tensor, nn
from torch.nn import functional


class TD3BC(Learner):
    """TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), with states standardised over the batch."""

    @dataclass(frozen=True)
    class Config:
        batch_size: int = 256
        hidden: tuple[int, ...] = (256, 256)
        learning_rate: float = 3e-4
        tau: float = 0.005
        alpha: float = 2.5
        smoothing: float = 0.2
        smoothing_clip: float = 0.5
        actor_delay: int = 2

    def build(self):
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        observations = torch.tensor(self.problem.dataset.observations, dtype=self.dtype, device=self.device)
        self.mean, self.std = observations.mean(0), observations.std(0, correction=0) + 1e-3
        actor = DeterministicActor.create(self.initialise, *sizes, config.hidden)
        critic = Critics.create(self.initialise, *sizes, config.hidden)
        self.actor = self.trainable(actor, config.learning_rate)
        self.critic = self.trainable(critic, config.learning_rate)
        self.slow_actor, self.slow_critic = self.slow_copy(actor), self.slow_copy(critic)

    def noise(self):
        return {"smoothing": (self.config.batch_size, self.problem.action_size)}

    def phase(self, step):
        return "critic and actor" if (step + 1) % self.config.actor_delay == 0 else "critic"

    def update(self, batch, noise, phase):
        config = self.config
        observations = self.standardised(batch.observations)
        next_observations = self.standardised(batch.next_observations)
        smoothing = (config.smoothing * noise["smoothing"]).clamp(-config.smoothing_clip, config.smoothing_clip)
        next_actions = (self.slow_actor(next_observations) + smoothing).clamp(-1, 1)
        next_value = self.slow_critic(next_observations, next_actions).amin(1)
        target = batch.rewards + self.problem.discount * batch.alive * next_value

        def critic_loss(critic):
            values = critic(observations, batch.actions)
            return per_seed((values - target[:, None]).square().sum(1))

        metrics = {"critic_loss": self.minimise(self.critic, critic_loss)}
        if phase == "critic":
            return metrics
        value = self.critic(observations, self.actor(observations))[:, 0]
        scale = config.alpha / per_seed(value.abs())

        def actor_loss(actor):
            actions = actor(observations)
            value = self.critic(observations, actions)[:, 0]
            return per_seed((actions - batch.actions).square()) - scale * per_seed(value)

        metrics["actor_loss"] = self.minimise(self.actor, actor_loss)
        self.follow(self.slow_actor, self.actor, config.tau)
        self.follow(self.slow_critic, self.critic, config.tau)
        return metrics

    def act(self, observations, noise=None):
        return self.actor(self.standardised(observations))

    def standardised(self, observations):
        return (observations - self.mean) / self.std


@pytest.fixture
def algorithm():
    yield register_algorithm("td3-bc", TD3BC)
    del all_algorithms()["td3-bc"]


def test_fits_in_under_80_lines():
    assert len(inspect.getsource(TD3BC).splitlines()) < 80


def test_registers_and_keeps_the_contract(algorithm, problem):
    assert get_algorithm("td3-bc") is algorithm
    assert algorithm.origin == __name__
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
