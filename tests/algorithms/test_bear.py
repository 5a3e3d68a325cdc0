"""BEAR against an independent reference, its variational autoencoder against quadrature, its policy against brute force."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.networks import Initialiser, VariationalAutoencoder
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.algorithms.learning.testing import Group, check_compiles, leaves_the_interval
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.task import OfflineProblem
from support import assert_weights, module
from torch import nn
from torch.distributions import Normal, kl_divergence

SEEDS = (3, 8)


def normals(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Reference:
    """One seed of BEAR in the order of D4RL's `bear.py`: samples as further rows of a long batch, one optimiser a network."""

    def __init__(self, learner, index, kernel, log_std_range):
        self.kernel, self.log_std_range = kernel, log_std_range
        self.policy = module([weight[index] for weight in learner.actor.weights])
        self.critics = nn.ModuleList(module([w[index, member] for w in learner.critic.weights]) for member in (0, 1))
        self.target_critics = copy.deepcopy(self.critics)
        autoencoder = [weight[index] for weight in learner.behaviour.weights]
        self.encoder, self.decoder = module(autoencoder[:6]), module(autoencoder[6:])
        self.log_alpha = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.policy_optimiser = torch.optim.Adam(self.policy.parameters(), 1e-4)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), 3e-4)
        vae = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.vae_optimiser = torch.optim.Adam(vae, 3e-4)
        self.alpha_optimiser = torch.optim.Adam([self.log_alpha], 1e-3)

    def before_tanh(self, states, noise):
        """states (rows, obs), noise (rows, act)."""
        mean, log_std = self.policy(states).chunk(2, -1)
        self.clipped = (log_std < self.log_std_range[0]) | (log_std > self.log_std_range[1])
        return mean + log_std.clamp(*self.log_std_range).exp() * noise

    def mmd(self, first, second):
        """D4RL's `mmd_loss_laplacian` and `mmd_loss_gaussian`, (rows, samples, act), with sigma = 20."""

        def mean_kernel(one, other):
            difference = one[:, :, None, :] - other[:, None, :, :]
            distance = difference.abs() if self.kernel == "laplacian" else difference**2
            return torch.exp(-distance.sum(-1) / 40.0).mean((1, 2))

        squared = mean_kernel(first, first) + mean_kernel(second, second) - 2.0 * mean_kernel(first, second)
        return torch.sqrt(squared + 1e-6)

    def train(self, batch, noise, index, warm_up):
        states, actions, rewards = batch.observations[index], batch.actions[index], batch.rewards[index]
        next_states, alive = batch.next_observations[index], batch.alive[index]
        rows = len(states)
        # samples of one state next to each other, as repeat_interleave puts its copies
        decoded, now, following = (noise[name][index].transpose(0, 1).flatten(0, 1) for name in ("decoded", "now", "next"))

        mean, log_std = self.encoder(torch.cat((states, actions), -1)).chunk(2, -1)
        encoded = Normal(mean, log_std.clamp(-4, 15).exp())
        latents = encoded.mean + encoded.stddev * noise["encoded"][index]
        reconstructed = torch.tanh(self.decoder(torch.cat((states, latents), -1)))
        divergence = kl_divergence(encoded, Normal(torch.zeros_like(mean), 1.0))
        vae_loss = nn.functional.mse_loss(reconstructed, actions) + 0.5 * divergence.mean()
        self.apply(self.vae_optimiser, vae_loss)

        with torch.no_grad():
            repeated = next_states.repeat_interleave(10, 0)
            inputs = torch.cat((repeated, torch.tanh(self.before_tanh(repeated, following))), -1)
            first, second = (critic(inputs) for critic in self.target_critics)
            mixed = 0.75 * torch.minimum(first, second) + 0.25 * torch.maximum(first, second)
            target = rewards + 0.99 * alive * mixed.view(rows, 10).max(1)[0]
        inputs = torch.cat((states, actions), -1)
        values = [critic(inputs)[:, 0] for critic in self.critics]
        critic_loss = 0.5 * sum(nn.functional.mse_loss(value, target) for value in values)

        repeated = states.repeat_interleave(4, 0)
        with torch.no_grad():
            behaviour = self.decoder(torch.cat((repeated, decoded.clamp(-0.5, 0.5)), -1))
        own = self.before_tanh(repeated, now).view(rows, 4, -1)
        mmd = self.mmd(behaviour.view(rows, 4, -1), own)
        constraint = self.log_alpha.exp() * (mmd - 0.05)
        critics = copy.deepcopy(self.critics)  # as they are before their step
        first, second = (critic(torch.cat((states, torch.tanh(own[:, 0])), -1))[:, 0] for critic in critics)
        policy_loss = (constraint if warm_up else -torch.minimum(first, second) + constraint).mean()
        multiplier = self.log_alpha.exp().item()
        self.apply(self.critic_optimiser, critic_loss)
        self.apply(self.policy_optimiser, policy_loss)
        self.apply(self.alpha_optimiser, -(self.log_alpha.exp() * (mmd.detach() - 0.05)).mean())
        self.log_alpha.data.clamp_(min=-5.0, max=10.0)
        for old, new in zip(self.target_critics.parameters(), self.critics.parameters(), strict=True):
            old.data.copy_(0.995 * old.data + 0.005 * new.data)
        return {
            "behaviour_loss": vae_loss.item(),
            "critic_loss": critic_loss.item(),
            "critic_value": torch.stack(values).mean().item(),
            "actor_loss": policy_loss.item(),
            "discrepancy": mmd.mean().item(),
            "multiplier": multiplier,
        }

    @staticmethod
    def apply(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("kernel, log_std_range", [("laplacian", (-5.0, 2.0)), ("gaussian", (-0.1, 0.1))])
def test_steps_equal_the_reference(kernel, log_std_range, problem):
    """Two steps of the warm-up and two after it; the second range is so narrow that it cuts, and so is the encoder's."""
    settings = {"kernel": kernel, "log_std_range": log_std_range, "warmup_steps": 2}
    group = Group(get_algorithm("bear"), problem, SEEDS, **settings)
    learner = group.learner
    learner.behaviour.weights[5][..., -2:] = -5.0  # two of the four log standard deviations lie around -5, below -4
    references = [Reference(learner, index, kernel, log_std_range) for index in range(len(SEEDS))]
    for step in range(4):
        uniform, noise = group.streams.at(step)
        batch = group.experience.draw(uniform)
        assert 0 < batch.alive.mean() < 1  # terminals occur
        metrics = learner.update(batch, noise, learner.phase(step))
        for index, reference in enumerate(references):
            expected = reference.train(batch, noise, index, warm_up=step < 2)
            assert set(metrics) == set(expected)
            for key, value in expected.items():
                assert metrics[key][index].item() == pytest.approx(value, rel=1e-10, abs=1e-10), key
            assert reference.clipped.any() == (kernel == "gaussian") and not reference.clipped.all()
    for index, reference in enumerate(references):
        pairs = [(learner.actor.weights, reference.policy.parameters(), ())]
        pairs.append((learner.behaviour.weights[:6], reference.encoder.parameters(), ()))
        pairs.append((learner.behaviour.weights[6:], reference.decoder.parameters(), ()))
        for member, (critic, target) in enumerate(zip(reference.critics, reference.target_critics, strict=True)):
            pairs.append((learner.critic.weights, critic.parameters(), (member,)))
            pairs.append((learner.target.weights, target.parameters(), (member,)))
        assert_weights(index, pairs)
        assert learner.log_multiplier()[index, 0].item() == pytest.approx(reference.log_alpha.item(), rel=0, abs=1e-12)


def test_warm_up_lasts_as_long_as_it_says(problem):
    learner = Group(get_algorithm("bear"), problem, (0,), warmup_steps=3).learner
    assert len({learner.phase(step) for step in range(3)}) == 1
    assert {learner.phase(step) for step in range(3, 6)} == {None} != {learner.phase(2)}
    assert Group(get_algorithm("bear"), problem, (0,), warmup_steps=0).learner.phase(0) is None


def test_a_kernel_that_is_none_is_refused():
    with pytest.raises(UserError, match="kernel='linear': expected laplacian or gaussian"):
        get_algorithm("bear").configure({"kernel": "linear"})


def test_bear_2020_is_bear_with_five_samples(problem):
    """And with BEAR's settings by task."""
    bear, variant = get_algorithm("bear"), get_algorithm("bear-2020")
    assert (variant.learner, variant.experience) == (bear.learner, bear.experience)
    assert variant.changed(variant.configure()) == {"matched_samples": 5}
    for task in ("halfcheetah-medium", "point-angle"):
        assert task_settings(variant, task) == task_settings(bear, task) != {}
    assert {name: shape[0] for name, shape in Group(variant, problem, (0,)).learner.noise().items()}["now"] == 5


# the dual variable


@pytest.mark.parametrize("threshold, direction", [(0.0, 1), (5.0, -1)])
def test_multiplier_rises_above_the_threshold_and_falls_below(threshold, direction, problem):
    """MMD is above 0 and below sqrt(2), always; Adam's first step is the learning rate itself."""
    group = Group(get_algorithm("bear"), problem, SEEDS, threshold=threshold)
    values = [group.learner.log_multiplier()[:, 0].clone()]
    for _ in range(10):
        group.advance(1)
        values.append(group.learner.log_multiplier()[:, 0].clone())
    moves = direction * torch.stack(values).diff(dim=0)
    assert (moves > 0).all()
    torch.testing.assert_close(moves[0], torch.full((2,), 1e-3).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("threshold, end", [(0.0, 0.2), (5.0, -0.3)])
def test_multiplier_stays_in_its_range(threshold, end, problem):
    """However hard it is pushed; and it comes back from the end at once when the push turns."""
    settings = {"threshold": threshold, "log_multiplier_range": (-0.3, 0.2), "multiplier_learning_rate": 0.05}
    group = Group(get_algorithm("bear"), problem, SEEDS, **settings)
    values = []
    for _ in range(12):
        group.advance(1)
        values.append(group.learner.log_multiplier()[:, 0].clone())
    values = torch.stack(values)
    assert values.min() >= -0.3 and values.max() <= 0.2
    assert (values[0].abs() < 0.1).all() and (values[-3:] == end).all()


# the policy that acts


def test_acts_by_the_best_candidate_of_the_first_critic(problem, generator):
    """By trying every candidate at every state, one at a time."""
    group = Group(get_algorithm("bear"), problem, SEEDS, acting_samples=20)
    group.advance(3)
    learner, states = group.learner, normals(generator, 2, 15, 3)
    found, by_smaller = learner.act(states), 0
    for index in range(2):
        policy = module([weight[index] for weight in learner.actor.weights])
        critics = [module([weight[index, member] for weight in learner.critic.weights]) for member in (0, 1)]
        for row, state in enumerate(states[index]):
            mean, log_std = policy(state).chunk(2)
            candidates = [torch.tanh(mean + log_std.exp() * each[0]) for each in learner.candidates[index]]
            values = [[critic(torch.cat((state, action))).item() for critic in critics] for action in candidates]
            best = max(range(20), key=lambda place, values=values: values[place][0])
            torch.testing.assert_close(found[index, row], candidates[best], rtol=0, atol=1e-12)
            by_smaller += best != max(range(20), key=lambda place, values=values: min(values[place]))
    assert by_smaller > 0  # the smaller of both critics would have chosen differently


def test_candidates_belong_to_a_seed(problem, generator):
    """The same at every state, in any group, at any step; other seeds have others."""
    group, alone = (Group(get_algorithm("bear"), problem, seeds) for seeds in (SEEDS, SEEDS[1:]))
    first, second = group.learner.candidates
    assert first.shape == (5, 1, 2) and len({*first.flatten().tolist(), *second.flatten().tolist()}) == 20
    group.advance(2)
    assert torch.equal(group.learner.candidates[1:], alone.learner.candidates)
    state = normals(generator, 2, 1, 3)
    actions = group.learner.act(state.expand(2, 30, 3))
    torch.testing.assert_close(actions, actions[:, :1].expand(2, 30, 2), rtol=0, atol=1e-12)


def test_acting_does_not_depend_on_how_rows_are_batched(problem, generator):
    group = Group(get_algorithm("bear"), problem, SEEDS)
    group.advance(3)
    states = normals(generator, 2, 40, 3)
    whole = group.learner.act(states)
    for size in (1, 7):
        parts = [group.learner.act(part) for part in states.split(size, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def test_acting_with_noise_is_the_policy_s_own_sample(problem, generator):
    learner = Group(get_algorithm("bear"), problem, SEEDS).learner
    states, noise = normals(generator, 2, 10, 3), normals(generator, 2, 10, 2)
    for index in range(2):
        mean, log_std = module([weight[index] for weight in learner.actor.weights])(states[index]).chunk(2, -1)
        expected = torch.tanh(mean + log_std.exp() * noise[index])
        torch.testing.assert_close(learner.act(states, noise)[index], expected, rtol=0, atol=1e-12)


def test_no_thousandth_row_is_left_out():
    """D4RL's loader counts to 1000 from the last terminal and leaves that row out, which is an episode's last only if it has
    1000 rows. Ours leaves out the rows whose next observation is another episode's."""
    rows, ends = 2997, [998, 1997, 2996]  # three episodes of 999 rows, as in halfcheetah's files
    timeouts, terminals = np.zeros(rows, bool), np.zeros(rows, bool)
    timeouts[ends] = True
    columns = {name: np.zeros((rows, size), np.float32) for name, size in (("observations", 3), ("next_observations", 3))}
    columns |= {"actions": np.zeros((rows, 2), np.float32), "rewards": np.arange(rows, dtype=np.float32)}
    dataset = OfflineDataset(**columns, terminals=terminals, timeouts=timeouts, valid_next=~timeouts)
    problem = OfflineProblem(3, 2, leaves_the_interval, 0.99, 1000, dataset)
    experience = get_algorithm("bear").experience
    drawn = experience(problem, experience.Config(), (0,)).draw((torch.arange(2994) + 0.5)[None] / 2994).rewards[0]
    assert sorted(drawn.tolist()) == [row for row in range(rows) if row not in ends]
    theirs, counted = [], 0
    for row in range(rows - 1):
        if counted < 999:
            theirs.append(row)
        counted = counted + 1 if counted < 999 else 0
    assert [row for row in range(rows - 1) if row not in theirs] == [999, 1999] and {998, 1997} <= set(theirs)


# the variational autoencoder


def test_encoder_s_log_std_is_clipped(generator):
    create = VariationalAutoencoder.create
    autoencoder = create(Initialiser([generator], torch.float64, "cpu"), 3, 2, 4, (16, 16))
    autoencoder.weights[4] *= 1000
    _, log_std = autoencoder.encode(*normals(generator, 1, 400, 5).split((3, 2), -1))
    assert (log_std.min(), log_std.max()) == (-4.0, 15.0) and len(log_std.unique()) > 100


NODES, EDGE = 60, 7.0


def bound_and_evidence(learner, batch):
    """By BEAR's own loss at the first row of `batch`, and by quadrature over the two latent dimensions: of log p(a | s).

    The loss, mean squared error + 1/2 mean KL, times 4 is -log p(a | s, z) + KL up to a constant, where p(a | s, z) is
    a Gaussian around the decoder's action with a variance of 1/8: there are two latent dimensions to an action's one. Gives
    the bound, the evidence and KL(q(z | s, a) || p(z | s, a)), which should be their difference.
    """
    likelihood, row = (
        Normal(torch.tensor(0.0).double(), math.sqrt(1 / 8)),
        type(batch)(*(column[:, :1] for column in batch[:5])),
    )
    # the loss is a mean over rows: the same row at the midpoints of 60 x 60 equal parts of q's own distribution
    midpoints = Normal(0.0, 1.0).icdf((torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES)
    noise = {name: torch.zeros(1, *shape, dtype=torch.float64) for name, shape in learner.noise().items()}
    noise["encoded"] = torch.cartesian_prod(midpoints, midpoints)[None]
    many = type(batch)(*(column.expand(-1, NODES**2, *column.shape[2:]) for column in row[:5]))
    weights = [weight[0].clone() for weight in learner.behaviour.weights]
    loss = learner.update(many, noise, "warm-up")["behaviour_loss"].item()
    bound = -4 * loss - 0.5 * math.log(2 * math.pi / 8)

    encoder, decoder = module(weights[: len(weights) // 2]), module(weights[len(weights) // 2 :])
    axis = torch.linspace(-EDGE, EDGE, 281, dtype=torch.float64)
    latents, area = torch.cartesian_prod(axis, axis), (axis[1] - axis[0]) ** 2
    with torch.no_grad():
        mean, log_std = encoder(torch.cat((row.observations, row.actions), -1)[0, 0]).chunk(2)
        decoded = torch.tanh(decoder(torch.cat((row.observations[0].expand(len(latents), -1), latents), -1)))[:, 0]
    joint = Normal(0.0, 1.0).log_prob(latents).sum(-1) + likelihood.log_prob(row.actions[0, 0, 0] - decoded)
    evidence = (joint.exp().sum() * area).log()
    posterior, encoded = joint - evidence, Normal(mean, log_std.exp()).log_prob(latents).sum(-1)
    gap = (encoded.exp() * (encoded - posterior)).sum() * area
    return bound, evidence.item(), gap.item()


@pytest.fixture
def one_action(problem):
    """A group of BEAR whose actions have one dimension and latents therefore two, and a batch for it."""
    batch = problem.dataset
    batch = dataclasses.replace(batch, actions=batch.actions[:, :1].copy())
    settings = {"matched_samples": 1, "target_samples": 1, "batch_size": NODES**2}
    group = Group(get_algorithm("bear"), dataclasses.replace(problem, action_size=1, dataset=batch), (3,), **settings)
    return group.learner, group.experience.draw(group.streams.at(0)[0])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_behaviour_loss_bounds_the_log_evidence(scale, one_action):
    """log p(a | s) is the bound plus KL of the encoder to the true posterior; weights drawn larger make that larger."""
    learner, batch = one_action
    for weight in learner.behaviour.weights:
        weight *= scale
    bound, evidence, gap = bound_and_evidence(learner, batch)
    assert gap > 0.01 and bound < evidence
    assert evidence - bound == pytest.approx(gap, rel=0.02)


def test_the_bound_is_tight_where_the_encoder_is_exact(one_action):
    """A decoder that looks at the state alone leaves the posterior equal to the prior."""
    learner, batch = one_action
    half = len(learner.behaviour.weights) // 2
    learner.behaviour.weights[half][:, 3:] = 0
    for weight in learner.behaviour.weights[half - 2 : half]:
        weight.zero_()
    bound, evidence, gap = bound_and_evidence(learner, batch)
    assert gap == pytest.approx(0, abs=1e-9) and bound == pytest.approx(evidence, rel=0, abs=1e-9)


# learning


def test_warm_up_brings_the_policy_to_the_batch_s(point_angle):
    """MMD falls; and the trim, the one action of point-angle that follows from the state alone, is come nearer to."""
    settings = {"actor_learning_rate": 3e-3, "behaviour_learning_rate": 3e-3, "batch_size": 128}
    group = Group(get_algorithm("bear"), point_angle, (0,), hidden=(32, 32), warmup_steps=1000, **settings)
    start = group.advance(1)["discrepancy"]
    rows = torch.tensor(point_angle.dataset.observations, dtype=torch.float64)[None]
    wanted = 0.8 * torch.cos(1.5 * rows[0, :, 0])

    def error():
        return (group.learner.actor.mode(rows)[0, :, 2] - wanted).square().mean().sqrt()

    before = error()
    end = group.advance(200)["discrepancy"]
    assert end < 0.5 * start and error() < 0.5 * before


@pytest.mark.slow
def test_compiles_into_one_graph_per_phase(problem):
    check_compiles(get_algorithm("bear"), problem, kernel="gaussian", warmup_steps=2)
