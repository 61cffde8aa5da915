"""Similarity of two networks on the same samples. Channels permute between trainings, so none is met by its number."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import zoom

from lightning_ifa.statistics.arrays import Array, Floats, Ints, centre_rows
from lightning_ifa.statistics.strata import centre_within

FEWEST = 4
"""Samples below which the debiased estimate is undefined."""


def linear_cka(x: Array, y: Array, labels: Ints | None = None) -> float:
    """Linear centred kernel alignment of two feature sets on the same samples, debiased.

    Invariant to rotation, permutation and scale of the channels; the widths may differ. Kornblith et al. 2019 with
    the unbiased estimate of HSIC (Song et al. 2012, eq. 5): unrelated features give 0 on average even where there
    are more channels than samples, for which the plain estimate goes to 1.

    Args:
        x: Features of one network, ``(n, c)``.
        y: Features of the other, ``(n, d)``; row i is of the same sample.
        labels: Class or target bin, ``(n,)``; features are then compared within classes only. Without it, classes that
            both networks tell apart make any two good networks alike.

    Returns:
        At most 1, exactly 1 for ``y is x``, about 0 for unrelated features; NaN below four samples or where nothing
        varies.

    >>> x = np.array([[1.0, 0], [0, 2], [3, 1], [1, 1], [0, 5]])
    >>> round(linear_cka(x, -2 * x[:, ::-1]), 12)
    1.0
    """
    if len(x) < FEWEST:
        return float("nan")
    first = _gram(x, labels)
    second = first if y is x else _gram(y, labels)
    norm = np.sqrt(_hsic(first, first) * _hsic(second, second))
    return float(min(_hsic(first, second) / norm, 1.0)) if norm > 0 else float("nan")


def map_correlations(maps: Array, others: Array) -> Floats:
    """Pearson correlation over space of each sample's maps in two networks.

    Args:
        maps: Maps of one network, ``(n, *space)``.
        others: Maps of the other, ``(n, *space)``; of two resolutions the coarser one is used for both.

    Returns:
        One correlation a sample, ``(n,)``, in [-1, 1], exactly 1 for equal maps; NaN where a map is flat, or the
        spaces have other dimensions.
    """
    if maps.ndim != others.ndim:
        return np.full(len(maps), np.nan)
    shape = tuple(np.minimum(maps.shape, others.shape))
    a, b = (centre_rows(_resize(v, shape).reshape(len(v), math.prod(shape[1:]))) for v in (maps, others))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.asarray(np.clip(found, -1.0, 1.0))


def _gram(features: Array, labels: Ints | None) -> Floats:
    """Inner products of the samples, diagonal left out."""
    values = features.astype(np.float64) if labels is None else centre_within(features, labels)
    values = values - values.mean(0)
    values = values / max(float(np.abs(values).max(initial=0.0)), 1e-300)
    gram = values @ values.T
    np.fill_diagonal(gram, 0.0)
    return np.asarray(gram)


def _hsic(k: Floats, m: Floats) -> float:
    n = len(k)
    rows_k, rows_m = k.sum(1), m.sum(1)
    spread = rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 * float(rows_k @ rows_m) / (n - 2)
    return float(((k * m).sum() + spread) / (n * (n - 3)))


def _resize(maps: Array, shape: tuple[int, ...]) -> Array:
    if maps.shape == shape:
        return maps
    factors = [wanted / given for wanted, given in zip(shape, maps.shape, strict=True)]
    return np.asarray(zoom(maps, factors, order=1, mode="nearest", grid_mode=True))
