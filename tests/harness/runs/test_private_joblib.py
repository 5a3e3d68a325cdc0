"""Ending worker processes at once, in the midst of what they are given."""

import subprocess
import sys
import threading

from mopo_bench.harness.runs.private_joblib import ProcessPoolExecutor, end


def test_end_while_a_job_is_handed_over(monkeypatch):
    """The executor's thread sees the shutdown after a job that it has not yet passed on: it used to die with a KeyError."""
    died, handing_over, shut = [], threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", died.append)
    executor = ProcessPoolExecutor(2)
    first = executor.submit(abs, -1)
    first.add_done_callback(lambda job: (handing_over.set(), shut.wait(30)))  # runs in the executor's thread
    assert handing_over.wait(60) and first.result() == 1
    waiting = executor.submit(abs, -2)
    ending = threading.Thread(target=end, args=(executor,))
    ending.start()
    while not executor._flags.shutdown:
        pass
    shut.set()
    ending.join(30)
    assert not ending.is_alive() and not died
    assert waiting.exception(timeout=0) is not None


def test_its_processes_are_started_with_interrupts_blocked():
    """Also the first one, with which Python's tracker of resources would be started, which unblocks them."""
    program = (
        "import signal\n"
        "from mopo_bench.harness.runs.interrupts import interrupts_held\n"
        "from mopo_bench.harness.runs.private_joblib import ProcessPoolExecutor, end, ready_to_start\n"
        "ready_to_start()\n"
        "executor = ProcessPoolExecutor(1)\n"
        "with interrupts_held():\n"
        "    job = executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, [])\n"
        "print(signal.SIGINT in job.result())\n"
        "end(executor)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert finished.stdout == "True\n", finished.stderr


def test_a_process_that_leaves_at_once_leaves_no_warning_behind():
    program = (
        "import os\n"
        "from mopo_bench.harness.runs.private_joblib import ready_to_start\n"
        "from joblib.externals.loky.backend.synchronize import Lock\n"
        "before = dict(os.environ); ready_to_start(); assert dict(os.environ) == before\n"
        "lock = Lock(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
