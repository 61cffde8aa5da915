"""How alike two networks see the same samples; channels permute between trainings, so none is met by its number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from lightning_ifa.statistics.strata import group_means

FEWEST = 4
"""Samples below which the debiased estimate is undefined."""


def linear_cka(x: NDArray[Any], y: NDArray[Any], labels: NDArray[np.int64] | None = None) -> float:
    """Linear centred kernel alignment of two feature sets on the same samples, debiased.

    Invariant to rotation, permutation and scale of the channels; the widths may differ. Kornblith et al. 2019 with
    the unbiased estimate of HSIC (Song et al. 2012, eq. 5): unrelated features give 0 on average even where there
    are more channels than samples, for which the plain estimate goes to 1.

    Args:
        x: ``(n, c)`` features of one network.
        y: ``(n, d)`` of the other, row i of the same sample.
        labels: ``(n,)`` class or target bin; features are then compared within classes only. Without, classes that
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


def map_correlations(maps: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation over space of each sample's maps in two networks.

    Args:
        maps: ``(n, *space)`` maps of one network.
        others: ``(n, *space)`` of the other; another resolution is brought to the coarser of the two.

    Returns:
        ``(n,)`` in [-1, 1], exactly 1 for equal maps; NaN where a map is flat, or the spaces have other dimensions.
    """
    if maps.ndim != others.ndim:
        return np.full(len(maps), np.nan)
    shape = tuple(np.minimum(maps.shape, others.shape))
    a, b = (_flat_centred(_resized(values, shape)) for values in (maps, others))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.asarray(np.clip(found, -1.0, 1.0))


def _gram(features: NDArray[Any], labels: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Inner products of the samples, diagonal left out."""
    values = features.astype(np.float64)
    if labels is not None:
        position, means = group_means(values, labels)
        values = values - means[position]
    values = values - values.mean(0)
    values = values / max(float(np.abs(values).max(initial=0.0)), 1e-300)
    gram = values @ values.T
    np.fill_diagonal(gram, 0.0)
    return np.asarray(gram)


def _hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    n = len(k)
    rows_k, rows_m = k.sum(1), m.sum(1)
    spread = rows_k.sum() * rows_m.sum() / ((n - 1) * (n - 2)) - 2 * float(rows_k @ rows_m) / (n - 2)
    return float(((k * m).sum() + spread) / (n * (n - 3)))


def _resized(maps: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if maps.shape == shape:
        return maps
    factors = [wanted / given for wanted, given in zip(shape, maps.shape, strict=True)]
    return np.asarray(zoom(maps, factors, order=1, mode="nearest", grid_mode=True))


def _flat_centred(maps: NDArray[Any]) -> NDArray[np.float64]:
    flat = maps.reshape(len(maps), math.prod(maps.shape[1:])).astype(np.float64)
    return np.asarray(flat - flat.mean(1, keepdims=True))
