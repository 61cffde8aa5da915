"""A line on the terminal that shows that a long pass over the samples goes on, where no Lightning draws a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

PATIENCE = 2.0
"""Seconds that a pass may take unseen."""

EVERY = 0.5
"""Seconds between two changes of the line."""


Preparation = Callable[[Any], Any] | None
"""Makes a batch ready for the model; None where there is nothing to do."""


@contextmanager
def count_batches(prepare: Preparation, stream: TextIO | None = None) -> Iterator[Preparation]:
    """Give a function that prepares batches as before, and counts them on a terminal once it has taken long.

    Args:
        prepare: Makes a batch ready for the model, or None.
        stream: Where to write; by default standard error. Nothing is written to what is no terminal.
    """
    screen = sys.stderr if stream is None else stream
    if not screen.isatty():
        yield prepare
        return
    began = shown = time.monotonic()
    done = 0

    def prepared(batch: Any) -> Any:
        nonlocal done, shown
        done += 1
        now = time.monotonic()
        if now - began >= PATIENCE and now - shown >= EVERY:
            shown = now
            screen.write(f"\rFeature analysis: {done} batches in {now - began:.0f} s")
            screen.flush()
        return batch if prepare is None else prepare(batch)

    try:
        yield prepared
    finally:
        if shown > began:
            screen.write("\r" + " " * 60 + "\r")
            screen.flush()
