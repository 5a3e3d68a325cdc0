"""BRAC against an independent reference, its fitted behaviour policy against BC, its rows against a loop."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.bc import BC
from mopo_bench.algorithms.brac import BehaviourPolicy, D4RLLoader
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import (
    Group,
    check_compiles,
    check_contract,
    check_resumes,
    fitted,
    leaves_the_interval,
)
from mopo_bench.common.errors import UserError
from mopo_bench.common.streams import derived_seed
from mopo_bench.harness.api import plan_run
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.data.dataset import OfflineDataset, Packing
from mopo_bench.tasks.task import OfflineProblem
from support import TensorFlowAdam, assert_weights, module
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

KERAS = 1e-7  # its Adam's epsilon
SEEDS = (3, 8)
CHANGES = [{"divergence": "mmd"}, {"divergence": "kl_dual", "discriminator_steps": 2}, {"d4rl_loader": True}]


class Reference:
    """One seed of BRAC in the order of the authors' code: the critics, the policy, the discriminator, then the target."""

    def __init__(self, learner, index, settings):
        self.value_penalty, self.kind = settings["value_penalty"], settings["divergence"]
        self.alpha, self.entropy = settings["divergence_coefficient"], settings["entropy_coefficient"]
        self.margin = settings["action_margin"]
        self.policy = module([weight[index] for weight in learner.actor.weights])
        self.behaviour = module([weight[index] for weight in learner.behaviour.actor.weights])
        self.critics = nn.ModuleList(module([w[index, member] for w in learner.critic.weights]) for member in (0, 1))
        self.targets = copy.deepcopy(self.critics)
        self.policy_optimiser = TensorFlowAdam(self.policy.parameters(), 3e-5, KERAS)
        self.critic_optimiser = TensorFlowAdam(self.critics.parameters(), 1e-3, KERAS)
        if self.kind == "kl_dual":
            self.discriminator = module([weight[index, 0] for weight in learner.discriminator.weights])
            self.discriminator_optimiser = TensorFlowAdam(self.discriminator.parameters(), 1e-3, KERAS)
        self.moved, self.steep = 0, 0

    @staticmethod
    def gaussian(network, states):
        """The log standard deviation in [-5, 0]; (1 + tanh x) / 2 is the logistic function at 2 x."""
        mean, raw = network(states).chunk(2, -1)
        return mean, torch.exp(-5 + 5 * torch.sigmoid(2 * raw))

    def squashed(self, network, states, noise):
        """The distribution, and its actions at `noise`, whose values before tanh it remembers."""
        mean, std = self.gaussian(network, states)
        distribution = TransformedDistribution(Normal(mean, std), TanhTransform(cache_size=1))
        return distribution, distribution.transforms[0](mean + std * noise)

    def smaller(self, critics, states, actions):
        return torch.minimum(*(critic(torch.cat((states, actions), -1))[:, 0] for critic in critics))

    def divergence(self, states, action, other, policy_noise, behaviour_noise):
        """At each state; `action` is the policy's, `other` the batch's or the behaviour policy's."""
        if self.kind == "kl":
            own, actions = self.squashed(self.policy, states, policy_noise)
            inside = actions.clamp(-1 + self.margin, 1 - self.margin)
            self.moved += int((inside != actions).sum())
            behaviour = TransformedDistribution(Normal(*self.gaussian(self.behaviour, states)), TanhTransform())
            return (own.log_prob(actions) - behaviour.log_prob(inside)).sum(-1).mean(0)
        if self.kind == "mmd":
            _, first = self.squashed(self.policy, states, policy_noise)
            _, second = self.squashed(self.behaviour, states, behaviour_noise)
            total = 0
            for one, others in ((first, (first, second)), (second, (second, first))):
                for sign, each in zip((1, -1), others, strict=True):
                    for a in one:
                        total = total + sign * sum(torch.exp(-(a - b).abs().sum(-1) / 20.0) for b in each) / 16
            return total
        return self.dual(self.logits(states, action), self.logits(states, other))

    def logits(self, states, actions):
        return self.discriminator(torch.cat((states, actions), -1))[:, 0]

    @staticmethod
    def dual(policy_logits, behaviour_logits):
        ratios = [nn.functional.softplus(logits) for logits in (policy_logits, behaviour_logits)]
        return torch.log(ratios[0] + 1e-8) - ratios[1] + 1

    def target(self, batch, noise):
        """r + gamma * alive * value, and the divergence at the next state where it is part of the value."""
        next_states = batch.next_observations[0]
        with torch.no_grad():
            distribution, action = self.squashed(self.policy, next_states, noise["next"])
            value = self.smaller(self.targets, next_states, action)
            value = value - self.entropy * distribution.log_prob(action).sum(-1)
            if self.value_penalty:
                other = None
                if self.kind == "kl_dual":
                    _, other = self.squashed(self.behaviour, next_states, noise["next behaviour"])
                samples = noise.get("next policy"), noise.get("next behaviour")
                value = value - self.alpha * self.divergence(next_states, action, other, *samples)
            return batch.rewards[0] + 0.99 * batch.alive[0] * value

    def train(self, batch, noise, index, warm_up):
        batch = type(batch)(*(column[index : index + 1] for column in batch[:5]))
        noise = {name: values[index] for name, values in noise.items()}
        states, actions, target = batch.observations[0], batch.actions[0], self.target(batch, noise)
        values = [critic(torch.cat((states, actions), -1))[:, 0] for critic in self.critics]
        critic_loss = 0.5 * sum(nn.functional.mse_loss(value, target) for value in values)
        self.apply(self.critic_optimiser, critic_loss)
        distribution, own = self.squashed(self.policy, states, noise["now"])
        log_prob = distribution.log_prob(own).sum(-1)
        divergence = self.divergence(states, own, actions, noise.get("now policy"), noise.get("now behaviour"))
        actor_loss = self.alpha * divergence + self.entropy * log_prob
        if not warm_up:
            actor_loss = actor_loss - self.smaller(self.critics, states, own)
        self.apply(self.policy_optimiser, actor_loss.mean())
        expected = {
            "critic_loss": critic_loss.item(),
            "critic_value": torch.stack(values).mean().item(),
            "actor_loss": actor_loss.mean().item(),
            "divergence": divergence.mean().item(),
            "entropy": -log_prob.mean().item(),
        }
        if self.kind == "kl_dual":
            for draw in range(3):
                expected["discriminator_loss"] = self.train_discriminator(states, actions, noise, draw)
        for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            old.data.copy_(0.995 * old.data + 0.005 * new.data)
        return expected

    def train_discriminator(self, states, actions, noise, draw):
        with torch.no_grad():
            _, own = self.squashed(self.policy, states, noise["discriminator"][draw])
        share = Normal(0.0, 1.0).cdf(noise["between"][draw])
        between = (share * actions + (1 - share) * own).requires_grad_()
        (slopes,) = torch.autograd.grad(self.logits(states, between).sum(), between, create_graph=True)
        excess = (torch.sqrt((slopes**2).sum(-1) + 1e-8) - 1).relu()
        self.steep += int((excess > 0).sum())
        loss = -self.dual(self.logits(states, own), self.logits(states, actions)).mean() + 5.0 * (excess**2).mean()
        self.apply(self.discriminator_optimiser, loss)
        return loss.item()

    @staticmethod
    def apply(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize(
    "name, changes",
    [
        ("brac-v", {}),
        ("brac-p", {}),
        ("brac-v", {"divergence_coefficient": 0.3, "entropy_coefficient": 0.2, "action_margin": 0.8}),
        ("brac-v", {"divergence": "mmd"}),
        ("brac-p", {"divergence": "mmd", "divergence_coefficient": 20.0}),
        ("brac-v", {"divergence": "kl_dual"}),
        ("brac-p", {"divergence": "kl_dual", "divergence_coefficient": 0.3}),
    ],
)
def test_steps_equal_the_reference(name, changes, problem):
    """Two steps of the warm-up and two after it. A margin of 0.8 is reached by many samples."""
    group = Group(get_algorithm(name), problem, SEEDS, warmup_steps=2, **changes)
    learner, settings = group.learner, dataclasses.asdict(group.learner.config)
    if settings["divergence"] == "kl_dual":
        for weight in learner.discriminator.weights:
            weight *= 2.5  # slopes on both sides of 1
    references = [Reference(learner, index, settings) for index in range(len(SEEDS))]
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
    for index, reference in enumerate(references):
        pairs = [(learner.actor.weights, reference.policy.parameters(), ())]
        if settings["divergence"] == "kl_dual":
            pairs.append((learner.discriminator.weights, reference.discriminator.parameters(), (0,)))
            assert 10 < reference.steep < 3 * 4 * 40 - 10
        for member, (critic, target) in enumerate(zip(reference.critics, reference.targets, strict=True)):
            pairs.append((learner.critic.weights, critic.parameters(), (member,)))
            pairs.append((learner.target.weights, target.parameters(), (member,)))
        assert_weights(index, pairs)
        assert (reference.moved > 50) == ("action_margin" in changes)


@pytest.mark.parametrize("name, changes", [("brac-v", {}), ("brac-v", {"divergence": "kl_dual"})])
def test_the_behaviour_policy_is_not_trained(name, changes, problem):
    """Nor saved with a run: it is a stage's, and found there again."""
    group = Group(get_algorithm(name), problem, SEEDS, **changes)
    kept = group.learner.behaviour.actor.weights
    before = [weight.clone() for weight in kept]
    group.advance(12)
    assert all(map(torch.equal, before, group.learner.behaviour.actor.weights))
    trained = {"actor", "critic", "target"} | ({"discriminator"} if changes else set())
    assert set(group.learner.networks()) == set(group.learner.state(0)) == trained
    assert not {id(w) for w in kept} & {id(w) for each in group.learner.networks().values() for w in each.weights}


def test_acts_by_its_mode(problem, generator):
    group = Group(get_algorithm("brac-v"), problem, SEEDS)
    states, noise = (torch.randn(2, 10, size, generator=generator, dtype=torch.float64) for size in (3, 2))
    for index in range(2):
        network = module([weight[index] for weight in group.learner.actor.weights])
        mean, std = Reference.gaussian(network, states[index])
        torch.testing.assert_close(group.learner.act(states)[index], torch.tanh(mean), rtol=0, atol=1e-12)
        sampled = group.learner.act(states, noise)[index]
        torch.testing.assert_close(sampled, torch.tanh(mean + std * noise[index]), rtol=0, atol=1e-12)


def test_acts_by_the_best_of_ten_samples_where_that_is_asked_for(problem, generator):
    """`max_q` of the authors' code, with the first critic, by trying every sample at every state; the mode is the default."""
    assert get_algorithm("brac-v").defaults()["max_q_samples"] is None
    group = Group(get_algorithm("brac-v"), problem, SEEDS, max_q_samples=10)
    group.advance(3)
    learner, states = group.learner, torch.randn(2, 15, 3, generator=generator, dtype=torch.float64)
    found = learner.act(states)
    for index in range(2):
        policy = module([weight[index] for weight in learner.actor.weights])
        critic = module([weight[index, 0] for weight in learner.critic.weights])
        for row, state in enumerate(states[index]):
            mean, std = Reference.gaussian(policy, state[None])
            samples = [torch.tanh(mean + std * each) for each in learner.candidates[index]]
            best = max(samples, key=lambda action, state=state: critic(torch.cat((state[None], action), -1)).item())
            torch.testing.assert_close(found[index, row], best[0].detach(), rtol=0, atol=1e-12)
    assert (found - learner.actor.mode(states)).abs().max() > 0.01
    assert len(learner.candidates[0]) == 10 and set(learner.acting_states()[0]) == {"actor", "critic"}


def test_a_divergence_that_is_none_is_refused():
    with pytest.raises(UserError, match="divergence='w': expected kl, mmd or kl_dual"):
        get_algorithm("brac-v").configure({"divergence": "w"})


# BRAC-p and BRAC-v


def pair_of_groups(problem, seeds=SEEDS, **changes):
    return [Group(get_algorithm(name), problem, seeds, **changes) for name in ("brac-v", "brac-p")]


def weights_of(group, *names):
    return [weight for name in names for weight in getattr(group.learner, name).weights]


def test_penalised_targets_differ_by_the_discounted_divergence(problem):
    """One row at a time. A critic's gradient in its last bias, found in Adam's first moment, is Q_e(s, a) - y there."""
    whole = Group(get_algorithm("brac-v"), problem, (3,), divergence_coefficient=0.7)
    uniform, noise = whole.streams.at(0)
    batch = whole.experience.draw(uniform)
    rows = [*range(6), int(batch.alive[0].argmin())]
    assert batch.alive[0, rows].min() == 0 and batch.alive[0, rows].max() == 1
    for row in rows:
        one = type(batch)(*(column[:, row : row + 1] for column in batch[:5]))
        one_noise = {name: values[..., row : row + 1, :] for name, values in noise.items()}
        targets = []
        for group in pair_of_groups(problem, (3,), divergence_coefficient=0.7):
            values = group.learner.critic(one.observations, one.actions)[0, :, 0]
            group.learner.update(one, one_noise, None)
            gradients = group.learner.critic.optimiser.first[-1][0, :, 0, 0] / 0.1
            target = values - gradients
            torch.testing.assert_close(target[0], target[1], rtol=0, atol=1e-12)
            targets.append(target[0].item())
        reference = Reference(whole.learner, 0, dataclasses.asdict(whole.learner.config))
        divergence = reference.divergence(one.next_observations[0], None, None, one_noise["next policy"][0], None)
        penalty = 0.99 * one.alive[0, 0].item() * 0.7 * divergence.item()
        assert targets[0] - targets[1] == pytest.approx(-penalty, rel=0, abs=1e-10)
        assert (penalty != 0) == bool(one.alive[0, 0])


def step_together(groups, steps):
    """On the same batches with the same noise: that of the first, which is the one that needs more."""
    for step in range(steps):
        uniform, noise = groups[0].streams.at(step)
        for group in groups:
            group.learner.update(group.experience.draw(uniform), noise, group.learner.phase(step))


def test_the_value_penalty_is_in_the_target_alone(problem):
    """With critics that hardly learn, both actors move alike, in the warm-up (6 steps) and after it."""
    groups = pair_of_groups(problem, critic_learning_rate=1e-300)
    before = [weight.clone() for weight in weights_of(groups[0], "actor")]
    step_together(groups, 9)
    assert all(map(torch.equal, *(weights_of(group, "actor") for group in groups)))
    assert not any(map(torch.equal, before, weights_of(groups[0], "actor")))
    moments = [group.learner.critic.optimiser.first for group in groups]
    assert not any(map(torch.equal, *moments))


@pytest.mark.parametrize("coefficient", [0.0, 1.0])
def test_without_a_coefficient_both_are_the_same(coefficient, problem):
    """And with one they are not, after as many steps."""
    groups = pair_of_groups(problem, divergence_coefficient=coefficient)
    step_together(groups, 9)
    pairs = zip(*(weights_of(group, "actor", "critic", "target") for group in groups), strict=True)
    assert {torch.equal(*pair) for pair in pairs} == {coefficient == 0}


# rows as D4RL's loader had them


def batch_by_hand():
    """Ten rows of unique numbers, packed as a file's are: terminals in rows 2, 3 and 9, timeouts in rows 5 and 8."""
    packing, table = Packing(3, 2), np.arange(100, dtype=np.float32).reshape(10, 10) / 100
    terminals, timeouts = np.zeros((2, 10), bool)
    terminals[[2, 3, 9]] = timeouts[[5, 8]] = True
    table[:, packing.alive] = ~terminals
    batch = OfflineDataset(**packing.views(table), terminals=terminals, timeouts=timeouts, valid_next=~timeouts)
    assert np.shares_memory(batch.table(), table)
    return OfflineProblem(3, 2, leaves_the_interval, 0.99, 20, batch)


def all_draws(experience, count):
    """Every row that can be drawn, once each: numbers in the middle of `count` equal parts of [0, 1)."""
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    batch = experience.draw(uniform[None])
    names = ("observations", "actions", "rewards", "alive", "next_observations")
    return [tuple(getattr(batch, name)[0, row].tolist() for name in names) for row in range(count)]


def loader(problem, on, dtype=torch.float64):
    return D4RLLoader(problem, D4RLLoader.Config(on), (0,), dtype=dtype)


def test_d4rl_loader_equals_a_loop():
    """Row i unless it is terminal or the last, with s' = the next row's s, alive unless the next row is terminal."""
    problem = batch_by_hand()
    batch, expected = problem.dataset, []
    for i in range(len(batch) - 1):
        if not batch.terminals[i]:
            rest = (1.0 - batch.terminals[i + 1], batch.observations[i + 1].tolist())
            expected.append((batch.observations[i].tolist(), batch.actions[i].tolist(), float(batch.rewards[i]), *rest))
    assert len(expected) == 7 and [row[3] for row in expected] == [1, 0, 1, 1, 1, 1, 0]
    assert all_draws(loader(problem, on=True), 7) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_d4rl_loader_is_off_by_default_and_leaves_the_batch_alone(dtype):
    """In float32 the table is the batch's own memory, which another algorithm of the same process reads."""
    assert {get_algorithm(name).configure()["d4rl_loader"] for name in ("brac-p", "brac-v")} == {False}
    problem = batch_by_hand()
    plain = Experience(problem, Experience.Config(), (0,), dtype=dtype)
    before = all_draws(plain, 8)  # timeouts are left out
    changed = all_draws(loader(problem, on=True, dtype=dtype), 7)
    assert all_draws(loader(problem, on=False, dtype=dtype), 8) == before == all_draws(plain, 8)
    assert changed[0] != before[0]


# the behaviour policy


def clone_config(**changes):
    return BehaviourPolicy.Config(**{"batch_size": 40, "hidden": (16, 16), "steps": 205, **changes})


def test_fit_is_bc_on_streams_of_its_own(problem):
    """Bit for bit the BC of a seed derived from the run's; 205 steps reported at every second and the last."""
    rows = []
    state, record = BehaviourPolicy.fit(problem, clone_config(), 3, dtype=torch.float64, report=rows.append)
    group = Group(get_algorithm("bc"), problem, [derived_seed(3, "behaviour")])
    metrics = [group.advance(1) for _ in range(205)]
    assert all(map(torch.equal, state["weights"], (weight[0] for weight in group.learner.actor.weights)))
    assert [row["step"] for row in rows] == [*range(2, 205, 2), 205]
    for row in rows:
        recent = metrics[row["step"] - 1 - (row["step"] % 2 == 0) : row["step"]]
        for name in metrics[0]:
            expected = sum(each[name].item() for each in recent) / len(recent)
            assert row[name] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert record["steps"] == 205 and record["seconds"] > 0
    assert {**record, "step": 205} == {**rows[-1], "steps": 205, "seconds": record["seconds"]}
    assert all(math.isfinite(value) for value in record.values())


def test_a_fit_that_diverges_is_an_error(problem):
    with pytest.raises(FloatingPointError, match="the behaviour policy diverged"):
        BehaviourPolicy.fit(problem, clone_config(learning_rate=1e300, steps=20), 0, dtype=torch.float64)


def test_the_stage_is_the_policy_that_was_fitted(problem, generator):
    """Its own settings decide about the range of its log standard deviation."""
    config = clone_config(steps=40, log_std_range=(-2.0, -1.0))
    states = [fitted(BehaviourPolicy, problem, config, seed) for seed in SEEDS]
    stage, rows = BehaviourPolicy(problem, config, states), torch.randn(2, 10, 3, generator=generator, dtype=torch.float64)
    mean, log_std = stage.actor.gaussian(rows)
    for index, state in enumerate(states):
        expected, raw = module(state["weights"])(rows[index]).chunk(2, -1)
        torch.testing.assert_close(mean[index], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_std[index], -2 + torch.sigmoid(2 * raw), rtol=0, atol=1e-12)


def test_settings_of_the_fit_are_bc_s_and_a_number_of_steps():
    bc, clone = (dataclasses.asdict(each.Config()) for each in (BC, BehaviourPolicy))
    assert clone == {**bc, "steps": 1_000_000}


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("brac")


@pytest.fixture
def plan(results):
    def make(*algorithms, **settings):
        small = {"all.behaviour.steps": 30, "all.behaviour.hidden": "8", "brac-v.tau": 0.01, "brac-p.batch_size": 64}
        options = {"seeds": [0], "steps": 4, "evaluate_every": 4, "episodes": 1}
        return plan_run(tasks=["point-angle"], algorithms=algorithms, results=results, settings=small | settings, **options)

    return make


def test_one_fit_is_asked_for_by_both(plan):
    """Their own settings do not enter its identity; those of the fit do."""

    def identities(**settings):
        return [cell.stage_identity("behaviour") for cell in plan("brac-p", "brac-v", **settings).cells]

    (usual,) = {*identities()}
    (longer,) = {*identities(**{"all.behaviour.steps": 31})}
    apart = identities(**{"brac-v.behaviour.action_margin": 0.01})
    assert len({usual, longer, *apart}) == 3 and apart[0] == usual


def test_one_fit_is_shared(plan, results):
    """By both runs, which name it and keep its record."""
    made = plan("brac-p", "brac-v")
    assert execute(made, jobs=1) == {"done": ["point-angle/brac-p/seed-0", "point-angle/brac-v/seed-0"]}
    (file,) = results.glob("stages/*/*/seed-*.pt")
    records = [run.record for run in load_runs(results)]
    assert len(records) == 2
    for record in records:
        assert record["stages"] == {"behaviour": file.parent.name}
        assert record["stage_records"]["behaviour"]["steps"] == 30
    assert records[0]["stage_records"] == records[1]["stage_records"]


# learning and the contract


@pytest.mark.parametrize("divergence", ["kl", "mmd"])
def test_warm_up_brings_the_policy_to_the_behaviour_policy(divergence, point_angle):
    """The divergence falls nearly to what a policy would show that has the behaviour policy's own weights."""
    settings = {"behaviour.steps": 200, "behaviour.learning_rate": 3e-3, "warmup_steps": 1000, "divergence": divergence}
    group = Group(get_algorithm("brac-v"), point_angle, (0,), actor_learning_rate=1e-2, **settings)
    alike = Group(get_algorithm("brac-v"), point_angle, (0,), actor_learning_rate=1e-300, **settings)
    for weight, other in zip(alike.learner.actor.weights, alike.learner.behaviour.actor.weights, strict=True):
        weight.copy_(other)
    least = np.mean([alike.advance(1)["divergence"].item() for _ in range(20)])
    values = [group.advance(1)["divergence"].item() for _ in range(200)]
    assert np.mean(values[-20:]) - least < 0.2 * (values[0] - least)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_contract(changes, problem):
    check_contract(get_algorithm("brac-v"), problem, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, *CHANGES[:2]], ids=str)
def test_compiles_into_one_graph_per_phase(changes, problem):
    check_compiles(get_algorithm("brac-v"), problem, warmup_steps=2, **changes)


def test_a_stopped_fit_goes_on(problem):
    check_resumes(BehaviourPolicy, problem, clone_config(steps=120), at=40)
