"""Quality of maps: how sparse, how stable, and whether they lie where the evidence is known to be.

Definitions as in Quantus (Hedstroem et al., JMLR 24, 2023), against which ``benchmarks/map_quality.py`` checks them.
"""

from __future__ import annotations

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Mask


def gini(maps: Array) -> Floats:
    """Gini index of each map's absolute values: 0 where all are equal, near 1 where one position holds everything.

    Sparseness of Chalasani et al., ICML 2020 (arXiv 1810.06583), section 3.

    Args:
        maps: Maps, ``(n, *space)``.

    Returns:
        Indices, ``(n,)``, in [0, 1); NaN where a map is 0 everywhere.

    >>> gini(np.array([[1.0, 1, 1, 1], [0, 0, 0, -2]]))
    array([0.  , 0.75])
    """
    values = np.sort(np.abs(np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)), axis=1)
    count, total = values.shape[1], values.sum(1)
    weighted = ((2 * np.arange(1, count + 1) - count - 1) * values).sum(1)
    return _divide(weighted, count * total)


def relevance_mass(maps: Array, regions: Mask) -> Floats:
    """Share of each map's positive values that lies inside its region.

    Relevance mass accuracy of Arras et al., Information Fusion 81, 2022 (arXiv 2003.07258), eq. 1.

    Args:
        maps: Maps, ``(n, *space)``.
        regions: Regions at the maps' resolution, ``(n, *space)``.

    Returns:
        Shares, ``(n,)``; NaN where a region is empty or a map has no positive value.

    >>> relevance_mass(np.array([[3.0, 1, -5]]), np.array([[True, False, False]]))
    array([0.75])
    """
    positive, inside = _flatten(np.maximum(maps, 0), regions)
    return _divide((positive * inside).sum(1), np.where(inside.any(1), positive.sum(1), 0))


def relevance_rank(maps: Array, regions: Mask) -> Floats:
    """Share of the highest K positions that lie inside the region, K being its size; arguments as above.

    Relevance rank accuracy of Arras et al. 2022, eq. 2.

    >>> relevance_rank(np.array([[3.0, 1, 2, -5]]), np.array([[True, True, False, False]]))
    array([0.5])
    """
    values, inside = _flatten(maps, regions)
    sizes = inside.sum(1)
    sorted_inside = np.take_along_axis(inside, np.argsort(-values, axis=1), axis=1)
    highest = np.arange(values.shape[1]) < sizes[:, None]
    return _divide((sorted_inside & highest).sum(1), sizes)


def pointing_hits(maps: Array, regions: Mask) -> Floats:
    """Whether a highest position of each map lies inside its region, 0 or 1; arguments as above.

    Pointing game of Zhang et al., IJCV 126, 2018 (arXiv 1608.00507), section 4.2, without tolerance.

    >>> pointing_hits(np.array([[3.0, 1], [0, 2]]), np.array([[True, False], [True, False]]))
    array([1., 0.])
    """
    values, inside = _flatten(maps, regions)
    hits = (inside & (values == values.max(1, keepdims=True))).any(1)
    return np.where(inside.any(1), hits.astype(np.float64), np.nan)


def max_sensitivity(maps: Array, noisy: Array) -> Floats:
    """Largest relative change of each map under small changes of its input; less is better.

    Max-sensitivity of Yeh et al., NeurIPS 2019 (arXiv 1901.09392), definition 3, estimated from draws; relative to the
    map's own norm, as in Quantus.

    Args:
        maps: Maps, ``(n, *space)``.
        noisy: The maps of changed inputs, ``(draws, n, *space)``.

    Returns:
        Largest ``|changed - map| / |map|`` over the draws, ``(n,)``; NaN where a map is 0.

    >>> max_sensitivity(np.array([[3.0, 4.0]]), np.array([[[3.0, 4.0]], [[0.0, 4.0]]]))
    array([0.6])
    """
    own = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
    moved = np.asarray(noisy, dtype=np.float64).reshape(len(noisy), len(maps), -1)
    return _divide(np.linalg.norm(moved - own, axis=2).max(0), np.linalg.norm(own, axis=1))


def _flatten(maps: Array, regions: Mask) -> tuple[Floats, Mask]:
    return (
        np.asarray(maps, dtype=np.float64).reshape(len(maps), -1),
        np.asarray(regions, dtype=bool).reshape(len(maps), -1),
    )


def _divide(parts: Array, wholes: Array) -> Floats:
    return np.asarray(np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=np.asarray(wholes) > 0))
