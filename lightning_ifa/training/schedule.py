"""Which validations of a training are analysed, when the analyses have a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning_ifa.tracking.time_budget import TimeBudget
from lightning_ifa.training import trainer as access
from lightning_ifa.training.distributed import run_on_rank_zero


class Schedule:
    """Leaves out analyses of one training that would cost more than the budget.

    Args:
        share: The share of the other training time that analyses may take; None to analyse every validation.
        clock: A function that gives the time in seconds.
    """

    def __init__(self, share: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = TimeBudget(share, clock) if share else None
        self.skipped = 0

    def allows(self, trainer: Any) -> bool:
        """Whether the budget allows an analysis, or the weights are too important to ask; every rank must ask."""
        if self._budget is None or not access.is_fitting(trainer) or run_on_rank_zero(trainer, self._budget.allows):
            return True
        if access.is_last_epoch(trainer) or access.monitors(trainer, "ifa/") or access.will_be_kept(trainer):
            return True
        self.skipped += 1
        return False

    def spending(self) -> AbstractContextManager[None]:
        """Count the time of a block."""
        return self._budget.spending() if self._budget else nullcontext()

    def metrics(self, trainer: Any) -> dict[str, float]:
        """How many were skipped, and what the others took; nothing without a budget. Every rank must ask."""
        if self._budget is None:
            return {}
        figures = {"ifa/budget/skipped": float(self.skipped), "ifa/budget/overhead": self._budget.overhead}
        return run_on_rank_zero(trainer, lambda: figures)
