"""The parts that are measured, made ready to be called: HalfCheetah sizes (17/6), 256 x 256 networks, batches of 256.

MOPO_BENCH_QUICK=1 makes everything small: it shows that the benchmarks work, and its numbers mean nothing.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics, EnsembleNetwork
from mopo_bench.algorithms.learning.fast.stepping import training_steps
from mopo_bench.algorithms.learning.networks import Initialiser
from mopo_bench.algorithms.learning.registry import get_algorithm, task_settings
from mopo_bench.common.streams import torch_stream
from mopo_bench.harness.runs.machine import describe_machine, keep_freed_memory, matmul_precision
from mopo_bench.tasks.data.dataset import COLUMNS, OfflineDataset
from mopo_bench.tasks.data.hdf5 import write_hdf5
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import OfflineProblem
from torch.utils.flop_counter import FlopCounterMode

TASK = "halfcheetah-medium"
ROLLOUT_LENGTH = 5  # the paper's most frequent; this task's own is 1
Size = TypeVar("Size")


def is_quick() -> bool:
    return os.environ.get("MOPO_BENCH_QUICK", "0") not in ("", "0")


def sized(full: Size, quick: Size) -> Size:
    return quick if is_quick() else full


def request() -> DatasetRequest:
    return DatasetRequest("regenerated", rows=sized(None, 10_000))


@cache
def the_problem() -> OfflineProblem:
    task = get_task(TASK)
    return task.offline_problem(load_dataset(task, request()))


def configs(name: str, **changes: Any) -> dict[str, Any]:
    """Config objects by part, with the task's settings; `changes` take "dynamics.x" too."""
    algorithm = get_algorithm(name)
    own = {"rollout_length": ROLLOUT_LENGTH} if "rollout_length" in algorithm.defaults() else {}
    return algorithm.build_configs(algorithm.configure(task_settings(algorithm, TASK), own, changes))


class Training:
    """A learner with its batches, and what a run does with them: step by step, row positions and noise included."""

    def __init__(
        self,
        name: str,
        *,
        compiled: bool = False,
        capture: bool = False,
        seeds: Sequence[int] = (0,),
        problem: OfflineProblem | None = None,
        device: str = "cpu",
        **changes: Any,
    ):
        algorithm, self.configs = get_algorithm(name), configs(name, **changes)
        problem, common = problem or the_problem(), {"device": device, "stages": {}}
        if algorithm.stages:
            common["stages"] = {"dynamics": untrained_dynamics(problem, self.configs["dynamics"], seeds, device)}
        self.learner = algorithm.learner(problem, self.configs["learner"], seeds, **common)
        self.experience = algorithm.experience(problem, self.configs["experience"], seeds, **common)
        self.taken = training_steps(self.learner, self.experience, compiled, capture)
        self.step = 0

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.taken.take(self.step)
            self.step += 1

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.learner.act(torch.as_tensor(observations)).numpy()


class PeerTraining:
    """d3rlpy's algorithm on the same arrays with our settings, and what its `fit` does each step, but for its logging."""

    def __init__(self, name: str, device: str = "cpu", **changes: Any):
        import d3rlpy

        sys.path.append(str(Path(__file__).with_name("peers")))
        from d3rlpy_peer import make

        d3rlpy.seed(0)
        batch, config = the_problem().dataset, configs(name, **changes)["learner"]
        ends = batch.timeouts.copy()
        ends[-1] = not batch.terminals[-1]  # d3rlpy leaves out rows after the last end of an episode
        columns = (batch.observations, batch.actions, batch.rewards, batch.terminals.astype(np.float32))
        with redirect_stdout(sys.stderr):  # its log
            self.dataset = d3rlpy.dataset.MDPDataset(*columns, timeouts=ends.astype(np.float32))
            self.algorithm, self.batch_size = make(name, the_problem(), config, (), device), config.batch_size

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.algorithm.update(self.dataset.sample_transition_batch(self.batch_size))


