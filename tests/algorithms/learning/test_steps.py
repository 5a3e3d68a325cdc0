"""Training steps: their random numbers and the sums of their metrics."""

from dataclasses import dataclass

import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.learner import Learner
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.learning.steps import BLOCK, StepStreams, TrainingSteps
from mopo_bench.algorithms.learning.testing import SEEDS, SMALL, check_contract
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError


class Counted(Learner):
    """Metrics that say which step they are of, some of them in every third step only, and one seed's of step 7 infinite."""

    @dataclass(frozen=True)
    class Config(Learner.Config):
        pass

    def build(self):
        self.number = torch.zeros(1, dtype=torch.float64)

    def phase(self, step):
        return step % 3 == 0

    def act(self, observations, noise=None):
        return torch.zeros(*observations.shape[:2], self.problem.action_size)

    def update(self, batch, noise, phase):
        number = self.number.clone() * torch.ones(len(self.seeds), dtype=torch.float64)
        self.number += 1
        sick = torch.tensor([False, True, False]) & (number == 7)
        metrics = {"number": torch.where(sick, torch.inf, number)}
        return metrics | ({"every third": number} if phase else {})


def test_means_and_the_first_step_that_is_not_finite(problem):
    learner = Counted(problem, Counted.Config(), SEEDS, dtype=torch.float64)
    steps = TrainingSteps(learner, Experience(problem, Experience.Config(), SEEDS, dtype=torch.float64))
    for step in range(5):
        steps.take(step)
    assert steps.collect() == ({"number": [2.0] * 3, "every third": [1.5] * 3}, [-1] * 3)
    for step in range(5, 9):
        steps.take(step)
    means, first_bad = steps.collect()
    assert means == {"number": [6.5, torch.inf, 6.5], "every third": [6.0] * 3} and first_bad == [-1, 7, -1]
    steps.take(9)
    assert steps.collect() == ({"number": [9.0] * 3, "every third": [9.0] * 3}, [-1] * 3)
    steps.take(10)
    assert steps.collect() == ({"number": [10.0] * 3}, [-1] * 3)


def test_streams(problem):
    """A step's numbers, asked for by a number or by a tensor; blocks come in the same place, whatever the order."""
    learner = get_algorithm("sac").learner(problem, SAC.Config(batch_size=SMALL["batch_size"]), SEEDS)
    streams, other = StepStreams(learner), StepStreams(learner)
    first = {step: streams.at(step) for step in (0, 1, BLOCK - 1)}
    assert not torch.equal(first[0][0], first[1][0])
    place = streams.uniform.data_ptr(), streams.noise["next"].data_ptr()
    kept = first[0][0].clone()
    second = streams.at(BLOCK + 3)[1]["now"].clone()
    assert (streams.uniform.data_ptr(), streams.noise["next"].data_ptr()) == place
    other.prepare(BLOCK + 3)
    assert torch.equal(other.at_prepared(torch.tensor([BLOCK + 3]))[1]["now"], second)
    assert torch.equal(streams.at(0)[0], kept) and torch.equal(other.at(0)[0], kept)


class WithUniforms(SAC):
    def uniforms(self):
        return {"share": (7, 2)}

    def update(self, batch, noise, phase):
        return super().update(batch, noise, phase) | {"share": noise["share"].mean((1, 2))}


def test_uniform_noise(problem):
    """It comes beside the normals, and changes none of them; a name stands for one or the other."""
    config = SAC.Config(batch_size=SMALL["batch_size"])
    streams, without = StepStreams(WithUniforms(problem, config, SEEDS)), StepStreams(SAC(problem, config, SEEDS))
    values = torch.stack([streams.at(step)[1]["share"] for step in range(BLOCK)])
    assert values.shape == (BLOCK, 3, 7, 2) and 0 <= values.min() < 0.01 < 0.99 < values.max() < 1
    assert (values.mean((0, 2, 3)) - 0.5).abs().max() < 0.05 and len(values.unique()) > 4000
    for name, expected in without.at(5)[1].items():
        assert torch.equal(streams.at(5)[1][name], expected)
    check_contract(Algorithm("with uniforms", WithUniforms), problem)

    class Twice(SAC):
        uniforms = SAC.noise

    with pytest.raises(UserError, match="Twice: next, now cannot be both"):
        StepStreams(Twice(problem, config, SEEDS))
