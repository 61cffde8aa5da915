"""How far a number would move with other samples of the same kind."""

from __future__ import annotations

import numpy as np

from lightning_ifa.statistics.arrays import Floats, Ints

Rows = Ints
DRAWS = 200


def bootstrap_draws(labels: Rows, seed: int, draws: int = DRAWS) -> list[Rows]:
    """Draw rows with replacement within classes, so that no draw loses a class.

    Args:
        labels: Class or target bin of each row, ``(n,)``.
        seed: Seed of the draws.
        draws: Number of draws.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, start, size = np.unique(labels[order], return_index=True, return_counts=True)
    start, size = np.repeat(start, size), np.repeat(size, size)
    return [order[start + (rng.random(len(order)) * size).astype(np.int64)] for _ in range(draws)]


def bootstrap_error(values: Floats) -> float:
    """Estimate the standard error of a number from its bootstrap values, ``(draws,)``."""
    return float(values.std(ddof=1))


def share_error(share: float, count: int) -> float:
    """Estimate a share's standard error from ``count`` things, never 0 (Agresti & Coull 1998: two of each sort added).

    >>> round(share_error(0.0, 16), 3)
    0.067
    """
    adjusted = (share * count + 2) / (count + 4)
    return float(np.sqrt(adjusted * (1 - adjusted) / (count + 4)))
