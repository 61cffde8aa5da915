"""Selection: how many features are enough, and what a refill of the others from the kept ones saves.

A reduced activation is an affine function of the channels at each position. Two kinds are made here: kept channels as
they are with the others constant (``fill``), and every channel predicted from few numbers (``Refill``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RIDGE = 1e-9
"""Of the largest variance; keeps the refill finite where kept channels are copies of each other."""

ENOUGH_PERFORMANCE = 0.99
ENOUGH_SIMILARITY = 0.95


class Moments(NamedTuple):
    """Mean ``(c,)`` and covariance ``(c, c)`` of the channels, over samples or over samples and positions."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


class Refill(NamedTuple):
    """Every channel predicted from q numbers: ``A @ into @ out + offset``.

    Attributes:
        into: ``(c, q)``; for kept channels columns of the identity, for components their directions.
        out: ``(q, c)``.
        offset: ``(c,)``.
    """

    into: NDArray[np.float64]
    out: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __call__(self, activations: NDArray[Any]) -> NDArray[np.float64]:
        """Reduce activations ``(..., c)`` and predict them back, same shape."""
        return np.asarray(activations @ self.into @ self.out + self.offset)


def moments(activations: NDArray[Any]) -> Moments:
    """Mean and covariance of ``(m, c)`` activations."""
    mean = activations.mean(0, dtype=np.float64)
    centred = activations.astype(np.float64) - mean
    return Moments(mean, centred.T @ centred / len(activations))


def kept_counts(shares: NDArray[Any], channels: int) -> NDArray[np.int64]:
    """How many features each share keeps, at least one.

    >>> kept_counts(np.array([0.001, 0.5, 1.0]), 64)
    array([ 1, 32, 64])
    """
    return np.clip(np.ceil(np.asarray(shares) * channels - 1e-9), 1, channels).astype(np.int64)


def principal_axes(stats: Moments) -> NDArray[np.float64]:
    """Directions of falling variance as columns, ``(c, c)``; the largest entry of each is positive."""
    axes = np.linalg.eigh(stats.covariance)[1][:, ::-1]
    largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]
    return np.asarray(axes * np.where(largest < 0, -1.0, 1.0))


def component_refill(stats: Moments, axes: NDArray[np.float64], count: int) -> Refill:
    """Keep the first principal components (PCA reconstruction)."""
    kept = axes[:, :count]
    return Refill(kept, kept.T, stats.mean - stats.mean @ kept @ kept.T)


def channel_refill(stats: Moments, kept: NDArray[np.int64]) -> Refill:
    """Keep some channels and predict the others by least squares.

    Args:
        stats: Of the samples that the prediction is fitted to.
        kept: ``(q,)`` channels.
    """
    channels = len(stats.mean)
    inner = stats.covariance[np.ix_(kept, kept)]
    ridge = RIDGE * max(float(np.diag(stats.covariance).max()), 1e-300)
    out = np.asarray(np.linalg.solve(inner + ridge * np.eye(len(kept)), stats.covariance[kept]))
    out[:, kept] = np.eye(len(kept))
    return Refill(np.eye(channels)[:, kept], out, stats.mean - stats.mean[kept] @ out)


def pivoted_order(stats: Moments) -> NDArray[np.int64]:
    """Take the channel of largest remaining variance each time: column-pivoted QR of the centred data, ``(c,)``."""
    return _greedy(stats, lambda residue: np.diag(residue).copy())


def greedy_order(stats: Moments) -> NDArray[np.int64]:
    """Take the channel that leaves the least variance of all channels unexplained after a refit each time, ``(c,)``.

    Forward selection for the column subset problem; the gain of channel j is ``|R[:, j]|^2 / R[j, j]`` with the
    residual covariance R (Farahat, Ghodsi & Kamel, ICDM 2011).
    """

    def gain(residue: NDArray[np.float64]) -> NDArray[np.float64]:
        own = np.diag(residue)
        floor = 1e-12 * max(float(np.diag(stats.covariance).max()), 1e-300)
        return np.where(own > floor, (residue**2).sum(0) / np.maximum(own, floor), 0.0)

    return _greedy(stats, gain)


def fill_value(stats: Moments, rule: str) -> NDArray[np.float64]:
    """What takes a dropped channel's place, ``(c,)``.

    Args:
        stats: Of the data set.
        rule: ``"zero"`` or ``"mean"``.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule not in ("zero", "mean"):
        raise ValueError(f"unknown fill rule {rule!r}; choose 'zero' or 'mean'")
    return np.zeros_like(stats.mean) if rule == "zero" else stats.mean


def similarity(maps: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation of each map with its reference over positions, in [-1, 1]; 0 where either is constant.

    Args:
        maps: ``(..., *space)``; the leading axes may be more than the reference's.
        reference: ``(n, *space)``.

    Returns:
        ``maps.shape`` without the space.
    """
    axes = tuple(range(-(reference.ndim - 1), 0))
    a = maps - maps.mean(axes, keepdims=True, dtype=np.float64)
    b = reference - reference.mean(axes, keepdims=True, dtype=np.float64)
    norm = np.sqrt((a**2).sum(axes) * (b**2).sum(axes))
    known = norm > 1e-12 * norm.max(initial=0.0)
    return np.asarray(np.divide((a * b).sum(axes), norm, out=np.zeros(norm.shape), where=known))


def enough(
    shares: NDArray[Any], performance: NDArray[Any], similarities: NDArray[Any], full: float
) -> tuple[float, float]:
    """Smallest shares that are enough, and stay enough at every larger share tried.

    Args:
        shares: ``(r,)`` rising.
        performance: ``(r,)`` accuracy (or R^2) at each.
        similarities: ``(r,)`` mean map similarity at each.
        full: The whole network's performance.

    Returns:
        For 99 % of the performance, and for that and a map similarity of 0.95 together; NaN if none is.

    >>> enough(np.array([0.1, 0.5, 1.0]), np.array([0.5, 0.9, 0.9]), np.array([0.9, 0.9, 1.0]), 0.9)
    (0.5, 1.0)
    """
    performs = performance >= ENOUGH_PERFORMANCE * full - 1e-12
    both = performs & (similarities >= ENOUGH_SIMILARITY)
    return _first_that_lasts(shares, performs), _first_that_lasts(shares, both)


def _first_that_lasts(shares: NDArray[Any], good: NDArray[np.bool_]) -> float:
    lasting = np.logical_and.accumulate(good[::-1])[::-1]
    return float(shares[lasting.argmax()]) if lasting.any() else float("nan")


def _greedy(stats: Moments, gain: Any) -> NDArray[np.int64]:
    """Take channels by gain, each time removing from the residual covariance what the one taken explains."""
    residue = stats.covariance.copy()
    left = np.ones(len(residue), dtype=bool)
    taken = np.empty(len(residue), dtype=np.int64)
    floor = 1e-12 * max(float(np.diag(residue).max(initial=0.0)), 1e-300)
    for step in range(len(residue)):
        best = int(np.where(left, gain(residue), -np.inf).argmax())
        taken[step], left[best] = best, False
        if residue[best, best] > floor:
            column = residue[:, best].copy()
            residue -= np.outer(column, column / column[best])
    return taken
