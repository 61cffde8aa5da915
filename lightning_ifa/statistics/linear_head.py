"""Linear heads on features: fitted to weighted samples, pulled towards a head that is already there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from lightning_ifa.statistics.arrays import Array, Floats, Ints

MOST_STEPS = 200


class LinearHead(NamedTuple):
    """A linear layer from features to class scores.

    Attributes:
        weight: ``(k, d)``.
        bias: ``(k,)``.
    """

    weight: Floats
    bias: Floats

    def __call__(self, features: Array) -> Floats:
        """Give the scores of each sample, ``(n, k)``."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_head(
    features: Array,
    labels: Ints,
    weights: Floats,
    start: LinearHead,
    ridge: float,
    *,
    intercept: bool = True,
    held: Floats | None = None,
) -> LinearHead:
    """Fit a head by weighted logistic regression, as near to a given head as the ridge asks.

    Minimises the weighted mean cross-entropy plus ``ridge / 2`` times the squared distance from ``start``, each
    feature in units of its standard deviation: a large ridge gives ``start``, a small one a head of its own. Last-layer
    retraining as in Kirichenko et al. 2023 (arXiv 2204.02937) where the weights balance groups, with the trained head
    in place of 0 as the point that the penalty pulls to.

    Args:
        features: What the head sees, ``(n, d)``.
        labels: Class of each sample, 0 to k - 1, ``(n,)``.
        weights: Weight of each sample, not negative, ``(n,)``.
        start: The head to stay near to.
        ridge: Strength of the pull, 0 or more.
        intercept: Whether the bias may move.
        held: Orthonormal directions in feature space along which the head stays as it is, ``(p, d)``; None for none.

    Returns:
        The head.
    """
    scale = features.std(0) + 1e-6 * float(features.std()) + 1e-12
    centre = features.mean(0)
    X = ((features - centre) / scale).astype(np.float32)
    offset = start(features).astype(np.float32)
    (n, d), k = X.shape, len(start.bias)
    share = (weights / weights.sum()).astype(np.float32)
    free = None if held is None or not len(held) else _orthonormal(held / scale)
    if free is not None:
        X = X - (X @ free.T.astype(np.float32)) @ free.astype(np.float32)
    rows = np.arange(n)

    def loss(x: Floats) -> tuple[float, Floats]:
        V, b = x[: k * d].reshape(k, d), x[k * d :]
        log_p = log_softmax(offset + X @ V.T.astype(np.float32) + b.astype(np.float32), axis=1)
        slope = np.exp(log_p)
        slope[rows, labels] -= 1
        slope *= share[:, None]
        value = -float((share * log_p[rows, labels]).sum(dtype=np.float64)) + ridge / 2 * float((V**2).sum())
        in_bias = slope.sum(0) if intercept else np.zeros(k)
        return value, np.concatenate([((slope.T @ X) + ridge * V).ravel(), in_bias]).astype(np.float64)

    found = minimize(
        loss, np.zeros(k * d + k), jac=True, method="L-BFGS-B", options={"maxiter": MOST_STEPS, "ftol": 1e-7}
    ).x
    V, b = found[: k * d].reshape(k, d), found[k * d :]
    if free is not None:
        V = V - (V @ free.T) @ free
    change = V / scale
    moved = b - change @ centre if intercept else np.zeros(k)
    return LinearHead(start.weight + change, start.bias + moved)


def remove_directions(head: LinearHead, directions: Floats, centre: Array | None) -> LinearHead:
    """Make a head blind to directions in feature space.

    Args:
        head: The head.
        directions: Orthonormal, ``(p, d)``.
        centre: Features whose scores stay as they are, ``(d,)``; None leaves the bias.
    """
    removed = (head.weight @ directions.T) @ directions
    return LinearHead(head.weight - removed, head.bias if centre is None else head.bias + removed @ centre)


def _orthonormal(directions: Floats) -> Floats:
    values = np.linalg.svd(directions, full_matrices=False)
    return np.asarray(values[2][values[1] > 1e-9 * max(values[1].max(), 1e-300)])
