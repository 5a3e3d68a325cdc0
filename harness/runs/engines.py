"""Where the pieces of a grid are done: in this process, in worker processes, as Slurm jobs, on a Dask or a Ray cluster.

A piece is a function and its arguments, which are sent by pickle; what comes of it lies in the results folder, which every
worker must see. An engine does as many at once as it has slots, and says of each how it ended. A worker that is lost, killed by
the system or taken away by the cluster, loses its own piece alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

from ...common.errors import UserError, WriteError
from .fits import work_for
from .interrupts import SECONDS_TO_STOP, block_interrupts, ends_with_this, stop_signal, worker_answers
from .private_joblib import BrokenProcessPool, ProcessPoolExecutor, ShutdownExecutorError, ask, end, processes, ready_to_start

BACKENDS = ("loky", "slurm", "dask", "ray")
IDLE_SECONDS = 60  # after which a worker process that nobody gives work to ends
SLURM_JOBS = 100  # at once, where --jobs says nothing
SLURM_MINUTES = 24 * 60  # of a job, where $SBATCH_TIMELIMIT says nothing else
THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")  # libraries whose threads are counted by <NAME>_NUM_THREADS
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in THREADS}


class Piece(NamedTuple):
    """Work to be handed out: `work(*arguments)`, which gives the seeds that it left to another process, if any."""

    work: Callable[..., tuple[int, ...] | None]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Lost:
    """What became of a piece whose worker is gone."""

    why: str


class Stopped(Lost):
    """What became of one whose worker was told to stop by somebody else, and has kept what it had."""


Ended = (
    WriteError | Lost | tuple[int, ...] | None
)  # what becomes of a piece: seeds left to another process; none where it is done


def do(head: int | None, work: Callable[..., tuple[int, ...] | None], *arguments: Any) -> Ended:
    """Does a piece in the present process. A WriteError is handed back, for the head to begin nothing more.

    head: the process that handed it out, where that is this one or its parent; None where the parent says nothing.
    """
    work_for(head)
    if os.getpid() == head:
        return _done(work, *arguments)
    with worker_answers():
        try:
            return _done(work, *arguments)
        except KeyboardInterrupt:
            return Stopped(f"its worker was told to stop ({stop_signal()})")


def _done(work: Callable[..., tuple[int, ...] | None], *arguments: Any) -> Ended:
    try:
        return work(*arguments)
    except WriteError as error:
        return error


class Here:
    """In this process, one piece after another."""

    slots = 1

    def ended(self, following: Callable[[], Piece | None]) -> Generator[tuple[Piece, Ended], None, None]:
        """Every piece that `following()` gives, until it gives None, with what became of it."""
        while (piece := following()) is not None:
            yield piece, do(os.getpid(), piece.work, *piece.arguments)


class Engine:
    """Base of those with workers of their own: each of `slots` threads waits for one piece."""

    def __init__(self, slots: int):
        self.slots = slots

    def do(self, piece: Piece) -> Ended:
        """Has a worker do it, and waits for that."""
        raise NotImplementedError

    def stop(self) -> None:
        """Asks what is at work to keep what it has and stop, and ends what does not in time."""

    def close(self) -> None:
        """Lets go of the workers when all is done."""

    def ended(self, following: Callable[[], Piece | None]) -> Generator[tuple[Piece, Ended], None, None]:
        """Every piece that `following()` gives, as they end, with what became of it; it is asked when a slot is free."""
        threads = ThreadPoolExecutor(self.slots, "pieces", block_interrupts)
        waiting: dict[Future[Ended], Piece] = {}
        try:
            while True:
                while len(waiting) < self.slots and (piece := following()) is not None:
                    waiting[threads.submit(self.do, piece)] = piece
                if not waiting:
                    break
                for each in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(each), each.result()
        except BaseException:
            self.stop()
            raise
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            self.close()


class Workers(Engine):
    """Processes of one thread each on this machine; each is an executor of its own, so that none falls with another."""

    idle: list[ProcessPoolExecutor] = []  # noqa: RUF012 - shared by all: starting a process takes seconds
    begun: WeakSet[ProcessPoolExecutor] = WeakSet()  # noqa: RUF012 - by all, while anybody holds them
    starting = threading.Lock()

    def __init__(self, slots: int):
        super().__init__(slots)
        ready_to_start()
        self.busy: list[ProcessPoolExecutor] = []

    def begin(self, piece: Piece) -> tuple[ProcessPoolExecutor, Future[Ended]]:
        """A process that was idle has it, or a new one."""
        while self.idle:
            executor = self.idle.pop()
            with suppress(BrokenProcessPool):  # it was killed meanwhile
                return executor, executor.submit(do, os.getpid(), piece.work, *piece.arguments)
        executor = ProcessPoolExecutor(1, timeout=IDLE_SECONDS, env=ONE_THREAD)
        self.begun.add(executor)
        return executor, executor.submit(do, os.getpid(), piece.work, *piece.arguments)

    def do(self, piece: Piece) -> Ended:
        with self.starting:
            executor, job = self.begin(piece)
            self.busy.append(executor)
            started = processes(executor)
        try:
            ended = job.result()
            with self.starting:
                self.idle.append(executor)
            return ended
        except BrokenProcessPool:
            executor.shutdown(wait=True)
            return Lost(f"its worker process was ended by {_signal(started)}")
        except ShutdownExecutorError:
            return Lost("its worker process was ended")
        finally:
            with self.starting:
                self.busy.remove(executor)

    def stop(self) -> None:
        with self.starting:
            busy = list(self.busy)
        for executor in busy:
            ask(executor)
        for _ in range(int((SECONDS_TO_STOP - 2) / 0.05)):
            if not self.busy:
                return
            threading.Event().wait(0.05)
        for executor in list(self.busy):
            end(executor)


ends_with_this(lambda: (process for executor in list(Workers.begun) for process in processes(executor)))


def _signal(started: dict[int, Any]) -> str:
    codes = [process.exitcode for process in started.values() if process.exitcode]
    with suppress(ValueError, IndexError):
        return signal.Signals(-codes[0]).name
    return f"itself (exit status {codes[0]})" if codes else "the system"


class Slurm(Engine):
    """Jobs that submitit hands to Slurm, a piece each. `cluster`: "slurm", or "local" for processes here in its place."""

    def __init__(self, slots: int, results: Path, cluster: str):
        super().__init__(slots)
        submitit = _imported("submitit", "slurm")
        self.failures = (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError)
        try:
            self.executor = submitit.AutoExecutor(folder=results / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise UserError(f"--backend slurm: {' '.join(str(error).split())}; run this where `sbatch` is") from None
        own = {"slurm_setup": [f"export {name}={value}" for name, value in ONE_THREAD.items()]} if cluster == "slurm" else {}
        self.executor.update_parameters(name="mopo-bench", cpus_per_task=1, timeout_min=SLURM_MINUTES, **own)
        self.jobs: dict[int, Any] = {}
        self.submitting, self.stopping = threading.Lock(), False

    def do(self, piece: Piece) -> Ended:
        me = threading.get_ident()
        with self.submitting:
            if self.stopping:
                return Lost("its command was stopped")
            self.jobs[me] = job = self.executor.submit(do, None, piece.work, *piece.arguments)
        try:
            return job.result()
        except self.failures as error:
            return Lost(f"its Slurm job {job.job_id} ended early ({' '.join(str(error).split())[:200]})")
        finally:
            del self.jobs[me]

    def stop(self) -> None:
        self.stopping = True
        with self.submitting:  # what was about to be submitted is a job by then
            jobs = list(self.jobs.values())
        for job in jobs:
            with suppress(Exception):
                job.cancel(check=False)


class Dask(Engine):
    """The workers of a Dask cluster, of one thread each."""

    def __init__(self, jobs: int | None, scheduler: str):
        distributed = _imported("distributed", "dask")
        try:
            self.client = distributed.Client(scheduler, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"--scheduler {scheduler}: no Dask scheduler answers there ({why})") from None
        threads = self.client.nthreads()
        if not threads or max(threads.values()) > 1:
            self.client.close()
            trouble = "has workers of several threads" if threads else "has no workers"
            raise UserError(f"--scheduler {scheduler}: it {trouble}: start them by `dask worker {scheduler} --nthreads 1`")
        self.failures = (distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError)
        super().__init__(jobs or len(threads))

    def do(self, piece: Piece) -> Ended:
        job = self.client.submit(do, None, piece.work, *piece.arguments, pure=False)
        try:
            return job.result()
        except self.failures as error:
            return Lost(f"its Dask worker was lost ({' '.join(str(error).split())[:200]})")

    def stop(self) -> None:
        self.client.close()  # the scheduler forgets what nobody waits for; what is at work ends with its piece

    def close(self) -> None:
        self.client.close()


class Ray(Engine):
    """The workers of a Ray cluster, of one core each."""

    def __init__(self, jobs: int | None, scheduler: str):
        self.ray = _imported("ray", "ray")
        try:
            self.ray.init(address=scheduler, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"--scheduler {scheduler}: no Ray cluster answers there ({why})") from None
        self.remote = self.ray.remote(num_cpus=1, max_retries=0)(do)
        super().__init__(jobs or max(1, int(self.ray.cluster_resources().get("CPU", 1))))

    def do(self, piece: Piece) -> Ended:
        try:
            return self.ray.get(self.remote.remote(None, piece.work, *piece.arguments))
        except self.ray.exceptions.RayTaskError:
            raise  # of the work itself
        except self.ray.exceptions.RayError as error:
            return Lost(f"its Ray worker was lost ({' '.join(str(error).split())[:200]})")

    def stop(self) -> None:
        self.ray.shutdown()

    def close(self) -> None:
        self.ray.shutdown()


def _imported(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--backend {extra} needs {module}: `pip install 'mopo-bench[{extra}]'`") from None


def engine_of(backend: str, jobs: int | None, usual: int, scheduler: str | None, results: Path) -> Here | Engine:
    """The engine that was asked for. Raises UserError where it is not installed, or no cluster answers.

    jobs: how many pieces at once; None: `usual` of them on this machine, as many as a cluster has workers.
    """
    if backend not in BACKENDS:
        raise UserError(f"--backend {backend}: there are {', '.join(BACKENDS)}")
    if backend == "loky":
        if scheduler is not None:
            raise UserError(f"--scheduler {scheduler} goes with --backend dask, ray or slurm")
        jobs = usual if jobs is None else jobs
        return Here() if jobs == 1 else Workers(jobs)
    if backend == "slurm":
        if scheduler not in (None, "slurm", "local"):
            raise UserError(f"--scheduler {scheduler}: with --backend slurm it is slurm, or local to try it without one")
        return Slurm(jobs or SLURM_JOBS, results, scheduler or "slurm")
    if scheduler is None:
        example = "tcp://HOST:8786" if backend == "dask" else "auto"
        raise UserError(f"--backend {backend} needs the address of its cluster: --scheduler {example}")
    return Dask(jobs, scheduler) if backend == "dask" else Ray(jobs, scheduler)
