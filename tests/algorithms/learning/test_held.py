"""Whatever a learner or an experience holds beside its networks is saved and restored, or refused when it is built."""

import random
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.networks import MLP
from mopo_bench.algorithms.learning.networks import Initialiser as Initialised
from mopo_bench.algorithms.learning.optimisation import Adam, gradient
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.learning.resumption import check_resumed_copy
from mopo_bench.algorithms.learning.rollouts import ModelRollouts
from mopo_bench.algorithms.learning.testing import Group, assert_seed_same, check_contract, saved_and_loaded
from mopo_bench.algorithms.mopo import PenalisedRollouts
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.common.streams import numpy_stream, torch_stream

HALF = 5


def going_on(learner, problem, experience=Experience, changed=lambda group: None):
    """Three seeds trained undisturbed, and the same ones trained apart, then resumed together in another order."""
    algorithm = Algorithm("outside", learner, experience)
    whole = Group(algorithm, problem, (0, 1, 2))
    whole.advance(2 * HALF)
    saved = []
    for seeds in ((2,), (0, 1)):
        part = Group(algorithm, problem, seeds)
        part.advance(HALF)
        saved += saved_and_loaded(part.states())
    resumed = Group(algorithm, problem, (2, 0, 1)).load(saved, HALF)
    changed(resumed)
    resumed.advance(HALF)
    return whole, resumed


def assert_goes_on(learner, problem, experience=Experience):
    whole, resumed = going_on(learner, problem, experience)
    for place, index in enumerate((2, 0, 1)):
        assert_seed_same(resumed, place, whole, index, "resumed")
    return whole, resumed


class Scaling(SAC):
    """Rewards are multiplied by `scale()`, which falls at each step."""

    def update(self, batch, noise, phase):
        return super().update(batch._replace(rewards=batch.rewards * self.scale()), noise, phase)


class InPlace(Scaling):
    def build(self):
        super().build()
        self.factor = torch.ones(len(self.seeds), 1, dtype=self.dtype)

    def scale(self):
        return self.factor.mul_(0.9)


class Replaced(InPlace):
    def scale(self):
        self.factor = self.factor * 0.9
        return self.factor


class Shared(InPlace):
    """One number for all seeds, which looks like one of a seed where there is one seed."""

    def build(self):
        super().build()
        self.factor = torch.ones(1, dtype=self.dtype)


class Made(Scaling):
    """There only from the first step on."""

    factor = None

    def scale(self):
        self.factor = torch.ones(len(self.seeds), 1) if self.factor is None else self.factor * 0.9
        return self.factor


class Number(Scaling):
    factor = 1.0

    def scale(self):
        self.factor *= 0.9
        return self.factor


class InsideADict(Scaling):
    def build(self):
        super().build()
        self.kept = {"now": {"factor": [np.array(self.seeds)[:, None] + 1.0, 1.0]}, "name": "x"}

    def scale(self):
        now = self.kept["now"]["factor"]
        now[0] *= 0.9
        now[1] *= 0.9
        return torch.as_tensor(now[0] * now[1])


class LearningRate(SAC):
    def update(self, batch, noise, phase):
        self.actor.optimiser.learning_rate *= 0.8
        return super().update(batch, noise, phase)


class OfItsNetwork(InPlace):
    """A number that the network holds, as one that normalises its inputs does."""

    def build(self):
        super().build()
        self.critic.factor = torch.ones(len(self.seeds), 1, dtype=self.dtype)

    def scale(self):
        return self.critic.factor.mul_(0.9)


class Generators(Scaling):
    """One of each library's, for each seed."""

    def build(self):
        super().build()
        self.streams = [torch_stream(seed, "mine") for seed in self.seeds]
        self.others = [numpy_stream(seed, "mine") for seed in self.seeds]
        self.plain = [random.Random(seed) for seed in self.seeds]

    def scale(self):
        drawn = torch.stack([torch.rand(1, generator=stream) for stream in self.streams])
        drawn = drawn + torch.tensor([[stream.random()] for stream in self.others])
        return drawn + torch.tensor([[stream.random()] for stream in self.plain])


class Initialiser(Scaling):
    """Draws on from where the first weights were drawn."""

    def scale(self):
        return self.initialise.uniform((1,), 1.0)


