"""A step that is recorded once and replayed; what cannot be replayed is noticed and taken as it is.

That every algorithm's steps can is a part of the contract, see `mopo_bench.testing`.
"""

import re
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.fast.capture import CannotCapture, Captured, CapturedSteps, can_capture
from mopo_bench.algorithms.learning.fast.stepping import CannotCompile, training_steps
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.learning.steps import BLOCK, TrainingSteps
from mopo_bench.algorithms.learning.testing import SEEDS, Group, Recorded, assert_same, fitted, settings_for
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.trees import tree_map

NAMES = ("bc", "sac", "mbpo", "mopo", "bear", "brac-p", "brac-v")
ENOUGH = BLOCK + 10  # steps, into a second block of random numbers


@pytest.fixture(autouse=True)
def no_replays_yet(monkeypatch):
    monkeypatch.setattr(Recorded, "replays", 0)


def group(algorithm, problem, capture=None, device="cpu", **changes):
    """Three seeds in float64, with their steps, plain or recorded, in place of streams and update."""
    made = Group(algorithm, problem, SEEDS, **changes)
    if device != "cpu":
        configs = algorithm.build_configs(settings_for(algorithm, **changes))
        made.learner, made.experience = on_device(algorithm, configs, problem, device)
    both = made.learner, made.experience
    made.steps = CapturedSteps(*both, capture=capture) if capture else TrainingSteps(*both)
    return made


def on_device(algorithm, configs, problem, device):
    def moved(state):
        return tree_map(lambda each: each.to(device) if isinstance(each, torch.Tensor) else each, state)

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
    captured, plain = group(algorithm, problem, Captured, device="cuda"), group(algorithm, problem, device="cuda")
    assert_equal_runs(captured, plain, tolerance=1e-9)
    assert captured.steps.captured is True


def test_steps_are_those_of_streams_and_update(problem):
    """`TrainingSteps` is what `Group.advance` does by hand."""
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


def test_nothing_is_captured_unless_it_is_asked_for(problem, monkeypatch):
    """And on a GPU."""
    made = group(get_algorithm("sac"), problem)
    for capture, device, kind in ((False, GPU, TrainingSteps), (True, GPU, CapturedSteps), (True, "cpu", TrainingSteps)):
        FakeCuda().install(monkeypatch)
        monkeypatch.setattr(made.learner, "device", torch.device(device))
        monkeypatch.setattr("mopo_bench.algorithms.learning.steps.torch.zeros", lambda *each, **named: None)
        monkeypatch.setattr("mopo_bench.algorithms.learning.steps.torch.full", lambda *each, **named: None)
        monkeypatch.setattr(TrainingSteps, "_bonus", lambda self: None)
        steps = training_steps(made.learner, made.experience, capture=capture)
        assert type(steps) is kind and steps.captured == (kind is CapturedSteps)


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
    assert "record" not in cuda.said


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
    assert len(calls) == 3 + 1 and "replay" not in cuda.said
