"""RAMBO against an independent reference: the model's steps by autograd and torch.distributions, network by network."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group, check_resumes, fitted, saved_and_loaded
from mopo_bench.algorithms.rambo import AdversarialRollouts, ClonedPolicy, Cloning, log_density, standardised
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.common.streams import torch_stream
from support import TensorFlowAdam, assert_weights, module
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

SEEDS, OBSERVATIONS, ACTIONS, BATCH, EVERY, LENGTH = (3, 8), 3, 2, 24, 5, 2
SETTINGS = {"rollout_every": EVERY, "rollout_length": LENGTH, "rollout_states": 30}
DECAYS = (2.5e-5, 5e-5, 1e-4, 1e-4)  # of the two layers and both heads


def rambo(problem, seeds=SEEDS, **changes):
    return Group(get_algorithm("rambo"), problem, seeds, **{**SETTINGS, **changes})


class ReferenceModel:
    """One seed's ensemble as leaves of autograd, and the arithmetic of arXiv 2204.12581, equations of section 4, by hand."""

    def __init__(self, group, index, weight):
        dynamics, self.index, self.weight = group.experience.dynamics, index, weight
        self.leaves = [nn.Parameter(each[index].clone()) for each in dynamics.network.weights]
        self.optimiser = TensorFlowAdam(self.leaves, lr=3e-4)
        self.mean, self.std = dynamics.input_mean[index, 0], dynamics.input_std[index, 0]
        self.elites = dynamics.elites[index].tolist()
        self.stream = None

    def gaussian(self, member, states, actions):
        """Of (reward, change of the state)."""
        hidden = (torch.cat((states, actions), -1) - self.mean) / self.std
        *layers, high, low = self.leaves
        layers = [each[member] for each in layers]
        for weight, bias in zip(layers[0:4:2], layers[1:4:2], strict=True):
            hidden = hidden @ weight + bias
            hidden = hidden * torch.sigmoid(hidden)
        mean, spread = hidden @ layers[4] + layers[5], hidden @ layers[6] + layers[7]
        spread = high[0] - torch.log1p(torch.exp(high[0] - spread))
        spread = low[0] + torch.log1p(torch.exp(spread - low[0]))
        return Normal(mean, torch.exp(spread / 2))

    def mixture(self, states, actions):
        each = [self.gaussian(member, states, actions) for member in self.elites]
        parts = Normal(*(torch.stack([getattr(one, of) for one in each], 1) for of in ("mean", "stddev")))
        return MixtureSameFamily(Categorical(torch.ones(len(states), len(each), dtype=torch.float64)), Independent(parts, 1))

    def train(self, group, step, policy, critics, problem):
        """A block of steps, with the same draws; gives the means of both losses."""
        stream, sums = torch_stream(SEEDS[self.index], "adversary", step), np.zeros(2)
        dataset = problem.dataset
        usable = np.flatnonzero(dataset.valid_next | dataset.terminals)
        for number in range(EVERY):
            if number % LENGTH == 0:
                rows = usable[(torch.rand(BATCH, generator=stream, dtype=torch.float64).numpy() * len(usable)).astype(int)]
                states = starts = torch.from_numpy(dataset.observations[rows]).double()
            chosen = (torch.rand(BATCH, generator=stream, dtype=torch.float64) * len(self.elites)).long()
            noise = torch.randn(BATCH, ACTIONS + 1 + OBSERVATIONS, generator=stream).double()
            with torch.no_grad():
                actions = policy(states, noise[:, :ACTIONS])
                drawn = torch.stack(
                    [
                        (gaussian := self.gaussian(self.elites[which], states[row], actions[row])).mean[0]
                        + gaussian.stddev[0] * noise[row, ACTIONS:]
                        for row, which in enumerate(chosen)
                    ]
                )
                rewards, successors = drawn[:, 0], states + drawn[:, 1:]
                over = successors[:, 0].abs() > 0.5
                surprise = rewards + 0.99 * ~over * critics(successors, policy(successors, None)) - critics(states, actions)
                advantages = (surprise - surprise.mean()) / (surprise.std(correction=0) + 1e-6)
            outcomes = torch.cat((rewards[:, None], successors - states), 1)
            adversarial = (advantages * self.mixture(states, actions).log_prob(outcomes)).mean()
            members = len(self.leaves[0])
            valid = np.flatnonzero(dataset.valid_next)
            places = (torch.rand(members * BATCH, generator=stream, dtype=torch.float64).numpy() * len(valid)).astype(int)
            likelihood = 0.01 * (self.leaves[-2] - self.leaves[-1]).sum()
            for member, rows in enumerate(valid[places].reshape(members, BATCH)):
                seen, done, paid, after = (
                    torch.from_numpy(getattr(dataset, name)[rows]).double()
                    for name in ("observations", "actions", "rewards", "next_observations")
                )
                gaussian = self.gaussian(member, seen, done)
                targets = torch.cat((paid[:, None], after - seen), 1)
                likelihood = likelihood + 2 * nn.functional.gaussian_nll_loss(gaussian.mean, targets, gaussian.variance, eps=0)
            shrinking = sum(decay / 2 * weight.square().sum() for decay, weight in zip(DECAYS, self.leaves[:-2:2], strict=True))
            self.optimiser.zero_grad()
            (likelihood + shrinking + self.weight * adversarial).backward()
            self.optimiser.step()
            sums += [likelihood.item(), adversarial.item()]
            states = torch.where(over[:, None], starts, successors)
        return sums / EVERY


