"""Work on a GPU recorded once and replayed: one launch instead of hundreds, of which each takes longer than its arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ....common.trees import tree_leaves
from ..experience import Experience
from ..learner import Learner
from ..steps import TrainingSteps, Update


class CannotCapture(Exception):
    """Work that cannot be replayed. `done`: this call has done it; else nothing was computed, and tensors are as they were."""

    def __init__(self, why: str, done: bool):
        super().__init__(why)
        self.done = done


class Captured:
    """A CUDA graph of `work`: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    `work` may read and change tensors that keep their place, and nothing else: what it does in Python happens in the first
    calls alone. These run it as it is, since libraries choose kernels and room to work in, and a compiler compiles, where
    nothing may be recorded. The next call records it, which computes nothing, and replays it as every later one does.
    """

    EAGER_CALLS = 3
    broken: ClassVar[str] = ""  # why a recording failed: torch's allocator may not stand another one in this process
    _streams: ClassVar[dict[torch.device, torch.cuda.Stream]] = {}  # one for all: libraries keep room to work in by stream

    def __init__(self, work: Callable[[], object], device: torch.device):
        self.work, self.device = work, device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.calls < self.EAGER_CALLS:
            self.calls += 1
            self._run_beside(checked=self.calls == self.EAGER_CALLS)
            return
        if self.graph is None:
            self.graph = self._recorded()
        self.graph.replay()

    @property
    def stream(self) -> torch.cuda.Stream:
        if self.device not in self._streams:
            self._streams[self.device] = torch.cuda.Stream(self.device)
        return self._streams[self.device]

    def _run_beside(self, checked: bool) -> None:
        """On the stream of the recording. `checked`: that it never waits for the device, as when a number is asked for."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream), warnings.catch_warnings(record=checked) as said:
            if checked:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
            try:
                self.work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        usual.wait_stream(self.stream)
        if waits := [str(each.message) for each in said or () if "synchronizing" in str(each.message)]:
            raise CannotCapture(waits[0].splitlines()[0], done=True)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.work()
        except RuntimeError as error:
            torch.cuda.set_stream(usual)  # a recording that breaks off leaves its own
            cause: BaseException = error
            while cause.__context__ is not None:  # the last of several complaints says least
                cause = cause.__context__
            Captured.broken = " ".join(str(cause).split("\n")[0].split()) or type(cause).__name__
            raise CannotCapture(Captured.broken, done=False) from error
        return graph


def can_capture(device: torch.device) -> bool:
    return device.type == "cuda" and not Captured.broken


Capture = Callable[[Callable[[], object], torch.device], Callable[[], object]]


class CapturedSteps(TrainingSteps):
    """Training steps of which each is one piece of work, from drawing the batch to the sums, recorded once for each phase.

    capture: makes the recording, by default a CUDA graph. Where a step cannot be repeated so it is taken as it is, and
    `captured` says why.
    """

    def __init__(
        self, learner: Learner, experience: Experience, update: Update | None = None, capture: Capture = Captured
    ) -> None:
        super().__init__(learner, experience, update)
        self.capture = capture
        self.captured = True
        self._pieces: dict[Hashable, Callable[[], object]] = {}
        self._places: dict[str, Any] = {}

    def forget_graphs(self) -> None:
        """They hold their memory, and this object, until they are recorded anew."""
        self._pieces, self._places = {}, {}

    def _take(self, step: int, phase: Hashable) -> None:
        """By a recorded piece of work, which is good for as long as every tensor keeps its place and every number its value."""
        if self.captured is not True:
            return super()._take(step, phase)
        if (places := self._where()) != self._places:
            self.forget_graphs()
            self._places = places
        first = phase not in self._pieces
        if first:
            self._pieces[phase] = self.capture(partial(self._work_captured, phase), self.learner.device)
        try:
            self._pieces[phase]()
        except CannotCapture as error:
            self._give_up(str(error))
            if not error.done:
                self._work_captured(phase)
        except BaseException:
            del self._pieces[phase]
            raise
        if first and (moved := sorted(k for k, v in self._where().items() if places.get(k) != v)):
            self._give_up(f"its step gives a new {', '.join(moved)}")

    def _give_up(self, why: str) -> None:
        self.captured = f"{type(self.learner).__name__} cannot be captured: {why}"
        self.forget_graphs()

    def _work_captured(self, phase: Hashable) -> None:
        self._work(phase, *self.streams.at_prepared(self._now))

    def _where(self) -> dict[str, Any]:
        """The places of the tensors, and the numbers, that a recorded step has for good.

        A tensor on another device has its contents as its place: a recording reads it once.
        """
        learner, found = self.learner, dict[str, Any]()
        for owner, each in (("learner", learner), ("experience", self.experience)):
            for name, value in vars(each).items():
                if isinstance(value, Tensor):
                    found[f"{owner}.{name}"] = value.data_ptr() if value.device == self._now.device else value.tolist()
                elif isinstance(value, (bool, int, float)):
                    found[f"{owner}.{name}"] = value
                elif owner == "learner" and isinstance(value, (list, dict)):
                    found[f"{owner}.{name}"] = [leaf.data_ptr() for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        for name, network in learner.networks().items():
            adam, own = network.optimiser, list(network.weights)
            if adam is not None:
                own += [*adam.first, *adam.second, adam.count]
                found[f"learner.{name}.optimiser"] = (adam.learning_rate, *adam.decays)
            found[f"learner.{name}"] = [tensor.data_ptr() for tensor in own]
        return found
