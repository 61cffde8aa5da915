"""Health: the one rule that turns a score and its significance into a number in [0, 1]."""

from __future__ import annotations

import math

from scipy.stats import norm

UNDECIDED = 0.5
"""The health of a family about which nothing can be said: no alarm, but no pass either."""

Z_LIMIT = 3.0


POWER_Z = 0.84
"""Standard deviations that an effect must lie beyond a threshold to be beyond it in 80 % of samples."""


def detectable(spread: float, limit: float, z_limit: float = Z_LIMIT) -> float:
    """Give the smallest effect that alarms with a chance of 80 %: beyond its limit, and significant.

    Args:
        spread: Standard deviation of the score without the fault, in units of the score.
        limit: Score above which there is an alarm.
        z_limit: Number of standard deviations that the score must exceed as well.

    >>> round(detectable(0.05, limit=0.35), 3), round(detectable(0.2, limit=0.35), 3)
    (0.392, 0.768)
    """
    return max(limit, z_limit * spread) + POWER_Z * spread


def health(score: float, limit: float, z: float | None = None, z_limit: float = Z_LIMIT) -> float:
    """Map a score and its significance to [0, 1]: ``1 / (1 + min(score / limit, z / z_limit))``.

    Below 0.5, the alarm line, only if the score exceeds its limit and is significant as well: a large score on
    few samples does not alarm, nor does a negligible one that many samples make significant. Where there is no
    sampling noise to overcome, z is None and the limit alone decides.

    >>> health(0.0, limit=0.3, z=0.0), health(0.6, limit=0.3, z=9.0), health(0.6, limit=0.3, z=1.0)
    (1.0, 0.3333333333333333, 0.75)
    """
    excess = max(score, 0.0) / limit
    if z is not None:
        excess = min(excess, max(z, 0.0) / z_limit)
    value = 1.0 / (1.0 + excess)
    return value if value != UNDECIDED else math.nextafter(UNDECIDED, 1.0)  # at the limit is not beyond it


def correct_for_count(z: float, tests: int) -> float:
    """Correct a z that is the largest of several (Bonferroni), so that it compares with a single one.

    >>> round(correct_for_count(4.0, 20), 2)
    3.22
    """
    if tests <= 1 or z > 30:  # beyond that the probability underflows, and the correction no longer matters
        return z
    return float(norm.isf(min(tests * norm.sf(z), 0.5))) if z > 0 else min(z, 0.0)
