"""Selection: how many channels are enough, and what is saved if the others are predicted from the kept ones.

A reduced activation is an affine function of the channels at each position. Two kinds are made here: kept channels as
they are with the others constant (``fill``), and every channel predicted from few numbers (``Refill``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask

RIDGE = 1e-9
"""Share of the largest variance that is added so that the refill stays finite where kept channels are duplicates."""

ENOUGH_PERFORMANCE = 0.99
ENOUGH_SIMILARITY = 0.95


class Moments(NamedTuple):
    """Mean ``(c,)`` and covariance ``(c, c)`` of the channels, over samples or over samples and positions."""

    mean: Floats
    covariance: Floats


class Refill(NamedTuple):
    """Every channel predicted from q numbers: ``A @ into @ out + offset``.

    Attributes:
        into: Matrix that takes the q numbers, ``(c, q)``: columns of the identity for kept channels.
        out: Matrix that predicts every channel from them, ``(q, c)``.
        offset: Constant that is added, ``(c,)``.
    """

    into: Floats
    out: Floats
    offset: Floats

    def __call__(self, activations: Array) -> Floats:
        """Reduce activations ``(..., c)`` and predict them back, same shape."""
        return np.asarray(activations @ self.into @ self.out + self.offset)


def moments(activations: Array) -> Moments:
    """Mean and covariance of ``(m, c)`` activations."""
    mean = activations.mean(0, dtype=np.float64)
    centred = activations.astype(np.float64) - mean
    return Moments(mean, centred.T @ centred / len(activations))


def kept_counts(shares: Array, channels: int) -> Ints:
    """How many features each share keeps, at least one.

    >>> kept_counts(np.array([0.001, 0.5, 1.0]), 64)
    array([ 1, 32, 64])
    """
    return np.clip(np.ceil(np.asarray(shares) * channels - 1e-9), 1, channels).astype(np.int64)


def principal_axes(stats: Moments) -> Floats:
    """Directions of falling variance as columns, ``(c, c)``; the largest entry of each is positive."""
    axes = np.linalg.eigh(stats.covariance)[1][:, ::-1]
    largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]
    return np.asarray(axes * np.where(largest < 0, -1.0, 1.0))


def channel_refill(stats: Moments, kept: Ints) -> Refill:
    """Keep some channels and predict the others by least squares.

    Args:
        stats: Moments of the samples that the prediction is fitted to.
        kept: Channels that are kept, ``(q,)``.
    """
    channels = len(stats.mean)
    inner = stats.covariance[np.ix_(kept, kept)]
    ridge = RIDGE * max(float(np.diag(stats.covariance).max()), 1e-300)
    out = np.asarray(np.linalg.solve(inner + ridge * np.eye(len(kept)), stats.covariance[kept]))
    out[:, kept] = np.eye(len(kept))
    return Refill(np.eye(channels)[:, kept], out, stats.mean - stats.mean[kept] @ out)


def pivoted_order(stats: Moments) -> Ints:
    """Take the channel of largest remaining variance each time: column-pivoted QR of the centred data, ``(c,)``."""
    return _greedy(stats, lambda residue: np.diag(residue).copy())


def greedy_order(stats: Moments) -> Ints:
    """Take the channel that leaves the least variance of all channels unexplained after a refit each time, ``(c,)``.

    Forward selection for the column subset problem; the gain of channel j is ``|R[:, j]|^2 / R[j, j]`` with the
    residual covariance R (Farahat, Ghodsi & Kamel, ICDM 2011).
    """

    def gain(residue: Floats) -> Floats:
        own = np.diag(residue)
        floor = 1e-12 * max(float(np.diag(stats.covariance).max()), 1e-300)
        return np.where(own > floor, (residue**2).sum(0) / np.maximum(own, floor), 0.0)

    return _greedy(stats, gain)


def fill_value(stats: Moments, rule: str) -> Floats:
    """Give the values that stand in for dropped channels, ``(c,)``.

    Args:
        stats: Moments of the data set.
        rule: ``"zero"`` or ``"mean"``.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule not in ("zero", "mean"):
        raise ValueError(f"unknown fill rule {rule!r}; choose 'zero' or 'mean'")
    return np.zeros_like(stats.mean) if rule == "zero" else stats.mean


def similarity(maps: Array, reference: Array) -> Floats:
    """Pearson correlation of each map with its reference over positions, in [-1, 1]; 0 where either is constant.

    Args:
        maps: Maps, ``(..., n, *space)``; leading axes may come before those of the reference.
        reference: Maps that they are compared with, ``(n, *space)``.

    Returns:
        Correlations, ``(..., n)``.
    """
    axes = tuple(range(-(reference.ndim - 1), 0))
    a = maps - maps.mean(axes, keepdims=True, dtype=np.float64)
    b = reference - reference.mean(axes, keepdims=True, dtype=np.float64)
    norm = np.sqrt((a**2).sum(axes) * (b**2).sum(axes))
    known = norm > 1e-12 * norm.max(initial=0.0)
    return np.asarray(np.divide((a * b).sum(axes), norm, out=np.zeros(norm.shape), where=known))


def enough(shares: Array, performance: Array, similarities: Array, full: float) -> tuple[float, float]:
    """Find the smallest shares that are enough, and stay enough at every larger share tried.

    Args:
        shares: Shares of kept channels, rising, ``(r,)``.
        performance: Accuracy (or R^2) at each, ``(r,)``.
        similarities: Mean map similarity at each, ``(r,)``.
        full: Performance of the whole network.

    Returns:
        Share needed for 99 % of the performance, and for that and a map similarity of 0.95 together; NaN if none is.

    >>> enough(np.array([0.1, 0.5, 1.0]), np.array([0.5, 0.9, 0.9]), np.array([0.9, 0.9, 1.0]), 0.9)
    (0.5, 1.0)
    """
    performs = performance >= ENOUGH_PERFORMANCE * full - 1e-12
    both = performs & (similarities >= ENOUGH_SIMILARITY)
    return _first_that_lasts(shares, performs), _first_that_lasts(shares, both)


def _first_that_lasts(shares: Array, good: Mask) -> float:
    lasting = np.logical_and.accumulate(good[::-1])[::-1]
    return float(shares[lasting.argmax()]) if lasting.any() else float("nan")


def _greedy(stats: Moments, gain: Any) -> Ints:
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
