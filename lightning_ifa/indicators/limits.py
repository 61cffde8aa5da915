"""The alarm line of each family's score, in one place for all that compare scores with it."""

from __future__ import annotations

from lightning_ifa.indicators.base import Finding
from lightning_ifa.indicators.consistency import RESIDUE_LIMIT
from lightning_ifa.indicators.outliers import EXCESS_LIMIT
from lightning_ifa.indicators.overfitting import GAP_LIMIT
from lightning_ifa.indicators.redundancy import SHARE_LIMIT
from lightning_ifa.statistics.confounder_candidates import RELIANCE_LIMIT

LIMITS = {
    "overfitting": GAP_LIMIT,
    "confounding": RELIANCE_LIMIT,
    "outliers": EXCESS_LIMIT,
    "redundancy": SHARE_LIMIT,
    "consistency": RESIDUE_LIMIT,
}
"""Where there are samples enough; that of overfitting grows where they are few."""


def alarm_limit(family: str, finding: Finding) -> float:
    """The limit by which a finding was judged, in units of its score.

    >>> alarm_limit("redundancy", Finding(0.1, 0.0, 0.8)) == SHARE_LIMIT
    True
    """
    return float(finding.details.get("limit", LIMITS[family]))
