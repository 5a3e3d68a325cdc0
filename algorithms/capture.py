"""Work on a GPU recorded once and replayed: one launch instead of hundreds, of which each takes longer than its arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch


class CannotCapture(Exception):
    """The recording broke off. Nothing has been computed: all tensors are as they were."""


class Captured:
    """A CUDA graph of `work`: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    `work` may read and change tensors that keep their place, and nothing else: what it does in Python happens in the first
    calls alone. These run it as it is, since libraries choose kernels and room to work in, and a compiler compiles, where
    nothing may be recorded. The next call records it, which computes nothing, and replays it as every later one does.
    """

    EAGER_CALLS = 3

    def __init__(self, work: Callable[[], object], device: torch.device):
        self.work, self.device = work, device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.calls < self.EAGER_CALLS:
            self.calls += 1
            self._run_beside()
            return
        if self.graph is None:
            self._record()
        assert self.graph is not None
        self.graph.replay()

    def _run_beside(self) -> None:
        """On another stream than the usual one, as recording will be."""
        usual, beside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        beside.wait_stream(usual)
        with torch.cuda.stream(beside):
            self.work()
        usual.wait_stream(beside)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.work()
        except RuntimeError as error:
            raise CannotCapture(str(error).strip().splitlines()[0]) from error
        self.graph = graph


def repeatable(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`work` itself, on a GPU as a graph."""
    return Captured(work, device) if device.type == "cuda" else work
