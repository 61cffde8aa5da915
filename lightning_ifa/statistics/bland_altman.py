"""Agreement of two measurements of the same things, such as a channel's importance in two splits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints

NORMAL_95 = 1.96


class BlandAltman(NamedTuple):
    """Differences of paired measurements against their means (Bland and Altman, Lancet 327, 1986).

    Attributes:
        mean: Mean of each pair, ``(c,)``.
        difference: First minus second of each pair, ``(c,)``.
        bias: Mean difference.
        low: Lower limit of agreement, bias - 1.96 standard deviations.
        high: Upper limit of agreement.
    """

    mean: Floats
    difference: Floats
    bias: float
    low: float
    high: float

    @property
    def outside(self) -> Ints:
        """Which pairs lie outside the limits of agreement, as their positions, ``(m,)``."""
        return np.flatnonzero((self.difference < self.low) | (self.difference > self.high))


def bland_altman(first: Array, second: Array) -> BlandAltman:
    """Compare paired measurements.

    Args:
        first: Measurements, ``(c,)``, c >= 2.
        second: Measurements of the same things, ``(c,)``.

    >>> found = bland_altman(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0]))
    >>> found.bias, found.low, found.high
    (0.0, -1.96, 1.96)
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    difference = a - b
    bias, spread = float(difference.mean()), NORMAL_95 * float(difference.std(ddof=1))
    return BlandAltman((a + b) / 2, difference, bias, bias - spread, bias + spread)
