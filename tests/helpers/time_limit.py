"""Ends what hangs: ranks that wait for each other must fail a test, not stop the suite."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from contextlib import contextmanager


@contextmanager
def time_limit(seconds):
    """Raise in a block that takes longer, and end the processes that it has forked."""

    def end(signum, frame):
        for child in multiprocessing.active_children():
            child.kill()
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_within(seconds, command, **options):
    """Run a command; it and all that it has started end with the time. Give its return code and what it said."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said
