"""Steps of a learner: the numbers each step draws, the update, compiled or not, and the sums of its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ....common.streams import torch_stream
from ..learner import Experience, Learner
from .capture import CannotCapture, Captured, can_capture

BLOCK = 100  # steps whose random numbers are drawn together


class StepStreams:
    """Row positions and noise of every step, derived from (seed, block): the same for a seed alone, in a group, resumed.

    They are drawn on the learner's device, whose numbers differ from another kind of device's.
    """

    def __init__(self, learner: Learner):
        self.learner = learner
        self.block = -1
        self.uniform = torch.empty(0)
        self.noise: dict[str, Tensor] = {}

    def prepare(self, step: int) -> bool:
        """Draws the block of this step, where it is not there yet: into the same tensors. True where it did."""
        if step // BLOCK == self.block:
            return False
        self.block = step // BLOCK
        self._draw(self.block)
        return True

    def at(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """For step `step`: uniform numbers (S, B) in float64, and standard normals by name, (S, *shape)."""
        self.prepare(step)
        offset = step % BLOCK
        return self.uniform[offset], {name: values[offset] for name, values in self.noise.items()}

    def at_prepared(self, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same for a step that only the device knows, (1,), of the block that was prepared."""
        offset = step % BLOCK
        noise = {name: values.index_select(0, offset)[0] for name, values in self.noise.items()}
        return self.uniform.index_select(0, offset)[0], noise

    def _draw(self, block: int) -> None:
        learner = self.learner
        device, shapes = learner.device, learner.noise()
        size = (BLOCK, learner.config.batch_size)
        uniform: list[Tensor] = []
        noise: dict[str, list[Tensor]] = {name: [] for name in shapes}
        for seed in learner.seeds:
            stream = torch_stream(seed, "batches", block, device=device)
            uniform.append(torch.rand(*size, generator=stream, dtype=torch.float64, device=device))
            stream = torch_stream(seed, "noise", block, device=device)
            for name, shape in shapes.items():
                noise[name].append(torch.randn(BLOCK, *shape, generator=stream, device=device).to(learner.dtype))
        # the step first, so that one step's numbers are one contiguous piece; later blocks take the place of the first
        if not len(self.uniform):
            self.uniform = torch.stack(uniform, 1)
            self.noise = {name: torch.stack(values, 1) for name, values in noise.items()}
            return
        torch.stack(uniform, 1, out=self.uniform)
        for name, values in noise.items():
            torch.stack(values, 1, out=self.noise[name])


class CannotCompile(Exception):
    """The compiler gave up on a learner. Nothing has been computed: its state is as it was before the step."""


def updater(learner: Learner, compiled: bool) -> Callable[..., dict[str, Tensor]]:
    """`learner.update`, or its compiled form: one full graph for each value of `phase`, compiled at the first step of it.

    Compiled code is kept by place in the source, here for all learners at once, and made general, and slower, where two of them
    differ in a number or a size. So what other learners left is forgotten first.
    """
    if not compiled:
        return learner.update
    torch.compiler.reset()
    graphs: dict[Hashable, Callable[..., dict[str, Tensor]]] = {}

    def update(batch, noise, phase):
        if phase not in graphs:
            graphs[phase] = torch.compile(lambda batch, noise: learner.update(batch, noise, phase), fullgraph=True)
        try:
            return graphs[phase](batch, noise)
        except Exception as error:
            if type(error).__module__ in ("torch._dynamo.exc", "torch._inductor.exc"):
                why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                raise CannotCompile(f"{type(learner).__name__} cannot be compiled ({why})") from error
            raise

    return update


class Steps:
    """The steps of a learner on its experience, and the sums of their metrics.

    capture: makes one piece of work of a whole step, from drawing the batch to the sums, for each phase; by default a CUDA
    graph on a GPU, and nothing elsewhere. Where a step cannot be repeated so it is taken as it is, and `captured` says why.
    """

    def __init__(
        self,
        learner: Learner,
        experience: Experience,
        compiled: bool = False,
        capture: Callable[[Callable[[], object], torch.device], Callable[[], object]] | None = None,
    ):
        self.learner, self.experience = learner, experience
        self.streams, self.update = StepStreams(learner), updater(learner, compiled)
        self.capture = Captured if capture is None and can_capture(learner.device) else capture
        self.captured: bool | str = self.capture is not None  # or why not
        self._pieces: dict[Hashable, Callable[[], object]] = {}
        self._places: dict[str, Any] = {}
        self._now = torch.zeros(1, dtype=torch.long, device=learner.device)
        self._sums: dict[str, Tensor] = {}  # (S,) each
        self._names: dict[Hashable, list[str]] = {}  # of the metrics that come with each phase
        self._taken: Counter[Hashable] = Counter()  # steps of each phase since the sums were emptied
        # the first step whose metrics were not finite, by seed; found on the device, read once an interval
        self._first_bad = torch.full((len(learner.seeds),), -1, dtype=torch.long, device=learner.device)

    def take(self, step: int) -> None:
        """Step number `step` (from 0). What its experience wants to refresh was refreshed before."""
        phase = self.learner.phase(step)
        self.streams.prepare(step)
        self._now.fill_(step)
        if self.captured is True:
            self._take_captured(phase)
        else:
            self._work(phase, *self.streams.at(step))
        self._taken[phase] += 1

    def not_compiled(self) -> None:
        """From now on updates are the learner's own."""
        self.update = self.learner.update
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """They hold their memory, and this object, until they are recorded anew."""
        self._pieces, self._places = {}, {}

    def _take_captured(self, phase: Hashable) -> None:
        """By a recorded piece of work, which is good for as long as every tensor keeps its place and every number its value."""
        assert self.capture is not None
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

    def _work(self, phase: Hashable, uniform: Tensor, noise: dict[str, Tensor]) -> None:
        metrics = self.update(self.experience.draw(uniform), noise, phase)
        self._names[phase] = list(metrics)
        for name, values in metrics.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(values)
            self._sums[name].add_(values)
        bad = ~sum(metrics.values(), torch.zeros_like(self._first_bad)).isfinite() & (self._first_bad < 0)
        self._first_bad.copy_(torch.where(bad, self._now, self._first_bad))

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

    def collect(self) -> tuple[dict[str, list[float]], list[int]]:
        """The mean of each metric since the last call, by seed, and each seed's first step that was not finite, or -1.

        A metric need not come with every phase: its mean is over those steps that have it.
        """
        counts = Counter[str]()
        for phase, taken in self._taken.items():
            counts.update(dict.fromkeys(self._names[phase], taken))
        means = {name: (self._sums[name] / count).tolist() for name, count in counts.items() if count}
        first_bad = self._first_bad.tolist()
        for total in self._sums.values():
            total.zero_()
        self._first_bad.fill_(-1)
        self._taken.clear()
        return means, first_bad
