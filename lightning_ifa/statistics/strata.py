"""Group samples by what they show, so that everything else is compared within a group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1
BINS = 5


def strata(targets: NDArray[Any], edges: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Give each sample its class, or for regression the quantile bin of its target.

    Args:
        targets: ``(n,)``; int64 classes, -1 where unlabelled; float with NaN where unlabelled.
        edges: Inner bin edges for float targets, from ``bin_edges``.

    Returns:
        ``(n,)`` int64, -1 where unlabelled.

    >>> strata(np.array([0.1, 0.9, np.nan]), edges=np.array([0.5]))
    array([ 0,  1, -1])
    """
    if targets.dtype.kind != "f":
        return targets.astype(np.int64)
    assert edges is not None, "float targets need bin edges"
    return np.where(np.isnan(targets), UNLABELLED, np.searchsorted(edges, targets, side="right")).astype(np.int64)


def bin_edges(*targets: NDArray[Any]) -> NDArray[Any] | None:
    """Give the inner edges of the quantile bins of all splits together; None for class labels.

    Ties merge bins, so a target with few values gets fewer bins than ``BINS``.
    """
    if targets[0].dtype.kind != "f":
        return None
    known = np.concatenate(targets)
    known = known[~np.isnan(known)]
    if not len(known):
        return np.empty(0)
    return np.unique(np.quantile(known, np.arange(1, BINS) / BINS))


def group_means(values: NDArray[Any], labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Average rows within each label.

    Args:
        values: ``(n,)`` or ``(n, p)``.
        labels: ``(n,)``.

    Returns:
        The label's position in the sorted unique labels, ``(n,)``, and the means, ``(groups, ...)``.
    """
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(values[np.argsort(position, kind="stable")], starts, axis=0)
    return position, sums / counts.reshape(-1, *[1] * (values.ndim - 1))
