"""Consistency: does the map's level say what the logit says?

Algebra, not evidence: a self-check of layer, method and scale that untrained and faulty networks pass as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.statistics.completeness import completeness, pearson
from lightning_ifa.statistics.significance import health

RESIDUE_LIMIT = 0.05


def consistency(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> Finding:
    """Judge whether map intensities can be compared between images.

    Score: ``1 - completeness``, clipped to [0, 1]; 0 exact, 0.05 alarm. On a pool + linear head HiResCAM gives 0
    to rounding; behind a LayerNorm head about 1, although Pearson looks fine there.

    Args:
        scores: ``(n,)`` the explained logit.
        sums: ``(n,)`` sum of the map over space.
        explained: ``(n,)`` class explained.
    """
    complete = completeness(scores, sums, explained)
    if np.isnan(complete):
        return undecided("the explained score is constant within every class")
    score = float(np.clip(1 - complete, 0, 1))
    correlation = pearson(scores, sums, explained)
    details = {"completeness": complete, "pearson": 0.0 if np.isnan(correlation) else correlation}
    return Finding(score, 0.0, health(score, RESIDUE_LIMIT), details)


def trustworthy(completeness: float) -> bool:
    """Whether intensities of a method's raw maps can be compared at this layer of this model."""
    return bool(1 - completeness < RESIDUE_LIMIT)