def by_hand(learner, index, problem):
    """The policy and the smaller of the critics of one seed, as functions of raw states."""
    mean, std = (torch.from_numpy(np.asarray(each)).double() for each in standardised(problem.dataset)[1:])
    actor = module([weight[index] for weight in learner.actor.weights])
    critics = [module([weight[index, member] for weight in learner.critic.weights]) for member in (0, 1)]

    def policy(states, noise):
        centre, log_std = actor((states - mean) / std).chunk(2, -1)
        return torch.tanh(centre if noise is None else centre + log_std.clamp(-20, 2).exp() * noise)

    def value(states, actions):
        seen = torch.cat(((states - mean) / std, actions), -1)
        return torch.minimum(*(critic(seen)[:, 0] for critic in critics))

    return policy, value


@pytest.mark.parametrize("weight", [3e-4, 0.5])
def test_the_model_is_trained_as_the_reference_trains_it(weight, problem):
    group = rambo(problem, adversarial_weight=weight)
    references = [ReferenceModel(group, index, weight) for index in range(2)]
    before = [each.clone() for each in group.experience.weights]
    for step in range(2 * EVERY + 1):
        expected = []
        if step in (EVERY, 2 * EVERY):
            for index, reference in enumerate(references):
                parts = by_hand(group.learner, index, problem)
                expected.append(reference.train(group, step, *parts, problem))
        group.advance(1)
        if expected:
            found = [group.experience.vitals[name] for name in ("model_loss", "adversarial_loss")]
            torch.testing.assert_close(torch.stack(found, 1), torch.tensor(np.array(expected)), rtol=1e-9, atol=1e-9)
            for index, reference in enumerate(references):
                for own, leaf in zip(group.experience.weights, reference.leaves, strict=True):
                    torch.testing.assert_close(own[index], leaf.detach(), rtol=0, atol=1e-8)
    assert all((own - old).abs().max() > 1e-4 for own, old in zip(group.experience.weights, before, strict=True))


