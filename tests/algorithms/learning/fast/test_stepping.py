"""A step that is recorded once and replayed; what cannot be replayed is noticed and taken as it is.

That every algorithm's steps can is a part of the contract, see `contract.py`.
"""

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from contract import SEEDS, Recorded, assert_same
from mopo_bench.algorithms.learning import dynamics
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.fast.capture import CannotCapture, Captured, can_capture, repeatable
from mopo_bench.algorithms.learning.fast.stepping import BLOCK, CannotCompile, Steps, StepStreams
from mopo_bench.algorithms.learning.learner import Experience, Learner
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.sac import SAC
from support import SMALL, Group, fitted, settings_for

NAMES = ("bc", "sac", "mbpo", "mopo", "bear", "brac-p", "brac-v")
ENOUGH = BLOCK + 10  # steps, into a second block of random numbers


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
        (Counts, r"its step gives a new learner\.log_temperature\.optimiser, learner\.taken$"),
        (Asks, r"Asks cannot be captured: .*value out of a tracing tensor"),
    ],
)
def test_what_cannot_be_replayed_is_taken_as_it_is(learner, reason, problem):
    algorithm = Algorithm("odd", learner)
    recorded = group(algorithm, problem, Recorded)
    assert_equal_runs(recorded, group(algorithm, problem))
    assert re.search(reason, recorded.steps.captured)
    assert Recorded.replays == 0


CHANGE = 37  # a step within a block of random numbers


class Regrows(Experience):
    """Replaces its table in a refresh."""

    def refresh(self, step, learner):
        if step == CHANGE:
            self.table = self.table.flip(0).clone()


class Schedules(Experience):
    """Lowers a learning rate in a refresh."""

    def refresh(self, step, learner):
        if step == CHANGE:
            learner.critic.optimiser.learning_rate /= 10


@pytest.mark.parametrize("experience", [Regrows, Schedules])
def test_what_changes_between_steps_is_noticed(experience, problem):
    """At once: what is recorded is recorded anew."""
    algorithm = Algorithm("changes", SAC, experience)
    recorded = group(algorithm, problem, Recorded)
    assert_equal_runs(recorded, group(algorithm, problem))
    assert recorded.steps.captured is True
    assert Recorded.replays == ENOUGH - 2 * (Captured.EAGER_CALLS + 1)


def test_a_new_phase_may_begin_with_such_a_change(problem):
    class Phases(SAC):
        def phase(self, step):
            return step >= CHANGE

    algorithm = Algorithm("phases", Phases, Regrows)
    recorded = group(algorithm, problem, Recorded)
    assert_equal_runs(recorded, group(algorithm, problem))
    assert recorded.steps.captured is True


def test_compiled_no_more(problem):
    """A learner that turns out not to compile goes on in recorded eager steps; an odd one is still noticed."""
    for learner, captured in ((SAC, True), (Counts, False)):
        algorithm = Algorithm("odd", learner)
        recorded, plain = group(algorithm, problem, Recorded), group(algorithm, problem)

        def gives_up(*arguments):
            raise CannotCompile("said the compiler")

        recorded.steps.update = gives_up
        with pytest.raises(CannotCompile):
            recorded.steps.take(0)
        recorded.steps.not_compiled()
        assert_equal_runs(recorded, plain)
        assert (recorded.steps.captured is True) == captured


def test_steps_of_a_fit(problem, monkeypatch):
    """Full batches are recorded; the last one of an epoch is smaller."""
    config = Dynamics.Config(networks=4, elites=2, hidden=(16, 16), weight_decays=(1e-5,) * 3, batch_size=64, max_epochs=5)
    expected = Dynamics.fit(problem, config, 0, dtype=torch.float64)[0]
    monkeypatch.setattr(dynamics, "repeatable", Recorded)
    found, record = Dynamics.fit(problem, config, 0, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    full, rest = divmod(record["rows"], 64)
    assert rest and Recorded.replays == 5 * full - Captured.EAGER_CALLS - 1


class FakeCuda:
    """Stands where torch keeps CUDA: says in `said` what it is asked for."""

    def __init__(self, fails=False):
        self.said, self.fails, self.mode = [], fails, "default"

    def __call__(self, name):
        @contextmanager
        def context(*arguments, **options):
            self.said.append(name)
            yield
            if name == "record" and self.fails:
                try:
                    raise RuntimeError("operation not permitted when stream is capturing\nmore")
                except RuntimeError as error:
                    raise RuntimeError("capture invalidated") from error

        return context

    def install(self, monkeypatch):
        stream = SimpleNamespace(wait_stream=lambda other: None)
        graph = SimpleNamespace(replay=lambda: self.said.append("replay"))
        for name, fake in {
            "current_stream": lambda device: stream,
            "Stream": lambda device: stream,
            "set_stream": lambda stream: self.said.append("set stream"),
            "stream": self("beside"),
            "graph": self("record"),
            "CUDAGraph": lambda: graph,
            "set_sync_debug_mode": lambda mode: setattr(self, "mode", mode),
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(Captured, "broken", "")
        monkeypatch.setattr(Captured, "_streams", {})
        return self


GPU = torch.device("cuda")


def test_order_of_a_capture(monkeypatch):
    """Three calls beside the usual stream, a recording, replays. What CUDA says to it `test_captured_steps` asks, on a GPU."""
    cuda, calls = FakeCuda().install(monkeypatch), []
    captured = Captured(lambda: calls.append(cuda.mode), GPU)
    for _ in range(6):
        captured()
    assert cuda.said == ["beside"] * 3 + ["record"] + ["replay"] * 3
    assert calls == ["default", "default", "warn", "default"]


def test_work_that_waits_for_the_device_is_not_recorded(monkeypatch):
    cuda, calls = FakeCuda().install(monkeypatch), []

    def waits():
        calls.append(1)
        if cuda.mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    captured = Captured(waits, GPU)
    captured()
    captured()
    with pytest.raises(CannotCapture, match="synchronizing") as refused:
        captured()
    assert refused.value.done and len(calls) == 3 and cuda.mode == "default"
    step, calls[:] = repeatable(waits, GPU), []
    for _ in range(5):
        step()
    assert len(calls) == 5 and "record" not in cuda.said


def test_a_recording_that_fails(monkeypatch):
    """Its reason is the first complaint; the usual stream is set again; there is no other recording in this process."""
    cuda, calls = FakeCuda(fails=True).install(monkeypatch), []
    captured = Captured(lambda: calls.append(1), GPU)
    for _ in range(3):
        captured()
    with pytest.raises(CannotCapture, match=r"^operation not permitted when stream is capturing$") as refused:
        captured()
    assert not refused.value.done and cuda.said[-2:] == ["record", "set stream"]
    assert not can_capture(GPU)
    monkeypatch.setattr(Captured, "broken", "")
    step, calls[:] = repeatable(lambda: calls.append(1), GPU), []
    for _ in range(5):
        step()
    assert len(calls) == 3 + 1 + 2 and "replay" not in cuda.said  # what the recording began is begun again
    work = lambda: None  # noqa: E731
    assert repeatable(work, GPU) is work


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
