"""Ctrl-C while processes are started: held, never lost; and never answered by what is started."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from mopo_bench.harness.runs.interrupts import interrupts_held, note_interrupts, stop_if_asked


@pytest.fixture(autouse=True)
def answered():
    """A shell that starts its jobs in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_held_until_the_end_of_the_block():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_held_where_another_thread_takes_the_signal():
    """The system may hand it to any thread that has not blocked it."""
    waiting, go = threading.Event(), threading.Event()

    def wait():
        waiting.set()
        go.wait()

    thread = threading.Thread(target=wait)  # begun before, so that it blocks nothing
    thread.start()
    waiting.wait()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            held = True
        assert held
    finally:
        go.set()
        thread.join()


def test_nothing_comes_where_nothing_was_sent():
    with interrupts_held():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_not_lost():
    with pytest.raises(ZeroDivisionError), interrupts_held():
        raise ZeroDivisionError


def test_who_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_started_processes_do_not_answer():
    """They inherit what is blocked from the thread that starts them, and so from threads that were started meanwhile."""
    program = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"

    def blocked():
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()

    found = []
    with interrupts_held():
        found.append(blocked())
        later = threading.Event()
        thread = threading.Thread(target=lambda: (later.wait(), found.append(blocked())))
        thread.start()
    later.set()
    thread.join()
    assert found == ["True", "True"] and blocked() == "False"


def test_a_worker_ignores_them_by_itself():
    program = (
        "import os, signal\n"
        "from mopo_bench.harness.runs.interrupts import ignore_interrupts\n"
        "ignore_interrupts(); os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "still here\n"


def test_an_interrupt_that_was_swallowed_stops_all_the_same():
    note_interrupts()
    stop_if_asked()
    with suppress(KeyboardInterrupt):  # as some libraries do while they are imported
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop_if_asked()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    note_interrupts()
    stop_if_asked()
