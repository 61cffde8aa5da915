"""Consistency: does the map's level say what the logit says?

Algebra, not evidence: a self-check of layer, method and scale that untrained and faulty networks pass as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.finding import Finding, health, undecided
from lightning_ifa.indicators.strata import group_means

RESIDUE_LIMIT = 0.05


def completeness(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> float:
    """Share of the score's variance that the map's sum accounts for, slope and all: at most 1, 1 = exact.

    Within each explained class, so that a class's bias does not count.

    Args:
        scores: ``(n,)`` the explained logit.
        sums: ``(n,)`` sum of the map over space.
        explained: ``(n,)`` class explained.

    >>> completeness(np.array([1.0, 2, 3]), np.array([0.5, 1.5, 2.5]), np.zeros(3, dtype=int))
    1.0
    """
    variation = _within(scores, explained)
    return 1.0 - _within(scores - sums, explained) / variation if variation > 0 else float("nan")


def pearson(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> float:
    """Correlation of score and map sum within explained classes, in [-1, 1]; NaN if either is constant."""
    a, b = _centred(scores, explained), _centred(sums, explained)
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


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


def _centred(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    position, means = group_means(values, labels)
    return np.asarray(values - means[position])


def _within(values: NDArray[Any], labels: NDArray[np.int64]) -> float:
    return float((_centred(values, labels) ** 2).sum())
