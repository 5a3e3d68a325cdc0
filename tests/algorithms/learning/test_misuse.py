"""What an author may get wrong is told in one line that names the class, what was expected and what came."""

from dataclasses import dataclass

import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.fast.stepping import training_steps
from mopo_bench.algorithms.learning.learner import Learner
from mopo_bench.algorithms.learning.registry import Algorithm
from mopo_bench.algorithms.learning.testing import Group
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError


def first_steps(learner, problem, steps=1):
    group = Group(Algorithm("outside", learner), problem, (0, 1, 2))
    made = training_steps(group.learner, group.experience)
    for step in range(steps):
        made.take(step)


def updating(change):
    class Outside(SAC):
        def update(self, batch, noise, phase):
            return change(super().update(batch, noise, phase))

    return Outside


def acting(change):
    class Outside(SAC):
        def act(self, observations, noise=None):
            return change(super().act(observations, noise))

    return Outside


class Mean(SAC):
    def update(self, batch, noise, phase):
        def actor_loss(actor):
            return actor(batch.observations, noise["now"])[1].mean()

        self.minimise(self.actor, actor_loss)
        return super().update(batch, noise, phase)


class OfRows(SAC):
    def update(self, batch, noise, phase):
        self.minimise(self.actor, lambda actor: actor(batch.observations, noise["now"]))
        return super().update(batch, noise, phase)


class NoLoss(SAC):
    def update(self, batch, noise, phase):
        self.minimise(self.actor, lambda actor: None)
        return super().update(batch, noise, phase)


LOSS = r"expected a loss of shape \(3,\), a number per seed, or a pair of one and tensors"
METRICS = r"Outside.update: expected a dict of metrics, each a tensor of shape \(3,\), a number per seed"


@pytest.mark.parametrize(
    "learner, said",
    [
        (Mean, rf"Mean.update: actor_loss: {LOSS}, got a tensor of shape \(\); reduce with per_seed"),
        (OfRows, rf"OfRows.update: lambda: {LOSS}, got a tensor of shape \(3, 40, 2\)"),
        (NoLoss, rf"NoLoss.update: lambda: {LOSS}, got nothing"),
        (updating(lambda metrics: None), rf"{METRICS}, got nothing"),
        (updating(lambda metrics: {}), rf"{METRICS}, got {{}}"),
        (updating(lambda metrics: metrics["critic_loss"]), rf"{METRICS}, got a tensor of shape \(3,\)"),
        (updating(lambda metrics: metrics | {"x": 1.0}), rf"{METRICS}, got x as a float"),
        (updating(lambda metrics: metrics | {"x": torch.ones(())}), rf"{METRICS}, got x as a tensor of shape \(\); reduce"),
        (updating(lambda metrics: metrics | {1: torch.ones(3)}), rf"{METRICS}, got the name 1"),
        (updating(lambda metrics: metrics | {"x": torch.ones(3, requires_grad=True)}), "x keeps the graph of its gradient"),
        (acting(lambda actions: actions[..., :1]), r"act: expected actions of shape \(3, 3, 2\) .* got a tensor .*\(3, 3, 1\)"),
        (acting(lambda actions: actions[0]), r"act: expected actions of shape \(3, 3, 2\) .* got a tensor of shape \(3, 2\)"),
        (acting(lambda actions: None), r"act: expected actions of shape \(3, 3, 2\) .* got nothing"),
        (acting(lambda actions: actions * torch.nan), "act: expected finite actions"),
        (acting(lambda actions: actions * 1e30), r"act: expected actions in \[-1, 1\], got one of size .*e\+"),
        (acting(lambda actions: actions.requires_grad_()), "act: its actions keep the graph"),
    ],
)
def test_at_the_first_step(learner, said, problem):
    with pytest.raises(UserError, match=said) as refused:
        first_steps(learner, problem)
    assert "\n" not in str(refused.value)


def test_metrics_that_come_and_go_within_a_phase(problem):
    class Sometimes(SAC):
        calls = 0

        def update(self, batch, noise, phase):
            self.calls += 1
            metrics = super().update(batch, noise, phase)
            return metrics if self.calls % 2 else {"actor_loss": metrics["actor_loss"]}

    said = r"the same metrics at every step of a phase \(critic_loss, .*\), got actor_loss; give steps of two kinds two values"
    with pytest.raises(UserError, match=said):
        first_steps(Sometimes, problem, 2)


def test_a_learner_of_nan_is_not_taken_for_a_wrong_one(problem):
    """One that diverged and is built again."""
    group = Group(Algorithm("outside", SAC), problem, (0, 1))
    group.learner.actor.weights[0][1] = torch.nan
    training_steps(group.learner, group.experience).take(0)


def test_what_a_class_must_have():
    class NoDataclass(SAC):
        class Config:
            batch_size = 3

    class Undecorated(SAC):
        class Config(SAC.Config):
            width: int = 3

    class NoDefault(SAC):
        @dataclass(frozen=True)
        class Config:
            batch_size: int
            width: int

    class NoBatchSize(SAC):
        @dataclass(frozen=True)
        class Config:
            width: int = 3

    class Abstract(Learner):
        def build(self):
            pass

    class Typed(Experience):
        Config = dict

    for learner, said in {
        NoDataclass: r"NoDataclass.Config is no dataclass: write @dataclass\(frozen=True\) above it",
        Undecorated: "Undecorated.Config is no dataclass",
        NoDefault: "NoDefault.Config has no default for batch_size, width",
        NoBatchSize: "NoBatchSize.Config has no batch_size",
        Abstract: "Abstract does not define update and act",
        dict: "dict is no Learner: make it a subclass of mopo_bench.Learner",
    }.items():
        with pytest.raises(UserError, match=f"^mine: {said}"):
            Algorithm("mine", learner)
    for experience, said in {Typed: "Typed.Config is no dataclass", SAC: "SAC is no Experience"}.items():
        with pytest.raises(UserError, match=f"^mine: {said}"):
            Algorithm("mine", SAC, experience)
