"""Shows a pass that takes long in Lightning's own progress bar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lightning_ifa.data.sampling import batch_size
from lightning_ifa.training.loaders import ReferenceSamples

log = logging.getLogger(__name__)
DESCRIPTION = "Feature analysis"

PATIENCE = 2.0
"""Seconds that a pass may take unseen."""

Update = Callable[[int | None], None]
"""Takes how many batches are done; None takes the bar away."""


@contextmanager
def show_progress(trainer: Any, samples: ReferenceSamples, count: int) -> Iterator[ReferenceSamples]:
    """Give samples whose passes are seen, if they take long and the trainer has a bar; this rank reads ``count``."""
    bar, prepare = trainer.progress_bar_callback, samples.extraction.prepare
    if prepare is None or bar is None or not bar.is_enabled:
        yield samples
        return
    shown = _ProgressLine(bar, math.ceil(count / batch_size(samples.loader)))

    def prepared(batch: Any) -> Any:
        shown.count()
        return prepare(batch)

    try:
        yield replace(samples, extraction=replace(samples.extraction, prepare=prepared))
    finally:
        shown.close()


class _ProgressLine:
    """A line in a progress bar that appears late and leaves no trace; whatever error a bar raises ends it."""

    def __init__(self, bar: Any, total: int) -> None:
        self._bar, self._total, self._done = bar, total, 0
        self._since = time.monotonic()
        self._update: Update | None = None
        self._failed = False

    def count(self) -> None:
        """One more batch is read."""
        self._done += 1
        if time.monotonic() - self._since >= PATIENCE:
            self._show(min(self._done, self._total))

    def close(self) -> None:
        if self._update is not None:
            self._show(None)

    def _show(self, done: int | None) -> None:
        if self._failed:
            return
        try:
            if self._update is None:
                self._update = _line(self._bar, self._total)
            self._update(done)
        except Exception:  # the user may have a bar of any make
            self._failed = True
            log.debug("no progress is shown", exc_info=True)


def _line(bar: Any, total: int) -> Update:
    """Open a line in a bar of either make, or of none that is known."""
    if hasattr(bar, "init_validation_tqdm"):
        line = bar.init_validation_tqdm()
        line.set_description(DESCRIPTION)
        line.leave = False
        line.reset(total)
        return lambda done: line.close() if done is None else line.update(done - line.n)
    if getattr(bar, "progress", None) is not None:
        task = bar._add_task(total, DESCRIPTION)
        return lambda done: bar.progress.remove_task(task) if done is None else bar._update(task, done)
    return lambda done: None
