"""A step that is recorded once and replayed does what the step does; what cannot be replayed is noticed and taken as it is.

A CUDA graph wants a GPU. Elsewhere its part is played by a recording of torch's own operations on the same tensors: what is
done in Python, or where a tensor is replaced, is lost in it just so.
"""

import re
from dataclasses import dataclass

import pytest
import torch
from contract import SEEDS, assert_same
from mopo_bench.algorithms.capture import CannotCapture, Captured
from mopo_bench.algorithms.learner import Experience, Learner
from mopo_bench.algorithms.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.sac import SAC
from mopo_bench.algorithms.stepping import BLOCK, Steps, StepStreams
from support import SMALL, Group, fitted, settings_for
from torch.fx.experimental.proxy_tensor import make_fx

NAMES = ("bc", "sac", "mbpo", "mopo", "bear", "brac-p", "brac-v")
ENOUGH = BLOCK + 10  # steps, into a second block of random numbers


class Recorded:
    """`Captured`, on a CPU: first calls as they are, then a recording."""

    replays = 0

    def __init__(self, work, device):
        self.work, self.calls, self.program = work, 0, None

    def __call__(self):
        self.calls += 1
        if self.calls <= Captured.EAGER_CALLS:
            self.work()
        elif self.program is None:
            try:
                self.program = make_fx(self.work)()  # computes, too
            except RuntimeError as error:
                raise CannotCapture(str(error).splitlines()[0]) from error
        else:
            Recorded.replays += 1
            self.program()


@pytest.fixture(autouse=True)
def no_replays_yet(monkeypatch):
    monkeypatch.setattr(Recorded, "replays", 0)


def group(algorithm, problem, capture=None, device="cpu", **changes):
    """Three seeds in float64, with their `Steps` in place of streams and update."""
    made = Group(algorithm, problem, SEEDS, **changes)
    if device != "cpu":
        configs = algorithm.build_configs(settings_for(algorithm, **changes))
        made.learner, made.experience = on_device(algorithm, configs, problem, device)
    made.steps = Steps(made.learner, made.experience, capture=capture)
    return made


def on_device(algorithm, configs, problem, device):
    def moved(state):
        return torch.utils._pytree.tree_map(lambda each: each.to(device) if isinstance(each, torch.Tensor) else each, state)

    stages = {
        name: stage(problem, configs[name], [moved(fitted(stage, problem, configs[name], seed)) for seed in SEEDS])
        for name, stage in algorithm.stages.items()
    }
    common = {"dtype": torch.float64, "stages": stages, "device": device}
    learner = algorithm.learner(problem, configs["learner"], SEEDS, **common)
    return learner, algorithm.experience(problem, configs["experience"], SEEDS, **common)


def take(made, steps=ENOUGH):
    for step in range(steps):
        made.experience.refresh(step, made.learner)
        made.steps.take(step)
    return made.steps.collect()


def assert_equal_runs(made, plain, steps=ENOUGH, tolerance=0):
    found, expected = take(made, steps), take(plain, steps)
    assert_same(made.states(), plain.states(), "recorded steps differ from plain ones", tolerance)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps(name, problem):
    algorithm = get_algorithm(name)
    phases = 2 if "warmup_steps" in algorithm.defaults() else 1
    changes = {"warmup_steps": 20} if phases == 2 else {}
    recorded, plain = group(algorithm, problem, Recorded, **changes), group(algorithm, problem, **changes)
    assert_equal_runs(recorded, plain)
    assert recorded.steps.captured is True and plain.steps.captured is False
    assert Recorded.replays == ENOUGH - phases * (Captured.EAGER_CALLS + 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_captured_steps(name, problem):
    """On a GPU against the same steps there, as they are; to rounding, since kernels are chosen anew."""
    algorithm = get_algorithm(name)
    captured, plain = group(algorithm, problem, device="cuda"), group(algorithm, problem, device="cuda")
    plain.steps.captured = False
    assert_equal_runs(captured, plain, tolerance=1e-9)
    assert captured.steps.captured is True


def test_steps_are_those_of_streams_and_update(problem):
    """`Steps` is what `Group.advance` does by hand."""
    by_hand, made = Group(get_algorithm("mopo"), problem, SEEDS), group(get_algorithm("mopo"), problem)
    last = by_hand.advance(ENOUGH)
    take(made, ENOUGH - 1)
    made.experience.refresh(ENOUGH - 1, made.learner)
    made.steps.take(ENOUGH - 1)
    means, _ = made.steps.collect()
    assert_same(made.states(), by_hand.states(), "differs", 0)
    assert means == {name: values.tolist() for name, values in last.items()}  # of one step since the sums were emptied


class Replaces(SAC):
    """Its target network is a new one after each step."""

    def update(self, batch, noise, phase):
        metrics = super().update(batch, noise, phase)
        self.target.weights = [weight.clone() for weight in self.target.weights]
        return metrics


class Counts(SAC):
    """Its temperature's learning rate falls with a count that Python keeps."""

    taken = 0

    def update(self, batch, noise, phase):
        self.taken = self.taken + 1
        self.log_temperature.optimiser.learning_rate = 1e-3 / self.taken
        return super().update(batch, noise, phase)


class Asks(SAC):
    """What it does depends on a number of the device, whose value is not known while recording."""

    def update(self, batch, noise, phase):
        if float(batch.rewards.sum()) > 1e9:
            raise AssertionError
        return super().update(batch, noise, phase)


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        (Replaces, "its step gives a new learner.target"),
        (Counts, "its step gives a new learner.taken"),
        (Asks, r"Asks cannot be captured \(.*value out of a tracing tensor"),
    ],
)
def test_what_cannot_be_replayed_is_taken_as_it_is(learner, reason, problem):
    algorithm = Algorithm("odd", learner)
    recorded = group(algorithm, problem, Recorded)
    assert_equal_runs(recorded, group(algorithm, problem))
    assert re.search(reason, recorded.steps.captured)
    assert Recorded.replays == 0


class Regrows(Experience):
    """Replaces its table in a refresh."""

    def refresh(self, step, learner):
        if step == BLOCK:
            self.table = self.table.flip(0).clone()


def test_tensors_that_move_between_steps_are_noticed(problem):
    """At the next block of random numbers: what is recorded is recorded anew."""
    algorithm = Algorithm("regrows", SAC, Regrows)
    recorded = group(algorithm, problem, Recorded)
    assert_equal_runs(recorded, group(algorithm, problem), steps=2 * BLOCK)
    assert recorded.steps.captured is True
    assert Recorded.replays == 2 * (BLOCK - Captured.EAGER_CALLS - 1)


class Counted(Learner):
    """Metrics that say which step they are of, some of them in every third step only, and one seed's of step 7 infinite."""

    @dataclass(frozen=True)
    class Config(Learner.Config):
        pass

    def build(self):
        self.number = torch.zeros(1, dtype=torch.float64)

    def phase(self, step):
        return step % 3 == 0

    def update(self, batch, noise, phase):
        number = self.number.clone() * torch.ones(len(self.seeds), dtype=torch.float64)
        self.number += 1
        sick = torch.tensor([False, True, False]) & (number == 7)
        metrics = {"number": torch.where(sick, torch.inf, number)}
        return metrics | ({"every third": number} if phase else {})


def test_means_and_the_first_step_that_is_not_finite(problem):
    learner = Counted(problem, Counted.Config(), SEEDS, dtype=torch.float64)
    steps = Steps(learner, Experience(problem, Experience.Config(), SEEDS, dtype=torch.float64))
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
