"""IQL against an independent reference, its actor against torch.distributions, and the scale of its rewards."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.iql import BoundedMeanActor
from mopo_bench.algorithms.learning.networks import Initialiser
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group
from mopo_bench.common.errors import UserError
from support import assert_weights, module
from torch import nn
from torch.distributions import Independent, Normal

SEEDS = (3, 8)


class Reference:
    """One seed of IQL: arXiv 2110.06169, eq. 5 to 7, in the order of the authors' code."""

    def __init__(self, learner, index, expectile, beta, limit):
        self.expectile, self.beta, self.limit = expectile, beta, limit
        self.mean = module([weight[index] for weight in learner.actor.weights[:-1]])
        self.log_std = nn.Parameter(learner.actor.weights[-1][index, 0].clone())
        self.value = module([weight[index] for weight in learner.value.weights])
        members = [[weight[index, member] for weight in learner.critic.weights] for member in (0, 1)]
        self.critics = nn.ModuleList(module(member) for member in members)
        self.targets = copy.deepcopy(self.critics)
        own = ([*self.mean.parameters(), self.log_std], self.value.parameters(), self.critics.parameters())
        self.optimisers = [torch.optim.Adam(parameters, lr=3e-4) for parameters in own]

    def train(self, batch, index):
        states, actions = batch.observations[index], batch.actions[index]
        pairs = torch.cat((states, actions), -1)
        smaller = torch.minimum(*(target(pairs)[:, 0] for target in self.targets)).detach()
        above = smaller - self.value(states)[:, 0]
        value_loss = torch.stack([(self.expectile if u > 0 else 1 - self.expectile) * u * u for u in above]).mean()
        self.apply(self.optimisers[1], value_loss)
        with torch.no_grad():
            weight = torch.exp(self.beta * (smaller - self.value(states)[:, 0]))
            weight = torch.minimum(weight, torch.full_like(weight, self.limit))
            target = batch.rewards[index] + 0.99 * batch.alive[index] * self.value(batch.next_observations[index])[:, 0]
        policy = Independent(Normal(torch.tanh(self.mean(states)), self.log_std.clamp(-5, 2).exp()), 1)
        actor_loss = -(weight * policy.log_prob(actions)).mean()
        self.apply(self.optimisers[0], actor_loss)
        critic_loss = sum(nn.functional.mse_loss(critic(pairs)[:, 0], target) for critic in self.critics)
        self.apply(self.optimisers[2], critic_loss)
        for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            old.data = 0.995 * old.data + 0.005 * new.data
        losses = {"value_loss": value_loss, "actor_loss": actor_loss, "critic_loss": critic_loss, "weight": weight.mean()}
        return {name: loss.detach() for name, loss in losses.items()}

    @staticmethod
    def apply(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("expectile, beta, limit", [(0.7, 3.0, 100.0), (0.9, 10.0, 1.2)])
def test_steps_equal_the_reference(expectile, beta, limit, problem):
    changes = {"expectile": expectile, "inverse_temperature": beta, "weight_limit": limit}
    group = Group(get_algorithm("iql"), problem, SEEDS, **changes)
    learner = group.learner
    references = [Reference(learner, index, expectile, beta, limit) for index in range(len(SEEDS))]
    for step in range(5):
        batch = group.experience.draw(group.streams.at(step)[0])
        metrics = learner.update(batch, {}, learner.phase(step))
        for index, reference in enumerate(references):
            for key, value in reference.train(batch, index).items():
                torch.testing.assert_close(metrics[key][index], value, rtol=1e-10, atol=1e-10, msg=key)
    for index, reference in enumerate(references):
        pairs = [
            (learner.actor.weights[:-1], reference.mean.parameters(), ()),
            (learner.value.weights, reference.value.parameters(), ()),
        ]
        for member, (critic, target) in enumerate(zip(reference.critics, reference.targets, strict=True)):
            pairs.append((learner.critic.weights, critic.parameters(), (member,)))
            pairs.append((learner.target.weights, target.parameters(), (member,)))
        assert_weights(index, pairs)
        assert reference.log_std.abs().min() > 0
        torch.testing.assert_close(learner.actor.weights[-1][index, 0], reference.log_std.detach(), rtol=0, atol=1e-10)


def test_the_actor_is_a_gaussian_cut_to_the_box(generator):
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    actor = BoundedMeanActor.create(Initialiser(generators, torch.float64, "cpu"), 3, 2, (8,), (-5.0, 2.0))
    actor.weights[-1] += torch.tensor([-9.0, 0.3]).double()  # the first beyond the range
    observations, actions, noise = (torch.randn(2, 20, size, generator=generator, dtype=torch.float64) for size in (3, 2, 2))
    mean = actor.mode(observations)
    std = torch.tensor([-5.0, 0.3], dtype=torch.float64).exp()
    expected = Independent(Normal(mean, std.expand_as(mean)), 1).log_prob(torch.tanh(actions))
    torch.testing.assert_close(actor.log_prob(observations, torch.tanh(actions)), expected)
    assert mean.abs().max() < 1
    sampled = actor.sample(observations, 5 * noise)
    assert sampled.abs().max() == 1
    torch.testing.assert_close(sampled, (mean + std * 5 * noise).clamp(-1, 1))


def episodes_of(dataset):
    returns, total = [], 0.0
    for reward, terminal, timeout in zip(dataset.rewards, dataset.terminals, dataset.timeouts, strict=True):
        total += float(reward)
        if terminal or timeout:
            returns.append(total)
            total = 0.0
    return returns + [total] * (not (terminal or timeout))


def test_rewards_are_scaled_by_the_spread_of_returns(problem):
    """As the authors' code does on MuJoCo, with 1000 steps: there 1000 / (max - min); the dataset's own rows stay."""
    before = problem.dataset.rewards.copy()
    scaled = Group(get_algorithm("iql"), problem, (0,)).experience
    plain = Group(get_algorithm("iql"), problem, (0,), scaled_rewards=False).experience
    returns = episodes_of(problem.dataset)
    factor = problem.max_episode_steps / (max(returns) - min(returns))
    assert factor != pytest.approx(1)
    rewards = scaled.layout.rewards
    torch.testing.assert_close(scaled.table[:, rewards], plain.table[:, rewards] * factor, rtol=1e-6, atol=0)
    others = [column for column in range(scaled.layout.width) if column != rewards]
    assert torch.equal(scaled.table[:, others], plain.table[:, others])
    np.testing.assert_array_equal(problem.dataset.rewards, before)


def test_episodes_that_return_the_same_have_no_scale(problem):
    dataset = replace(problem.dataset, rewards=np.zeros_like(problem.dataset.rewards))
    with pytest.raises(UserError, match="scaled_rewards=false") as refused:
        Group(get_algorithm("iql"), replace(problem, dataset=dataset), (0,))
    assert "\n" not in str(refused.value)
    Group(get_algorithm("iql"), replace(problem, dataset=dataset), (0,), scaled_rewards=False)


def test_at_inverse_temperature_0_it_clones(problem):
    """All weights are 1, whatever the critics say."""
    metrics = Group(get_algorithm("iql"), problem, SEEDS, inverse_temperature=0.0).advance(10)
    assert torch.equal(metrics["weight"], torch.ones(2, dtype=torch.float64))