def test_its_gradient_is_that_of_the_expected_value(problem, generator):
    """Proposition 2: A weighs the likelihood's gradient as the value itself would be differentiated along its draws."""
    group = rambo(problem, (3,))
    dynamics, draws = group.experience.dynamics, 200_000
    state, action = torch.tensor([[[0.1, -0.2, 0.3]]]).double(), torch.tensor([[[0.5, -0.4]]]).double()
    elite = torch.randint(2, (draws,), generator=generator)
    noise = torch.randn(draws, 4, generator=generator, dtype=torch.float64)
    inputs = dynamics.inputs(state, action)[:, None]

    def value(outcomes):
        return outcomes[..., 0] + 3 * outcomes[..., 1] + torch.sin(2 * outcomes[..., 2]) + outcomes[..., 3].square()

    def gradient(objective):
        leaves = [weight.clone().requires_grad_() for weight in dynamics.network.weights]
        found = torch.autograd.grad(objective(dynamics.network.with_weights(leaves)), leaves)
        return torch.cat([each.flatten() for each in found])

    def drawn(network):
        mean, log_variance = (part[0, dynamics.elites[0], 0] for part in network(inputs))
        return mean[elite] + (0.5 * log_variance[elite]).exp() * noise

    outcomes = drawn(dynamics.network)
    advantages = value(outcomes) - value(outcomes).mean()
    alike = inputs.expand(1, 1, draws, -1)
    likelihood = partial(log_density, inputs=alike, outcomes=outcomes[None], elites=dynamics.elites)
    by_likelihood = gradient(lambda network: (advantages * likelihood(network)[0]).mean())
    by_paths = gradient(lambda network: value(drawn(network)).mean())
    assert by_paths.norm() > 0.1
    assert (by_likelihood - by_paths).norm() < 0.05 * by_paths.norm()


def test_the_adversary_lowers_what_the_policy_expects(problem):
    """Of the same policy: the model's reward and what follows, against a model that was trained on the data alone."""
    worth = {}
    for weight in (1e-12, 1.0):
        group = rambo(problem, adversarial_weight=weight, adversarial_ratio=40)
        group.advance(EVERY)
        group.experience.train_model(EVERY, group.learner)
        learner, rows = group.learner, torch.from_numpy(problem.dataset.observations).double().expand(2, -1, -1)
        actions = learner.act(rows)
        means = group.experience.dynamics.predict(rows, actions)[0].gather(
            1, group.experience.dynamics.elites[:, :, None, None].expand(-1, -1, len(rows[0]), 4)
        )
        successors = means[..., 1:].mean(1)
        worth[weight] = (means[..., 0].mean(1) + 0.99 * learner.action_value(successors, learner.act(successors))).mean(1)
    assert (worth[1.0] < worth[1e-12] - 0.01).all()


def test_the_shared_fit_stays_as_it_is(problem):
    group = rambo(problem)
    fit = group.experience.fitted["dynamics"]
    before = copy.deepcopy(fit.network.weights)
    group.advance(EVERY + 1)
    assert all(torch.equal(own, old) for own, old in zip(fit.network.weights, before, strict=True))
    assert not torch.equal(group.experience.weights[0], before[0])
    assert group.experience.dynamics.network.weights[0] is group.experience.weights[0]


def test_without_weight_nothing_is_trained(problem):
    """As in the authors' code, in which the model then does not go on with the likelihood either."""
    group = rambo(problem, adversarial_weight=0.0)
    before = [each.clone() for each in group.experience.weights]
    group.advance(2 * EVERY + 1)
    assert all(torch.equal(own, old) for own, old in zip(group.experience.weights, before, strict=True))
    assert group.experience.vitals["model_loss"].isnan().all()


def test_a_resumed_group_has_the_vitals_and_the_metrics_of_an_undisturbed_one(problem):
    whole = rambo(problem)
    whole.advance(3 * EVERY - 1)
    again = rambo(problem).load(saved_and_loaded(whole.states()), whole.step)
    torch.testing.assert_close(dict(again.experience.vitals), dict(whole.experience.vitals), rtol=0, atol=0)
    assert torch.equal(again.experience.ring.rows, whole.experience.ring.rows)
    for _ in range(2):
        torch.testing.assert_close(again.advance(EVERY), whole.advance(EVERY), rtol=0, atol=0)
        torch.testing.assert_close(dict(again.experience.vitals), dict(whole.experience.vitals), rtol=0, atol=0)


