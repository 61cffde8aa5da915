"""Strata: samples of one class, or of one range of the target, within which everything else is compared."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from lightning_ifa.statistics.arrays import Array, Floats, Ints

UNLABELLED = -1
BINS = 5

WIDE = 64
"""Entries a row from which on a sparse product sums faster than NumPy, which first sorts a copy of all rows."""


def strata(targets: Array, edges: Array | None = None) -> Ints:
    """Give each sample its class, or for regression the quantile bin of its target.

    Args:
        targets: Classes ``(n,)``, int64, -1 where unlabelled; or float targets, NaN where unlabelled.
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


def bin_edges(*targets: Array) -> Array | None:
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


def group_means(values: Array, labels: Ints) -> tuple[Ints, Array]:
    """Average rows within each label.

    Args:
        values: Array of shape ``(n,)`` or ``(n, p)``.
        labels: Label of each row, ``(n,)``.

    Returns:
        Position of each row's label among the sorted labels, ``(n,)``, and the means, ``(groups, ...)``.
    """
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return position, group_sums(values, labels) / counts.reshape(-1, *[1] * (values.ndim - 1))


def group_sums(values: Array, labels: Ints) -> Array:
    """Sum rows within each label, ``(groups, ...)``, in the order of the sorted labels."""
    n = len(labels)
    if not n:
        return values
    counts, order = np.unique(labels, return_counts=True)[1], np.argsort(labels, kind="stable")
    ends = np.cumsum(counts)
    if values[0].size < WIDE:
        return np.add.reduceat(values[order], ends - counts, axis=0)
    membership = csr_array((np.ones(n, values.dtype), order, np.append(0, ends)), shape=(len(counts), n))
    return np.asarray(membership @ values.reshape(n, -1)).reshape(len(counts), *values.shape[1:])


def centre_within(values: Array, labels: Ints) -> Floats:
    """Subtract from each row the mean of all rows of its label; float64."""
    values = values.astype(np.float64)
    position, means = group_means(values, labels)
    return np.asarray(values - means[position])
