"""How a part is measured beside its peer: in one process, in turns, one thread, each with a matrix backend that is stated."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import parts
import pytest
from mopo_bench.harness.runs.machine import matmul_precision, prepare_process

Work = Callable[[], object]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="small sizes and few rounds: shows that all of it works, no more")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        os.environ["MOPO_BENCH_QUICK"] = "1"  # for the processes that benchmarks start, too
    prepare_process()
    parts.machine()  # the load of before, not that of the benchmarks


@pytest.fixture
def d3rlpy() -> Any:
    return pytest.importorskip("d3rlpy", reason="d3rlpy is not here: python -m pip install d3rlpy==2.8.1")


@pytest.fixture
def needs_memory_count() -> None:
    if not parts.has_memory_count():
        pytest.skip("the peak memory of a process is read from Linux's /proc")


@pytest.fixture
def side_by_side(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`side_by_side(part, ours, peers, ...)` times ours and each peer by name in turns, and puts what came out into the record.

    rounds: each is every peer under torch's own matrix backend, then under ours where that is another one, then ours.
    units, peer_units: how many of what is asked for one call does (steps, batches); unit: in what the table shows one.
    goal: (at least, aim), of the ratio of the first peer's time to ours, or of our own time where `goal_of` is "time".
    flops: of the matrix products of one unit; every round then also measures how fast this machine multiplies matrices, which
    gives the least time a unit could take.
    """
    timer = getattr(time, request.config.getoption("benchmark_timer").rpartition(".")[-1])

    def measure(
        part: str,
        ours: Work,
        peers: Mapping[str, Work],
        *,
        rounds: int,
        unit: str,
        units: int = 1,
        peer_units: int | None = None,
        goal: tuple[float, float] | None = None,
        goal_of: str = "ratio",
        warm_up: bool = True,
        both_backends: bool = True,
        flops: int | None = None,
        **notes: Any,
    ) -> None:
        own = matmul_precision()
        backends = ["highest", own] if both_backends and own != "highest" else ["highest"]
        seconds: dict[tuple[str, str], list[float]] = {(name, backend): [] for name in peers for backend in backends}
        rates: list[float] = []

        def others_turn() -> None:
            if flops:
                rates.append(parts.product_rate(timer))
            for (name, backend), times in seconds.items():
                with parts.products(backend), parts.malloc_as_it_comes() if backend == "highest" else nullcontext():
                    times.append(parts.timed(peers[name], timer) / (peer_units or units))

        if warm_up:
            ours()
            others_turn()
            for values in (rates, *seconds.values()):
                values.clear()
        cpu, wall = time.process_time(), time.perf_counter()
        benchmark.pedantic(ours, setup=others_turn, rounds=rounds)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        mine = [each / units for each in benchmark.stats.stats.data]
        if flops:
            shares = [flops / rate / each for rate, each in zip(rates, mine, strict=True)]
            notes["floor"] = {"flops": flops, "flops_per_second": statistics.median(rates), "share": spread(shares)}
        report(
            benchmark,
            part,
            unit=unit,
            ours={"backend": own, **spread(mine)},
            peers=[{"name": name, "backend": backend, **compared(times, mine)} for (name, backend), times in seconds.items()],
            goal=goal and {"of": goal_of, "at_least": goal[0], "aim": goal[1]},
            share_of_a_core=share,
            timer=timer.__name__,
            **notes,
        )

    return measure


def report(benchmark: Any, part: str, **facts: Any) -> None:
    """What `report.py` reads: into pytest-benchmark's own record of this benchmark."""
    benchmark.extra_info.update({"part": part, **facts, "machine": parts.machine()})


def spread(values: Sequence[float]) -> dict[str, Any]:
    low, high = np.quantile(values, (0.25, 0.75))
    return {"median": statistics.median(values), "quartiles": [low, high], "rounds": len(values)}


def compared(peer: Sequence[float], ours: Sequence[float]) -> Mapping[str, Any]:
    """The ratio is taken round by round: what slows the machine down slows both."""
    ratios = spread([theirs / mine for theirs, mine in zip(peer, ours, strict=True)])
    return {**spread(peer), "ratio": ratios["median"], "ratio_quartiles": ratios["quartiles"]}
