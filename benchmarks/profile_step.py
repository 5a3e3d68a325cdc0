"""Where the time of a training step goes: python benchmarks/profile_step.py [--steps N] [--out FILE.md]

Ours eager and compiled, and d3rlpy's where it is installed. Shares come from torch.profiler, which slows small operations down;
milliseconds are these shares of a step that was timed without it, by the processor's time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import parts
import torch
import torch._inductor.config
from mopo_bench.harness.runs.machine import matmul_precision, prepare_process
from parts import PeerTraining, Training
from torch.profiler import ProfilerActivity, profile, record_function

PRODUCTS, OPTIMISER, TARGETS, ELEMENTWISE = "matrix products", "optimisers", "slow targets", "elementwise and the rest"
RANDOM, DRAWING, OVERHEAD = "random numbers", "drawing the batch", "Python, autograd, dispatch, guards"
CATEGORIES = (PRODUCTS, OPTIMISER, TARGETS, ELEMENTWISE, RANDOM, DRAWING, OVERHEAD)
MULTIPLY = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise", "mkl::_mkl_linear"}
DRAW = {"aten::randn", "aten::rand", "aten::normal_", "aten::uniform_", "aten::random_", "aten::randn_like", "aten::normal"}
Work = Callable[..., Any]

NOTES = """\
- Milliseconds of the processor without the profiler, divided by the profiler's shares. Batches of 256, 17 observations,
  6 actions; BEAR after its warm-up.
- In the compiled step operations are fused: kernels with Adam's moments in them are the optimisers', whatever else they do
  (the slow targets, parts of a backward pass)."""


def named(category: str, work: Work) -> Work:
    """`work` as a range of the profile."""

    def ranged(*arguments: Any, **keywords: Any) -> Any:
        with record_function(category):
            return work(*arguments, **keywords)

    return ranged


def ours(name: str, compiled: bool, **changes: Any) -> Training:
    training = Training(name, compiled=compiled, **changes)
    for name in ("prepare", "at"):
        setattr(training.taken.streams, name, named(RANDOM, getattr(training.taken.streams, name)))
    training.experience.draw = named(DRAWING, training.experience.draw)
    if not compiled:  # the compiler sees into these; its kernels are told apart by name
        training.learner.follow = named(TARGETS, training.learner.follow)
        for network in training.learner.networks().values():
            if network.optimiser is not None:
                network.optimiser.step = named(OPTIMISER, network.optimiser.step)
    return training


@contextmanager
def theirs(name: str, **changes: Any) -> Iterator[PeerTraining]:
    from d3rlpy.torch_utility import TorchMiniBatch

    training, from_batch = PeerTraining(name, **changes), TorchMiniBatch.from_batch
    training.dataset.sample_transition_batch = named(DRAWING, training.dataset.sample_transition_batch)
    training.algorithm.impl.update_critic_target = named(TARGETS, training.algorithm.impl.update_critic_target)
    TorchMiniBatch.from_batch = named(DRAWING, from_batch)
    try:
        yield training
    finally:
        TorchMiniBatch.from_batch = from_batch


def category(event: Any) -> str:
    """Of the time that an event spent outside the events within it."""
    if event.name in MULTIPLY:
        return PRODUCTS
    if "cpp_fused" in event.name:  # a kernel of the compiler, named by what was fused into it
        if "lerp" in event.name:  # Adam's moments; the slow targets, where nothing divides by a root
            return OPTIMISER if "sqrt" in event.name else TARGETS
        return ELEMENTWISE
    around = event
    while around is not None:  # the nearest range; torch's optimisers bring their own
        if around.name in CATEGORIES:
            break
        if around.name.startswith("Optimizer."):
            return OPTIMISER
        around = around.cpu_parent
    if around is not None and around.name == DRAWING:
        return DRAWING
    if event.name in DRAW:
        return RANDOM
    if around is not None:
        return around.name
    return ELEMENTWISE if event.name.startswith("aten::") else OVERHEAD


def profiled(training: Any, steps: int) -> Counter[str]:
    """Shares of a step by category."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        for _ in range(steps):
            with record_function("step"):
                training.steps(1)
    spent: Counter[str] = Counter()
    for event in found.events():
        if within_step(event):
            spent[category(event)] += event.self_cpu_time_total
    return Counter({name: time / spent.total() for name, time in spent.items()})


def within_step(event: Any) -> bool:
    while event is not None:
        if event.name == "step":
            return True
        event = event.cpu_parent
    return False


class Profile(NamedTuple):
    kind: str
    seconds: float  # of a step, by the processor's time
    shares: Counter[str]
    flops: int

    @property
    def rate(self) -> float:
        """Of the matrix products."""
        return self.flops / (self.seconds * self.shares[PRODUCTS])


def profiles(name: str, steps: int) -> list[Profile]:
    changes = {"warmup_steps": 0} if name == "bear" else {}
    own, flops = matmul_precision(), parts.flops_of_step(name, **changes)
    with ExitStack() as stack:
        kinds = {
            "ours, eager": (ours(name, False, **changes), own, flops),
            "ours, compiled": (ours(name, True, **changes), own, flops),
        }
        if find_spec("d3rlpy"):
            peer = stack.enter_context(theirs(name, **changes))
            kinds["d3rlpy"] = (peer, "highest", parts.flops_of(lambda: peer.steps(1)))
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(parts.sized(6, 2)):
            for kind, (training, backend, _) in kinds.items():
                with parts.products(backend):
                    taken = parts.timed(partial(training.steps, steps), time.process_time)
                if turn > 0:  # the first compiles
                    seconds[kind].append(taken / steps)
        found = []
        for kind, (training, backend, count) in kinds.items():
            with parts.products(backend):
                found.append(Profile(kind, statistics.median(seconds[kind]), profiled(training, steps), count))
    return found


def table(name: str, found: Sequence[Profile]) -> list[str]:
    lines = [["ms of a step", *(each.kind for each in found)], ["---"] * (len(found) + 1)]
    for part in CATEGORIES:
        lines.append([part, *(f"{each.seconds * each.shares[part] * 1e3:.2f} ({each.shares[part]:.0%})" for each in found)])
    lines.append(["**all**", *(f"**{each.seconds * 1e3:.2f}**" for each in found)])
    lines.append(["matrix products of a step, MFLOP", *(f"{each.flops / 1e6:.0f}" for each in found)])
    lines.append(["their rate, GFLOP/s", *(f"{each.rate / 1e9:.0f}" for each in found)])
    return [f"**{name.upper()}**", "", *("| " + " | ".join(line) + " |" for line in lines), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=["sac", "bear"], default=["sac", "bear"])
    parser.add_argument("--steps", type=int, default=parts.sized(40, 5))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_process()
    torch._inductor.config.cpp.enable_kernel_profile = True
    facts = parts.machine()
    text = ["# Where the time of a training step goes", ""]
    for name in options.algorithms:
        text += table(name, profiles(name, options.steps))
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    text += [
        f"- {facts['cpu_model']} ({facts['cpu']}), one thread; {versions}; commit {facts['commit']}.",
        f"- Matrix products: ours with torch's setting *{matmul_precision()}*, d3rlpy's with *highest*, its default.",
        NOTES,
    ]
    print("\n".join(text))
    if options.out:
        options.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
