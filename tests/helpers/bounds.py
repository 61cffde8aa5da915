"""What reading a hostile file may take: five seconds, and half a gibibyte of memory."""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager

SECONDS, MIB = 5, 512


def peak():
    """The most memory that this process has ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def bounds():
    """Fail if a block takes longer, or lets the process grow by more."""
    before, began = peak(), time.perf_counter()
    yield
    assert time.perf_counter() - began < SECONDS
    assert peak() - before < MIB
