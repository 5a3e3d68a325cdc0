"""CQL and COMBO against an independent reference: nn.Linear, autograd, torch.optim and torch.distributions, state by state."""

import copy
import math

import pytest
import torch
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group
from mopo_bench.common.errors import UserError
from support import assert_weights, module
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

SEEDS, STEPS, ACTIONS = (3, 8), 4, 2


class Reference:
    """One seed of CQL(H), arXiv 2006.04779, eq. 4; of COMBO, arXiv 2102.08363, eq. 1, where rows are told apart."""

    def __init__(self, learner, index, weight=5.0, threshold=None, entropy_backup=False, warmup=0):
        self.weight, self.threshold, self.entropy_backup, self.warmup = weight, threshold, entropy_backup, warmup
        self.actor = module([weight[index] for weight in learner.actor.weights])
        members = [[weight[index, member] for weight in learner.critic.weights] for member in (0, 1)]
        self.critics = nn.ModuleList(module(member) for member in members)
        self.targets = copy.deepcopy(self.critics)
        self.log_temperature, self.log_multiplier = (nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        self.multiplier_optimiser = torch.optim.Adam([self.log_multiplier], lr=3e-4)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.temperature_optimiser = torch.optim.Adam([self.log_temperature], lr=1e-4)

    def policy(self, states):
        mean, log_std = self.actor(states).chunk(2, -1)
        gaussian = Normal(mean, log_std.clamp(-20, 2).exp())
        return gaussian, TransformedDistribution(gaussian, TanhTransform(cache_size=1))

    def sample(self, states, noise):
        gaussian, squashed = self.policy(states)
        action = squashed.transforms[0](gaussian.mean + gaussian.stddev * noise)
        return action, squashed.log_prob(action).sum(-1)

    @staticmethod
    def value(critic, states, actions):
        return critic(torch.cat((states, actions), -1))[:, 0]

    def smaller(self, critics, states, actions):
        return torch.minimum(*(self.value(critic, states, actions) for critic in critics))

    def gap(self, critic, state, next_state, anywhere, now, following):
        """log sum exp Q at one state: uniform actions have density 2^-d, those of the policies their own."""
        terms = []
        for uniform in anywhere:
            terms.append(self.value(critic, state[None], 2 * uniform[None] - 1)[0] - math.log(0.5**ACTIONS))
        for seen, noises in ((state, now), (next_state, following)):
            for noise in noises:
                with torch.no_grad():
                    action, log_prob = self.sample(seen[None], noise[None])
                terms.append(self.value(critic, state[None], action)[0] - log_prob[0])
        return torch.stack(terms).exp().sum().log()

    def train(self, batch, noise, index, step, lowered, raised):
        states, actions, next_states = (each[index] for each in (batch.observations, batch.actions, batch.next_observations))
        temperature = self.log_temperature.exp().detach()
        with torch.no_grad():
            next_actions, next_log_prob = self.sample(next_states, noise["next"][index])
            next_value = self.smaller(self.targets, next_states, next_actions)
            if self.entropy_backup:
                next_value = next_value - temperature * next_log_prob
            target = batch.rewards[index] + 0.99 * batch.alive[index] * next_value
        weight = self.weight if self.threshold is None else self.log_multiplier.exp().detach()
        losses, gaps = [], []
        for critic in self.critics:
            values = self.value(critic, states, actions)
            drawn = ([noise[name][index, :, row] for name in ("anywhere", "several now", "several next")] for row in lowered)
            below = [self.gap(critic, states[row], next_states[row], *own) for row, own in zip(lowered, drawn, strict=True)]
            gaps.append(torch.stack(below).mean() - values[raised].mean())
            losses.append(nn.functional.mse_loss(values, target) + weight * gaps[-1])
        self.apply(self.critic_optimiser, sum(losses))
        own_actions, log_prob = self.sample(states, noise["now"][index])
        if step < self.warmup:
            gain = self.policy(states)[1].log_prob(actions.clamp(-1 + 1e-6, 1 - 1e-6)).sum(-1)
        else:
            gain = self.smaller(self.critics, states, own_actions)
        actor_loss = (temperature * log_prob - gain).mean()
        self.apply(self.actor_optimiser, actor_loss)
        self.apply(self.temperature_optimiser, -(self.log_temperature * (log_prob.detach() - ACTIONS)).mean())
        gap = torch.stack(gaps).detach().mean()
        if self.threshold is not None:
            self.apply(self.multiplier_optimiser, -self.log_multiplier.exp() * (gap - self.threshold))
        for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            old.data = 0.995 * old.data + 0.005 * new.data
        return {"critic_loss": sum(losses).detach(), "actor_loss": actor_loss.detach(), "gap": gap}

    @staticmethod
    def apply(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


SETTINGS = [
    ("cql", {"warmup_steps": 2}, {"warmup": 2}),
    ("cql", {"warmup_steps": 0, "entropy_backup": True, "conservative_weight": 0.7}, {"weight": 0.7, "entropy_backup": True}),
    ("cql", {"warmup_steps": 0, "gap_threshold": 4.0}, {"threshold": 4.0}),
    ("combo", {"warmup_steps": 0, "conservative_weight": 0.5, "real_fraction": 0.25}, {"weight": 0.5}),
    ("combo", {"warmup_steps": 0, "lowered_states": "model"}, {}),
]


@pytest.mark.parametrize("name, changes, given", SETTINGS)
def test_steps_equal_the_reference(name, changes, given, problem):
    group = Group(get_algorithm(name), problem, SEEDS, batch_size=8, conservative_samples=3, **changes)
    learner = group.learner
    references = [Reference(learner, index, **given) for index in range(len(SEEDS))]
    group.experience.refresh(0, learner)
    for step in range(STEPS):
        uniform, noise = group.streams.at(step)
        batch = group.experience.draw(uniform)
        real = 8 if name == "cql" else int(8 * changes.get("real_fraction", 0.5))
        assert batch.real_rows == (None if name == "cql" else real)
        lowered = range(real, 8) if "lowered_states" in changes else range(8)
        metrics = learner.update(batch, noise, learner.phase(step))
        for index, reference in enumerate(references):
            expected = reference.train(batch, noise, index, step, lowered, slice(real))
            for key, value in expected.items():
                torch.testing.assert_close(metrics[key][index], value, rtol=1e-9, atol=1e-9, msg=key)
    for index, reference in enumerate(references):
        pairs = [(learner.actor.weights, reference.actor.parameters(), ())]
        for member, (critic, target) in enumerate(zip(reference.critics, reference.targets, strict=True)):
            pairs.append((learner.critic.weights, critic.parameters(), (member,)))
            pairs.append((learner.target.weights, target.parameters(), (member,)))
        assert_weights(index, pairs)
        torch.testing.assert_close(learner.log_temperature()[index, 0], reference.log_temperature.detach(), rtol=0, atol=1e-10)
        if "gap_threshold" in changes:
            assert reference.log_multiplier.abs() > 1e-4
            mine = learner.log_multiplier()[index, 0]
            torch.testing.assert_close(mine, reference.log_multiplier.detach(), rtol=0, atol=1e-10)


def test_the_estimate_is_the_logarithm_of_the_integral(problem):
    """Of exp Q over the box of actions, but for the number of samples; by a fine grid, at one state."""
    samples = 4_000
    group = Group(get_algorithm("cql"), problem, (0,), batch_size=1, conservative_samples=samples)
    learner = group.learner
    for weight in learner.critic.weights:
        weight *= 3  # so that values differ
    uniform, noise = group.streams.at(0)
    batch = group.experience.draw(uniform)
    states, actions, densities = learner._samples(batch, noise, slice(None))
    found = (learner.critic(states, actions).unflatten(-1, densities.shape[1:]) - densities[:, None]).logsumexp(2)[0, :, 0]
    line = (torch.arange(200, dtype=torch.float64) + 0.5) / 100 - 1
    grid = torch.cartesian_prod(line, line)[None]
    values = learner.critic(batch.observations.expand(1, len(grid[0]), -1), grid)[0]
    integral = (values.exp().mean(1) * 4).log()
    assert values.std() > 0.05
    torch.testing.assert_close(found - math.log(3 * samples), integral, rtol=0, atol=0.05)


def test_a_multiplier_rises_while_the_gap_is_too_wide_and_falls_below(problem):
    moved = {}
    for threshold in (0.0, 50.0):
        group = Group(get_algorithm("cql"), problem, (0,), gap_threshold=threshold)
        group.advance(5)
        moved[threshold] = float(group.learner.log_multiplier()[0, 0])
    assert moved[0.0] > 0 > moved[50.0]


def test_the_values_of_other_actions_fall_against_those_of_the_dataset(problem):
    """What the weight is for: the gap after some steps, with it and without."""
    gaps = {}
    for weight in (0.0, 5.0):
        group = Group(get_algorithm("cql"), problem, (0, 1), conservative_weight=weight, critic_learning_rate=3e-3)
        gaps[weight] = group.advance(60)["gap"]
    assert (gaps[5.0] < gaps[0.0]).all()


@pytest.mark.parametrize("real_fraction", [0.0, 1.0])
def test_combo_wants_rows_of_both_kinds(real_fraction, problem):
    group = Group(get_algorithm("combo"), problem, (0,), real_fraction=real_fraction)
    with pytest.raises(UserError, match="real_fraction"):
        group.advance(1)


def test_combo_has_the_model_and_the_rollouts_of_mopo():
    configs = {name: get_algorithm(name).build_configs(get_algorithm(name).configure()) for name in ("combo", "mopo", "cql")}
    assert configs["combo"]["dynamics"] == configs["mopo"]["dynamics"]
    assert configs["combo"]["experience"].real_fraction == 0.5
    assert configs["combo"]["learner"].warmup_steps == 0 < configs["cql"]["learner"].warmup_steps
