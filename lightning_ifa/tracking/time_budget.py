"""Limit the share of the training time that the analysis may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeBudget:
    """Allows an analysis as long as all of them together stay below a share of the other time.

    Each is expected to cost what the last one did. Only when an analysis is made depends on the clock, never its
    numbers.

    Args:
        share: Largest share of the time spent otherwise, such as 0.05.
        clock: Function that gives the time in seconds.
        expected: Cost of the first one in seconds; by default it is not known, and the first is allowed.
        began: Start of the time that counts, by the clock; by default now.

    Example::

        if budget.allows():
            with budget.spending():
                ...
    """

    def __init__(
        self,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        expected: float = 0.0,
        began: float | None = None,
    ) -> None:
        self._share, self._clock = share, clock
        self._began = clock() if began is None else began
        self._spent = 0.0
        self._last = expected

    @property
    def overhead(self) -> float:
        """The time spent so far as a share of the other time."""
        other = self._clock() - self._began - self._spent
        return self._spent / other if other > 0 else 0.0

    def allows(self) -> bool:
        """Whether one more analysis fits in."""
        other = self._clock() - self._began - self._spent
        return self._last == 0.0 or self._spent + self._last <= self._share * other

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of a block, also if it raises."""
        began = self._clock()
        try:
            yield
        finally:
            self._last = self._clock() - began
            self._spent += self._last
