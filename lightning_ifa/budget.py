"""How much of the training time the analysis may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Allows an analysis as long as all of them together stay below a share of the other time.

    The first is always allowed: what one costs is not known before. A later one is expected to cost what the last
    one did. Only the moments of analyses depend on the clock, never their numbers.

    Args:
        share: Of the time spent otherwise, as 0.05.
        clock: Gives seconds.

    Example::

        if budget.allows():
            with budget.spending():
                ...
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._began = clock()
        self._spent = 0.0
        self._last = 0.0

    @property
    def overhead(self) -> float:
        """Time spent so far as a share of the other time."""
        other = self._clock() - self._began - self._spent
        return self._spent / other if other > 0 else 0.0

    def allows(self) -> bool:
        """Whether one more fits in."""
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
