"""Each family's score and its null in units of the alarm limit, so that all five share one axis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.base import Finding
from lightning_ifa.indicators.limits import alarm_limit
from lightning_ifa.indicators.outliers import EXCESS_LIMIT, NULL_SHARE

POINTS = 200


class Null(NamedTuple):
    """Where the score would lie without the fault.

    Attributes:
        position: ``(m,)`` scores in units of the limit.
        density: ``(m,)``, highest 1.
        bound: Three standard deviations above its mean, in units of the limit.
    """

    position: NDArray[np.float64]
    density: NDArray[np.float64]
    bound: float


def null(report: FeatureReport, family: str) -> Null | None:
    """Give a family's null, or None where there is no sampling noise and the limit alone decides."""
    finding = report.findings[family]
    if finding.undecided or family in ("redundancy", "consistency"):
        return None
    if family == "outliers":
        return _binomial(len(report.tables["validation"]))
    spread = _spread(finding, finding.details.get("margin_gap", finding.score))
    return None if spread is None else _normal(spread / alarm_limit(family, finding))


def _spread(finding: Finding, value: float) -> float | None:
    """Standard deviation of the null, from the value and its z."""
    return abs(value / finding.z) if value and finding.z else None


def _normal(spread: float) -> Null:
    z = np.linspace(-3.5, 3.5, POINTS)
    return Null(z * spread, norm.pdf(z) / norm.pdf(0), 3 * spread)


def _binomial(n: int) -> Null:
    count = np.arange(int(NULL_SHARE * n + 6 * np.sqrt(NULL_SHARE * n)) + 3)
    density = binom.pmf(count, n, NULL_SHARE)
    bound = 3 * np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
    return Null((count / n - NULL_SHARE) / EXCESS_LIMIT, density / density.max(), bound / EXCESS_LIMIT)
