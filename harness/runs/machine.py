"""What one process may use of the machine: one thread, and the fastest matrix product that stays float32."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from functools import cache
from typing import Any

import threadpoolctl
import torch

from .commit import commit


def prepare_process(device: str = "cpu", threads: int = 1) -> None:
    """Caps torch's and BLAS's threads, picks the matrix backend, and takes back another default type of torch's.

    Called where training, a fit or an evaluation begins: code from outside, even a plug-in, may have set that type for all.
    """
    keep_freed_memory()
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)
    torch.set_float32_matmul_precision(matmul_precision(device))


@contextlib.contextmanager
def caller_kept() -> Iterator[None]:
    """Gives a process that calls us its own settings back: what `prepare_process` sets holds for training, not for the caller.

    Elsewhere its own products would be of another precision, its tensors of another type, and its training on one thread.
    """
    default_type, precision, threads = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_default_dtype(default_type)
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)  # after the limits: torch knows of more pools than they do


def keep_freed_memory(trim: int = 256 << 20, mapped: int = 64 << 20) -> None:
    """Tells glibc's malloc not to hand every large tensor back to the system: the next step wants the same pages again.

    Worth 15 % of a BEAR step and nothing where tensors are small; other allocators do not know the call.

    trim: bytes that may lie free before they go back. mapped: bytes from which a tensor is mapped by itself, and goes back by
    itself: above the tensors of a rollout of ten seeds, below a batch of a million rows.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, trim)
        mallopt(mmap_threshold, mapped)


def memory() -> int:
    """Bytes of memory of this machine; more than there is anywhere, where the system does not say."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1 << 60


def usable_cores() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@cache
def matmul_precision(device: str = "cpu") -> str:
    """ "medium" where it stays float32, else "highest".

    On a CPU "medium" routes products to oneDNN, up to twice as fast as the default; with AMX it means bfloat16 instead. So
    it is tried: products of 256 x 256 matrices, plain and batched, against float64. On a GPU it means TF32: never there.
    """
    if device != "cpu":
        return "highest"
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 2, 256, 256, generator=generator, dtype=torch.float64)
    exact = left @ right
    try:
        torch.set_float32_matmul_precision("medium")
        plain = left[0].float() @ right[0].float()
        batched = left.float() @ right.float()
    finally:
        torch.set_float32_matmul_precision(before)
    error = max((plain - exact[0]).norm() / exact[0].norm(), (batched - exact).norm() / exact.norm())
    return "medium" if float(error) < 2e-6 else "highest"


@cache
def describe_machine() -> dict[str, Any]:
    """What a run record says of where it ran."""
    packages = ("mopo-bench", "torch", "numpy", "gymnasium", "mujoco")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": commit(),
    }
