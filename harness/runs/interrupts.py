"""Being asked to stop: by Ctrl-C, or by SIGTERM, which a cluster sends before it takes a machine away.

What can stop anywhere stops at once. Where what was done would be lost, a request is noted, and answered at the next point at
which all is whole. It is never lost, and never reaches the processes that are started.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

SECONDS_TO_STOP = 8.0  # within which a process that was asked to stop has left: clusters kill after thirty, or ten
SECONDS_LEFT_ALONE = 0.5  # after which a process that ends with its parent has seen that the parent is gone
ONE_PRESS = 0.5  # seconds: a signal that comes twice within them is one request, as `timeout` sends it
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIME_IS_OVER = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
FAREWELL = "stopped; what was saved stays, and the next run goes on from there"


class Stop(KeyboardInterrupt):
    """Raised where all that was done is whole, and can be kept."""


_asked: int | None = None  # the signal by which this process was asked to stop
_asked_at = 0.0
_held = False  # whether a request is noted only
_children: list[Callable[[], Iterable[int]]] = []  # each gives processes that end with this one


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds both signals while the block runs and delivers them at its end; processes started meanwhile never see a Ctrl-C.

    A process inherits the signals that the thread which starts it has blocked, and so do the threads that start more of them
    later. A signal may still reach this process through another thread that has not blocked it, so it is noted as well.
    Outside the main thread, which alone may handle signals, and where signals cannot be blocked, nothing is held.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    noted: list[int] = []
    usual = {number: signal.signal(number, lambda number, frame: noted.append(number)) for number in SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # what waited is noted now
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that is not Python's
        for sent in dict.fromkeys(noted):
            if usual[signal.Signals(sent)] is not signal.SIG_IGN:
                signal.raise_signal(sent)


def block_interrupts() -> None:
    """Said by a thread that starts processes: neither it nor they see a Ctrl-C, which is the main thread's to answer."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def note_interrupts() -> None:
    """From now on both signals are noted besides raising KeyboardInterrupt, which a library may swallow.

    Said by the main thread alone. A second Ctrl-C, or `SECONDS_TO_STOP` after the first, ends the process at once.
    """
    _forget()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, _answer)


@contextmanager
def answered() -> Iterator[None]:
    """As `note_interrupts`, while the block runs, and of SIGTERM alone: for who calls this package from a program of theirs.

    At the block's end the signal does to that program what it would have done.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours:
        yield
        return
    _forget()
    signal.signal(signal.SIGTERM, _answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if _asked == signal.SIGTERM:
            _forget()
            signal.raise_signal(signal.SIGTERM)


def _forget() -> None:
    """Nobody has asked this process to stop."""
    global _asked
    if _asked is not None and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    _asked = None


def _answer(number: int, frame: object) -> None:
    global _asked, _asked_at
    now = time.monotonic()
    if number in SIGNALS and hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.signal(signal.SIGALRM, lambda number, frame: _leave())
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_STOP)  # what comes before a time limit leaves more time
    if _asked is not None:
        if number == signal.SIGINT and now - _asked_at > ONE_PRESS:
            _leave()
        return
    _asked, _asked_at = number, now
    if not _held:
        raise KeyboardInterrupt


def leave_if_asked() -> None:
    """Ends a process that was asked to stop, once it has kept what it has: what Python does at its end may take long."""
    if _asked is not None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        with suppress(Exception):
            atexit._run_exitfuncs()  # semaphores are given back; there is no public name for it
        _leave()


def _leave() -> NoReturn:
    """Ends this process and those that work for it at once; files are replaced whole, and locks end with who holds them."""
    for child in [process for children in _children for process in children()]:
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"mopo-bench: {FAREWELL}\n".encode())
    os._exit(stop_status())


@contextmanager
def stops_held() -> Iterator[None]:
    """While the block runs, a request to stop is noted only: the block asks for it by `stop_if_asked` where all is whole."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before


def stop_if_asked() -> None:
    """Raises Stop where this process was asked to stop."""
    if _asked is not None:
        raise Stop


def stop_status() -> int:
    """The exit status of a process that was asked to stop, as a shell gives it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_asked or signal.SIGINT)


def stop_signal() -> str:
    """The name of the signal by which this process was asked to stop."""
    return signal.Signals(_asked or signal.SIGINT).name


def ends_with_this(processes: Callable[[], Iterable[int]]) -> None:
    """`processes()` gives the numbers of those that are killed should this one leave at once; said once by a module."""
    _children.append(processes)


def end_with(parent: int) -> None:
    """Said by a process that keeps nothing: it ends once `parent`, which started it, is gone, however that ended.

    Windows does not tell a process that its parent is gone; there nothing is done.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_LEFT_ALONE)
        os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()


def ignore_interrupts() -> None:
    """Said by a worker of itself: a terminal's Ctrl-C reaches it too, and it is the parent that ends it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def worker_answers() -> Iterator[None]:
    """What a worker does while it works: Ctrl-C is not for it, and what says that its time is over has it keep what it has.

    That is SIGTERM, and SIGUSR1 or SIGUSR2, which Slurm sends before a job's time limit: submitit would end the job there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _forget()
    ignore_interrupts()
    usual = {number: signal.signal(number, _answer) for number in TIME_IS_OVER}
    try:
        yield
    finally:
        _forget()
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that is not Python's
