"""Ctrl-C: held while processes are started or libraries imported, then delivered; noted, so that nothing can swallow it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds SIGINT while the block runs and delivers it at its end; processes started meanwhile never see one.

    A process inherits the signals that the thread which starts it has blocked, and so do the threads that start more of them
    later. A signal may still reach this process through another thread that has not blocked it, so it is noted as well.
    Outside the main thread, which alone may handle signals, and where signals cannot be blocked, nothing is held.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    noted: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # what waited is noted now
        signal.signal(signal.SIGINT, usual)
        if noted and usual is not signal.SIG_IGN:
            signal.raise_signal(signal.SIGINT)


_asked = False  # whether the user asked this process to stop


def note_interrupts() -> None:
    """From now on Ctrl-C is noted besides raising KeyboardInterrupt, which a library may swallow. Of the main thread alone."""
    global _asked
    _asked = False

    def stop(number: int, frame: object) -> None:
        global _asked
        _asked = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt where one was noted, and did not get through."""
    if _asked:
        raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """Said by a worker of itself: a terminal's Ctrl-C reaches it too, and it is the parent that ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