@pytest.mark.parametrize(
    "learner", [InPlace, Replaced, Shared, Made, Number, InsideADict, LearningRate, OfItsNetwork, Generators, Initialiser]
)
def test_what_changes_is_saved(learner, problem):
    assert_goes_on(learner, problem)


def test_the_test_itself_notices(problem):
    """A resumed scale that begins at one again."""
    whole, resumed = going_on(InPlace, problem, changed=lambda group: group.learner.factor.fill_(1.0))
    with pytest.raises(AssertionError, match="resumed"):
        assert_seed_same(resumed, 0, whole, 2, "resumed")


def test_what_stays_as_it_was_built_is_not_saved(problem):
    """Three features and three seeds: a mean of the dataset is no seed's."""

    class Standardises(SAC):
        def build(self):
            super().build()
            self.mean = torch.tensor(self.problem.dataset.observations, dtype=self.dtype).mean(0)

        def act(self, observations, noise=None):
            return super().act(observations - self.mean, noise)

    whole, resumed = assert_goes_on(Standardises, problem)
    assert all("held" not in state["learner"] for state in whole.states())
    assert torch.equal(resumed.learner.mean, whole.learner.mean)


@pytest.mark.parametrize("name", ["bc", "sac", "mopo", "bear", "brac-v"])
def test_checkpoints_of_this_package_hold_nothing_more(name, problem):
    """Or those that were written before could not be told from those that lost something."""
    group = Group(get_algorithm(name), problem, (0, 1))
    group.advance(3)
    assert "held" not in group.learner.state(0)


class Weighted(Experience):
    """Priorities that grow where it has drawn."""

    def build(self):
        self.counts = torch.zeros(len(self.seeds), 10, dtype=self.dtype)

    def draw(self, uniform):
        self.counts += uniform.sum(1, keepdim=True)
        batch = super().draw(uniform)
        return batch._replace(rewards=batch.rewards + self.counts[:, :1])


class Relabels(Experience):
    """Another table from a refresh on."""

    def refresh(self, step, learner):
        if step == 2:
            self.table = self.table.flip(0).clone()


class Adapts(PenalisedRollouts):
    """A coefficient that grows from refresh to refresh, so that old rows of the ring were made with a smaller one."""

    def build(self):
        super().build()
        self.coefficient = torch.zeros(len(self.seeds), 1, dtype=self.dtype)

    def refresh(self, step, learner):
        super().refresh(step, learner)
        self.coefficient += 1

    def label(self, prediction):
        return prediction.rewards - self.coefficient, prediction.terminals


class Judges(Experience):
    """Rewards are those that a network of its own predicts, which learns from every batch."""

    def build(self):
        initialiser = Initialised([torch_stream(seed, "judge") for seed in self.seeds], self.dtype, self.device)
        self.judge = MLP.create(initialiser, (self.layout.observation_size, 4, 1))
        self.judge.optimiser = Adam(self.judge.weights, 1e-2)

    def draw(self, uniform):
        batch = super().draw(uniform)

        def loss(judge):
            errors = (judge(batch.observations)[..., 0] - batch.rewards).square()
            return errors.mean(1), errors

        gradients, _, _ = gradient(self.judge, loss)
        self.judge.optimiser.step(self.judge.weights, gradients)
        return batch._replace(rewards=self.judge(batch.observations)[..., 0])


@pytest.mark.parametrize("experience", [Weighted, Relabels, Adapts, Judges])
def test_what_changes_in_an_experience_is_saved(experience, problem):
    assert_goes_on(SAC, problem, experience)


def test_a_normaliser_of_the_policy_is_that_of_the_time_of_a_rollout(problem):
    class Normalises(SAC):
        def build(self):
            super().build()
            self.shift = torch.zeros(len(self.seeds), 1, 1, dtype=self.dtype)

        def update(self, batch, noise, phase):
            self.shift += 0.1
            return super().update(batch, noise, phase)

        def act(self, observations, noise=None):
            return super().act(observations + self.shift, noise)

    assert_goes_on(Normalises, problem, ModelRollouts)


class Module(SAC):
    def build(self):
        super().build()
        self.net = torch.nn.Linear(3, 2)


class Optimiser(SAC):
    def build(self):
        super().build()
        self.optimiser = torch.optim.Adam(self.actor.weights)


class OtherOptimiser(SAC):
    def build(self):
        super().build()
        self.actor.optimiser = torch.optim.Adam(self.actor.weights)


