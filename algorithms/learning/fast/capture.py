"""Work on a GPU recorded once and replayed: one launch instead of hundreds, of which each takes longer than its arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar

import torch


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


def repeatable(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`work` itself; on a GPU a graph of it, as long as that works."""
    if not can_capture(device):
        return work
    captured: Captured | None = Captured(work, device)

    def repeat() -> None:
        nonlocal captured
        if captured is None:
            work()
            return
        try:
            captured()
        except CannotCapture as error:
            captured = None
            if not error.done:
                work()

    return repeat