def ensemble_network(
    problem: OfflineProblem, config: Dynamics.Config, seeds: Sequence[int] = (0,), device: str = "cpu"
) -> EnsembleNetwork:
    initialiser = Initialiser([torch_stream(seed, "benchmark") for seed in seeds], torch.float32, device)
    sizes = problem.observation_size + problem.action_size, problem.observation_size + 1
    return EnsembleNetwork.create(initialiser, *sizes, config.hidden, config.networks)


def untrained_dynamics(
    problem: OfflineProblem, config: Dynamics.Config, seeds: Sequence[int] = (0,), device: str = "cpu"
) -> Dynamics:
    """A fit takes minutes, and the arithmetic of a rollout is the same without."""
    network, size_in = ensemble_network(problem, config, seeds, device), problem.observation_size + problem.action_size
    states = [
        {
            "weights": [weight[index] for weight in network.weights],
            "input_mean": torch.zeros(size_in, device=device),
            "input_std": torch.ones(size_in, device=device),
            "elites": torch.arange(config.elites, device=device),
        }
        for index in range(len(seeds))
    ]
    return Dynamics(problem, config, states)


def repeated_rows(rows: int) -> OfflineDataset:
    """A batch of that many rows: the regenerated one, over and over."""
    batch = load_dataset(get_task(TASK), request())
    index = np.arange(rows) % len(batch)
    return OfflineDataset(**{name: getattr(batch, name)[index] for name in COLUMNS}, provenance={"repeated": TASK})


def write_rows(path: Path, rows: int) -> None:
    write_hdf5(repeated_rows(rows), path, compression="lzf")


def problem_of_file(path: Path) -> OfflineProblem:
    task = get_task(TASK)
    return task.offline_problem(load_dataset(task, DatasetRequest(file=path)))


# measuring


Timer = Callable[[], float]


def timed(work: Callable[[], object], timer: Timer = time.perf_counter) -> float:
    started = timer()
    work()
    return timer() - started


def median_seconds(work: Callable[[], object], times: int, timer: Timer = time.perf_counter) -> float:
    work()
    return statistics.median(timed(work, timer) for _ in range(times))


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Matrix products by this backend: "highest" is torch's default, "medium" what `prepare_process` picks where it may."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def malloc_as_it_comes() -> Iterator[None]:
    """glibc's own thresholds, as far as they grow by themselves, instead of those that `prepare_process` sets."""
    keep_freed_memory(trim=64 << 20, mapped=32 << 20)
    try:
        yield
    finally:
        keep_freed_memory()


def product_rate(timer: Timer = time.perf_counter) -> float:
    """Floating-point operations a second in products of square matrices by the present backend, the faster of two sizes."""
    rates = []
    for size in (256, 512):
        left, right = torch.randn(2, size, size)
        times = 2**30 // (2 * size**3)  # some 10 ms
        seconds = median_seconds(lambda left=left, right=right, times=times: [left @ right for _ in range(times)], 3, timer)
        rates.append(times * 2 * size**3 / seconds)
    return max(rates)


def flops_of(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in it, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def flops_of_step(name: str, **changes: Any) -> int:
    training = Training(name, **changes)
    return flops_of(lambda: training.steps(1))


def memory_of_process() -> dict[str, float]:
    """GB: `peak` resident so far, pages of mapped files included, and what is resident now, of its own and of files.

    From Linux's own count: getrusage's also knows of the process that started this one.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak": "VmHWM", "own": "RssAnon", "files": "RssFile"}
    return {name: int(lines[line].split()[0]) * 1024 / 1e9 for name, line in names.items()}


def forget_peak() -> None:
    """The peak counts from now on. Where the system does not let it, peaks are those since the start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def has_memory_count() -> bool:
    return Path("/proc/self/status").exists()


@cache
def machine() -> dict[str, Any]:
    """The hardware and the software, as they stand beside every result."""
    facts = describe_machine()
    peers = {"d3rlpy": metadata.version("d3rlpy")} if find_spec("d3rlpy") else {}
    return {
        **facts,
        "versions": {**facts["versions"], **peers},
        "cpu_model": cpu_model(),
        "products": matmul_precision(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "quick": is_quick(),
    }


def cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