class Object(SAC):
    def build(self):
        super().build()
        self.kept = [{"statistics": OrderedDict()}]


class Networks(SAC):
    def build(self):
        super().build()
        self.heads = [MLP.create(self.initialise, (3, 2))]


class Thawed(SAC):
    def build(self):
        super().build()

        @dataclass
        class Statistics:
            count: int = 0

        self.statistics = Statistics()


@pytest.mark.parametrize(
    "learner, said",
    [
        (Module, r"Module\.net is a torch\.Linear, which would be lost when a run resumes: keep it as tensors or in a Network"),
        (Optimiser, r"Optimiser\.optimiser is a torch\.Adam, which would be lost"),
        (OtherOptimiser, r"OtherOptimiser\.actor\.optimiser is a torch\.Adam, which would be lost"),
        (Object, r"Object\.kept\[0\]\['statistics'\] is a collections\.OrderedDict, which would be lost"),
        (Networks, r"Networks\.heads\[0\] is a network in a list or a dict, where it is not saved"),
        (Thawed, r"Thawed\.statistics is a .*Statistics, which would be lost"),
    ],
)
def test_what_cannot_be_saved_is_refused(learner, said, problem):
    with pytest.raises(UserError, match=said) as refused:
        Group(Algorithm("outside", learner), problem, (0,))
    assert "define `state` and `load_states`" in str(refused.value) or learner is Networks
    assert "\n" not in str(refused.value)


def test_a_function_that_is_another_one_later_is_refused(problem):
    class Switches(SAC):
        def build(self):
            super().build()
            self.activation = torch.relu

        def update(self, batch, noise, phase):
            self.activation = torch.tanh
            return super().update(batch, noise, phase)

    group = Group(Algorithm("outside", Switches), problem, (0,))
    group.states()
    group.advance(1)
    with pytest.raises(UserError, match=r"Switches\.activation is another object than `build` made"):
        group.states()


class Module2(SAC):
    """Modules and torch's optimiser, with a state of its own."""

    def build(self):
        super().build()
        torch.manual_seed(self.seeds[0])
        self.net = torch.nn.Linear(3, 1, dtype=self.dtype)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=0.1)

    def update(self, batch, noise, phase):
        with torch.enable_grad():
            bonus = self.net(batch.observations)[..., 0]
            loss = (bonus - batch.rewards).square().mean()
            self.optimiser.zero_grad()
            loss.backward()
        self.optimiser.step()
        return super().update(batch._replace(rewards=batch.rewards + bonus.detach()), noise, phase)

    def state(self, index):
        return {**super().state(index), "net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_states(self, states):
        super().load_states(states)
        self.net.load_state_dict(states[0]["net"])
        self.optimiser.load_state_dict(states[0]["optimiser"])


class Forgets(Module2):
    """All but the moments of its optimiser."""

    def load_states(self, states):
        SAC.load_states(self, states)
        self.net.load_state_dict(states[0]["net"])


class Breaks(Module2):
    def load_states(self, states):
        super().load_states([state["nothing"] for state in states])


class DrawsAnywhere(Scaling):
    def scale(self):
        return torch.rand(1)


def resumed_copy(learner, problem, experience=Experience):
    def make():
        group = Group(Algorithm("outside", learner, experience), problem, (0,))
        return group.learner, group.experience

    check_resumed_copy(make)


def test_a_state_of_its_own_is_taken_and_checked(problem):
    resumed_copy(Module2, problem)
    with pytest.raises(UserError, match=r"Forgets: a copy that was stopped after 4 steps and resumed differs .*not saved"):
        resumed_copy(Forgets, problem)
    with pytest.raises(UserError, match=r"Breaks: a copy .* cannot be resumed \(KeyError: 'nothing'\)"):
        resumed_copy(Breaks, problem)
    with pytest.raises(UserError, match=r"DrawsAnywhere: two copies of one seed differ .*`self.initialise`"):
        resumed_copy(DrawsAnywhere, problem)


def test_tests_of_an_author_ask_the_same(problem):
    check_contract(Algorithm("outside", InPlace), problem)

    class Lost(InPlace):
        derived = SAC.derived | {"factor"}

    with pytest.raises(AssertionError, match="went on differently"):
        check_contract(Algorithm("outside", Lost), problem)
