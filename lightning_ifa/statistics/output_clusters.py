"""Which outputs of a network go together, as the 43 scores of the paper's MRI work do in a few groups."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from lightning_ifa.statistics.arrays import Array, Ints


def cluster_outputs(outputs: Array, count: int) -> Ints:
    """Divide outputs into groups by average linkage of one minus their correlation over samples.

    Args:
        outputs: Outputs of n samples, ``(n, k)``; a constant one correlates with none.
        count: Number of groups, at most k.

    Returns:
        Group of each output, ``(k,)``, numbered by first appearance from 0.

    >>> signal = np.array([0.0, 1.0, 2.0, 5.0]), np.array([1.0, -1.0, 1.0, -1.0])
    >>> cluster_outputs(np.stack([signal[0], signal[1], 2 * signal[0] + 1], axis=1), 2)
    array([0, 1, 0])
    """
    values = np.asarray(outputs, dtype=np.float64)
    if not 1 <= count <= values.shape[1]:
        raise ValueError(f"count={count}; expected between 1 and the number of outputs, {values.shape[1]}")
    if values.shape[1] == 1:
        return np.zeros(1, dtype=np.int64)
    centred = values - values.mean(0)
    norm = np.linalg.norm(centred, axis=0)
    scaled = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    distance = np.clip(1 - scaled.T @ scaled, 0, 2)
    np.fill_diagonal(distance, 0)
    found = fcluster(linkage(squareform(distance, checks=False), "average"), count, "maxclust")
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
