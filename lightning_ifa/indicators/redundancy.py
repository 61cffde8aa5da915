"""Redundancy: could this layer be thinner?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from lightning_ifa.indicators.finding import Finding, health, undecided

MERGE_CORRELATION = 0.9
SHARE_LIMIT = 0.6
"""Sound networks of 64 to 512 channels have mergeable shares of 0.19 to 0.45; planted duplicates 0.54 to 0.77."""

DEAD_RANGE = 1e-7
"""A channel that varies by less than this share of the largest one is dead."""


def channel_groups(activations: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Group channels whose pooled activations say the same.

    Args:
        activations: ``(n, c)`` pooled activations.

    Returns:
        Group of each channel, ``(c,)``, -1 for dead ones: complete linkage, so that within a group every pair
        has an absolute correlation of at least 0.9; and which channels are dead, ``(c,)``.
    """
    spread = activations.std(0)
    dead = spread <= DEAD_RANGE * max(float(spread.max(initial=0.0)), 1e-30)
    groups = np.full(activations.shape[1], -1, dtype=np.int64)
    alive = np.flatnonzero(~dead)
    if len(alive) < 2:
        groups[alive] = 0
        return groups, dead
    correlation = np.corrcoef(activations[:, alive].astype(np.float64), rowvar=False)
    distance = np.clip(1 - np.abs(correlation), 0, 1)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="complete")
    groups[alive] = fcluster(tree, t=1 - MERGE_CORRELATION, criterion="distance") - 1
    return groups, dead


def redundancy(activations: NDArray[Any]) -> Finding:
    """Judge redundancy by the mergeable share of channels.

    Score: ``1 - groups / channels`` with dead channels counted as mergeable, in [0, 1); 0.6 alarm. It needs no
    null beyond its limit, since independent channels have no group. ``components_95`` (components that carry
    95 % of the activations' variance) and ``participation_ratio`` mostly echo the number of classes: context,
    not a gate.

    Args:
        activations: ``(n, c)`` pooled activations.
    """
    n, channels = activations.shape
    if n < 10 or channels < 2:
        return undecided(f"{n} samples of {channels} channels; needed are 10 and 2")
    groups, dead = channel_groups(activations)
    share = 1 - len(np.unique(groups[groups >= 0])) / channels
    centred = activations.astype(np.float64) - activations.mean(0)
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    total = max(float(variance.sum()), 1e-30)
    components = int(np.searchsorted(np.cumsum(variance) / total, 0.95) + 1)
    details = {
        "mergeable_share": share,
        "dead_fraction": float(dead.mean()),
        "components_95": float(components),
        "participation_ratio": total**2 / max(float((variance**2).sum()), 1e-30),
    }
    return Finding(share, 0.0, health(share, SHARE_LIMIT), details)
