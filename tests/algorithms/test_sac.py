"""SAC against an independent reference: nn.Linear, autograd, torch.optim and torch.distributions."""

import copy

import pytest
import torch
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group
from support import TensorFlowAdam, assert_weights, module
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

SEEDS = (3, 8)


class Reference:
    """One seed of SAC, with the target entropy and the losses of arXiv 1812.05905, sections 4 to 6."""

    def __init__(self, learner, index, target_entropy):
        self.actor = module([weight[index] for weight in learner.actor.weights])
        members = [[weight[index, member] for weight in learner.critic.weights] for member in (0, 1)]
        self.critics = nn.ModuleList(module(member) for member in members)
        self.targets = copy.deepcopy(self.critics)
        self.log_temperature = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.target_entropy = target_entropy
        self.actor_optimiser = TensorFlowAdam(self.actor.parameters(), 3e-4)
        self.critic_optimiser = TensorFlowAdam(self.critics.parameters(), 3e-4)
        self.temperature_optimiser = TensorFlowAdam([self.log_temperature], 3e-4)

    def sample(self, states, noise):
        mean, log_std = self.actor(states).chunk(2, -1)
        gaussian = Normal(mean, log_std.clamp(-20, 2).exp())
        squashed = TransformedDistribution(gaussian, TanhTransform(cache_size=1))
        action = squashed.transforms[0](mean + gaussian.stddev * noise)
        return action, squashed.log_prob(action).sum(-1)

    @staticmethod
    def smaller(critics, states, actions):
        first, second = (critic(torch.cat((states, actions), -1))[:, 0] for critic in critics)
        return torch.minimum(first, second)

    def train(self, batch, index, next_noise, now_noise):
        states, actions, rewards = batch.observations[index], batch.actions[index], batch.rewards[index]
        temperature = self.log_temperature.exp().detach()
        with torch.no_grad():
            next_actions, next_log_prob = self.sample(batch.next_observations[index], next_noise)
            next_value = self.smaller(self.targets, batch.next_observations[index], next_actions)
            target = rewards + 0.99 * batch.alive[index] * (next_value - temperature * next_log_prob)
        inputs = torch.cat((states, actions), -1)
        critic_loss = sum(0.5 * nn.functional.mse_loss(critic(inputs)[:, 0], target) for critic in self.critics)
        self.apply(self.critic_optimiser, critic_loss)
        own_actions, log_prob = self.sample(states, now_noise)
        actor_loss = (temperature * log_prob - self.smaller(self.critics, states, own_actions)).mean()
        self.apply(self.actor_optimiser, actor_loss)
        excess = log_prob.detach() + self.target_entropy
        self.apply(self.temperature_optimiser, -(self.log_temperature * excess).mean())
        for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            old.data = 0.995 * old.data + 0.005 * new.data
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "temperature": temperature,
            "entropy": -log_prob.detach().mean(),
        }

    @staticmethod
    def apply(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("name, target_entropy", [("sac", -2.0), ("mopo", -3.0)])
def test_three_steps_equal_the_reference(name, target_entropy, problem):
    group = Group(get_algorithm(name), problem, SEEDS)
    learner = group.learner
    references = [Reference(learner, index, target_entropy) for index in range(len(SEEDS))]
    group.experience.refresh(0, learner)
    for step in range(3):
        uniform, noise = group.streams.at(step)
        batch = group.experience.draw(uniform)
        assert 0 < batch.alive.mean() < 1  # terminals occur
        metrics = learner.update(batch, noise, learner.phase(step))
        for index, reference in enumerate(references):
            expected = reference.train(batch, index, noise["next"][index], noise["now"][index])
            for key, value in expected.items():
                torch.testing.assert_close(metrics[key][index], value, rtol=1e-10, atol=1e-10, msg=key)
    for index, reference in enumerate(references):
        pairs = [(learner.actor.weights, reference.actor.parameters(), ())]
        for member, (critic, target) in enumerate(zip(reference.critics, reference.targets, strict=True)):
            pairs.append((learner.critic.weights, critic.parameters(), (member,)))
            pairs.append((learner.target.weights, target.parameters(), (member,)))
        assert_weights(index, pairs)
        torch.testing.assert_close(learner.log_temperature()[index, 0], reference.log_temperature.detach(), rtol=0, atol=1e-10)