def test_vitals_of_the_dataset_are_those_of_the_model_as_it_is(problem):
    group = rambo(problem, adversarial_ratio=10.0)
    group.advance(1)
    first = group.experience.vitals["dataset_uncertainty"]
    group.advance(EVERY)
    assert not torch.equal(group.experience.vitals["dataset_uncertainty"], first)


def test_it_is_sac_on_standardised_observations(problem):
    """Its learner beside SAC's, which is given the standardised batch and the same weights."""
    group = rambo(problem)
    group.advance(1)
    learner = group.learner
    config = SAC.Config(batch_size=40, hidden=(16, 16), actor_learning_rate=1e-4, temperature_learning_rate=1e-4)
    other = SAC(problem, config, SEEDS, dtype=torch.float64)
    other.load_states([learner.state(index) for index in range(2)])
    mean, std = (torch.from_numpy(each) for each in standardised(problem.dataset)[1:])
    uniform, noise = group.streams.at(1)
    batch = group.experience.draw(uniform)
    assert batch.real_rows == 20
    seen = batch._replace(
        observations=(batch.observations - mean) / std, next_observations=(batch.next_observations - mean) / std
    )
    torch.testing.assert_close(learner.update(batch, noise, None), other.update(seen, noise, None), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(learner.act(batch.observations), other.act(seen.observations), rtol=1e-12, atol=1e-12)
    values = (each.action_value(rows, batch.actions) for each, rows in ((learner, batch.observations), (other, seen[0])))
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


def test_standardised_observations(problem):
    dataset, mean, std = standardised(problem.dataset)
    np.testing.assert_allclose(dataset.observations.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.observations.std(0), 1, atol=1e-6)
    np.testing.assert_allclose(dataset.next_observations * std + mean, problem.dataset.next_observations, atol=1e-6)
    constant = replace(dataset, observations=dataset.observations * 0 + 3)
    np.testing.assert_array_equal(standardised(constant)[0].observations, 0)


def test_cloning_equals_the_reference(problem):
    config = Cloning.Config(batch_size=40, hidden=(16, 16), learning_rate=1e-3)
    learner = Cloning(problem, config, SEEDS, dtype=torch.float64)
    references = [module([weight[index] for weight in learner.actor.weights]) for index in range(2)]
    optimisers = [TensorFlowAdam(each.parameters(), lr=1e-3) for each in references]
    group = Group(get_algorithm("sac"), problem, SEEDS)
    for step in range(5):
        batch = group.experience.draw(group.streams.at(step)[0])
        found = learner.update(batch, {}, None)["policy_loss"]
        for index, (reference, optimiser) in enumerate(zip(references, optimisers, strict=True)):
            mean, log_std = reference(batch.observations[index]).chunk(2, -1)
            policy = TransformedDistribution(Normal(mean, log_std.clamp(-20, 2).exp()), TanhTransform())
            loss = -policy.log_prob(batch.actions[index].clamp(-0.999, 0.999)).sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            torch.testing.assert_close(found[index], loss.detach(), rtol=1e-9, atol=1e-9)
    for index, reference in enumerate(references):
        assert_weights(index, [(learner.actor.weights, reference.parameters(), ())])


def test_the_policy_begins_as_the_cloned_one(problem):
    group = rambo(problem)
    config = get_algorithm("rambo").build_configs(get_algorithm("rambo").configure())["cloned"]
    assert (config.steps, config.hidden, config.learning_rate) == (200_000, (256, 256), 1e-4)
    cloned = group.learner.fitted["cloned"]
    seen = torch.from_numpy(problem.dataset.observations[:9]).double().expand(2, -1, -1)
    assert torch.equal(group.learner.act(seen), cloned.actor.mode(cloned.standardised(seen)))
    group.advance(1)
    assert not torch.equal(group.learner.act(seen), cloned.actor.mode(cloned.standardised(seen)))


def test_a_cloned_policy_is_fitted_on_standardised_observations_and_resumes(problem):
    config = ClonedPolicy.Config(steps=300, hidden=(16, 16), batch_size=40, learning_rate=1e-3)
    state = fitted(ClonedPolicy, problem, config, 0)
    _, mean, std = standardised(problem.dataset)
    np.testing.assert_allclose(state["mean"], mean)
    np.testing.assert_allclose(state["std"], std)
    stage, rows = ClonedPolicy(problem, config, [state]), torch.from_numpy(problem.dataset.observations).double()[None]
    actions = torch.from_numpy(problem.dataset.actions).double()[None]
    untrained = Cloning(problem, config, [0], dtype=torch.float64).actor
    gained = stage.actor.log_prob(stage.standardised(rows), actions, 1e-3) - untrained.log_prob(rows, actions, 1e-3)
    assert gained.mean() > 0.05
    check_resumes(ClonedPolicy, problem, config, 40)


def test_sizes_of_the_cloned_policy_must_be_those_of_the_policy(problem):
    with pytest.raises(UserError, match=r"give hidden and cloned\.hidden the same"):
        rambo(problem, hidden=(8, 16))
    with pytest.raises(UserError, match=r"give hidden and cloned\.hidden the same"):
        rambo(problem, hidden=(16, 16, 16))


def test_a_bound_on_layers_is_refused(problem):
    with pytest.raises(UserError, match="spectral_norm"):
        rambo(problem, **{"dynamics.spectral_norm": 5.0})


def test_a_learner_without_critics_is_refused(problem):
    group = rambo(problem)
    group.experience.refresh(0, group.learner)
    without = Group(get_algorithm("bc"), problem, SEEDS).learner
    with pytest.raises(UserError, match="BC has no critics"):
        group.experience.refresh(EVERY, without)


def test_what_has_ended_begins_again_and_is_worth_nothing_more(problem, monkeypatch):
    """Each step's states, of a policy in a model in which many rollouts end at once."""
    group, seen = rambo(problem, rollout_length=3), []
    step = AdversarialRollouts._adversarial_step

    def watching(self, observations, *rest):
        happened, losses = step(self, observations, *rest)
        seen.append((observations, happened))
        return happened, losses

    monkeypatch.setattr(AdversarialRollouts, "_adversarial_step", watching)
    group.experience.train_model(EVERY, group.learner)
    assert len(seen) == EVERY
    for number in (0, 1, 3):
        (before, happened), (after, _), start = seen[number], seen[number + 1], seen[number // 3 * 3][0]
        assert before.shape == after.shape and 0 < happened.terminals.sum() < happened.terminals.numel()
        assert torch.equal(after, torch.where(happened.terminals[..., None], start, happened.next_observations))
    endless = happened._replace(next_observations=torch.full_like(happened.next_observations, torch.inf))
    ended = endless._replace(terminals=torch.ones_like(happened.terminals))
    assert group.experience.advantages(ended, group.learner).isfinite().all()


def test_an_estimate_counts_the_steps_of_the_model():
    config = AdversarialRollouts.Config(adversarial_ratio=2.0, adversarial_batch_size=128)
    short, times_longer = AdversarialRollouts.short_refresh(config, "cpu")
    assert times_longer == 5 * 50_000 / 1_000 + 2_000 / 2
    assert AdversarialRollouts.short_refresh(AdversarialRollouts.Config(adversarial_weight=0.0), "cpu")[1] == 250
    assert short.rollout_states == 1_000


def test_model_and_rollouts_are_those_of_mopo():
    configs = {name: get_algorithm(name).build_configs(get_algorithm(name).configure()) for name in ("rambo", "mopo")}
    assert configs["rambo"]["dynamics"] == configs["mopo"]["dynamics"]
    experience = configs["rambo"]["experience"]
    assert (experience.real_fraction, experience.adversarial_weight, experience.rollout_states) == (0.5, 3e-4, 50_000)
    assert configs["rambo"]["learner"].target_entropy is None
