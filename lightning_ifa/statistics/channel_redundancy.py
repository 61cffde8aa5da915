"""Redundancy: which channels are dead, duplicates, or linear mixes of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg.lapack import dpstrf
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask, standardise_columns
from lightning_ifa.statistics.strata import centre_within

DUPLICATE_CORRELATION = 0.99
MERGE_CORRELATION = 0.9

DEPENDENT_RESIDUE = 1e-4
"""A channel whose variance the others leave unexplained by less than this share is a linear mix of them."""

DEAD_RANGE = 1e-7
"""A channel that varies by less than this share of the largest one is dead."""

SAMPLES_A_CHANNEL = 2
"""Below that many samples a channel, sampling alone makes channels look like mixes of each other."""


class NeededChannels(NamedTuple):
    """The channels that a layer needs, and what the others are.

    Attributes:
        kept: Channels of which none is dead, a duplicate, or a linear mix of the others, ``(q,)``, sorted.
        dead: Number of channels that do not vary.
        duplicates: Number of varying channels that repeat a kept one.
        dependent: Number of linear mixes among the rest; 0 where there are too few samples to tell.
    """

    kept: Ints
    dead: int
    duplicates: int
    dependent: int


def channel_groups(
    activations: Array,
    labels: Ints | None = None,
    correlation: float = MERGE_CORRELATION,
    overall: NDArray[np.float32] | None = None,
) -> tuple[Ints, Mask]:
    """Group channels whose pooled activations correlate.

    Args:
        activations: Pooled activations, ``(n, c)``.
        labels: Class or target bin of each sample, ``(n,)``. If given, channels must agree within classes as well:
            two channels that merely respond to the same class do not duplicate each other.
        correlation: Least absolute correlation of any pair in a group (complete linkage).
        overall: From ``channel_correlation`` of these activations, where it is there already.

    Returns:
        Group of each channel, ``(c,)``, -1 for dead ones; and whether each channel is dead, ``(c,)``.
    """
    dead = _dead(activations)
    alive = np.flatnonzero(~dead)
    found = channel_correlation(activations) if overall is None else overall
    close = np.abs(found[np.ix_(alive, alive)]) >= correlation
    _, blocks = connected_components(csr_array(close), directed=False)
    groups = np.full(activations.shape[1], -1, dtype=np.int64)
    groups[alive] = blocks
    count = int(blocks.max(initial=-1)) + 1
    for block in np.flatnonzero(np.bincount(blocks, minlength=count) > 1):  # complete linkage never leaves a block
        members = alive[blocks == block]
        agreement = np.abs(found[np.ix_(members, members)]).astype(np.float64)
        if labels is not None:
            within = standardise_columns(centre_within(activations[:, members], labels))
            agreement = np.minimum(agreement, np.abs(within.T @ within))
        distance = np.clip(1 - agreement, 0, 1)
        np.fill_diagonal(distance, 0)
        tree = linkage(squareform(distance, checks=False), method="complete")
        parts = fcluster(tree, t=1 - correlation, criterion="distance") - 1
        groups[members] = np.where(parts == 0, block, count + parts - 1)
        count += int(parts.max())
    return groups, dead


def needed_channels(
    activations: Array, labels: Ints | None = None, overall: NDArray[np.float32] | None = None
) -> NeededChannels:
    """Leave out the channels that are dead, duplicates, or linear mixes of others.

    Duplicates are found first (see ``channel_groups``, correlation 0.99; the channel of largest variance stays), mixes
    by a pivoted Cholesky factorisation of what remains.

    Args:
        activations: Pooled activations, ``(n, c)``.
        labels: Class or target bin of each sample, ``(n,)``, or None.
        overall: From ``channel_correlation`` of these activations, where it is there already.
    """
    if overall is None:
        overall = channel_correlation(activations)
    groups, dead = channel_groups(activations, labels, DUPLICATE_CORRELATION, overall)
    by_variance = np.argsort(-activations.std(0), kind="stable")
    by_variance = by_variance[~dead[by_variance]]
    _, first = np.unique(groups[by_variance], return_index=True)
    unique = by_variance[np.sort(first)]
    kept = unique
    if len(activations) >= SAMPLES_A_CHANNEL * len(unique) > 0:
        kept = unique[_independent(overall[np.ix_(unique, unique)].astype(np.float64))]
    return NeededChannels(np.sort(kept), int(dead.sum()), len(by_variance) - len(unique), len(unique) - len(kept))


def channel_correlation(activations: Array) -> NDArray[np.float32]:
    """Pearson correlation of channels, ``(c, c)``; 0 with a channel that does not vary. Exact to about 1e-6."""
    unit = standardise_columns(activations.astype(np.float64)).astype(np.float32)
    return np.asarray(unit.T @ unit)


def component_variances(activations: Array) -> Floats:
    """Variance along each principal component, falling, ``(min(n, c),)``, in squared units of the activations."""
    centred = activations.astype(np.float64) - activations.mean(0, dtype=np.float64)
    gram = centred.T @ centred if centred.shape[0] > centred.shape[1] else centred @ centred.T  # the smaller one
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0) / len(activations)


def spectrum_numbers(variances: Floats) -> dict[str, float]:
    """Summarise a spectrum; see ``redundancy``.

    >>> numbers = spectrum_numbers(np.array([1.0, 1.0, 0.0]))
    >>> [round(numbers[name], 6) for name in ("components_95", "participation_ratio", "effective_rank")]
    [2.0, 2.0, 2.0]
    """
    total = max(float(variances.sum()), 1e-300)
    shares = variances / total
    reached = np.cumsum(shares)
    present = shares[shares > 0]
    return {
        "components_95": float((reached < 0.95).sum() + 1),
        "components_99": float((reached < 0.99).sum() + 1),
        "participation_ratio": 1 / max(float((shares**2).sum()), 1e-300) if len(present) else 0.0,
        "effective_rank": float(np.exp(-(present * np.log(present)).sum())) if len(present) else 0.0,
    }


def _dead(activations: Array) -> Mask:
    spread = activations.std(0)
    return np.asarray(spread <= DEAD_RANGE * max(float(spread.max(initial=0.0)), 1e-30))


def _independent(correlation: Floats) -> Ints:
    """Positions of the channels that a pivoted Cholesky factorisation takes until nothing is left to explain."""
    _, pivots, rank, _ = dpstrf(correlation, tol=DEPENDENT_RESIDUE)
    return np.asarray(pivots[:rank] - 1, dtype=np.int64)
