"""Generalization gap: how far the evidence on training samples exceeds that on validation samples.

Evidence for a class is its logit over the next best, or the sum of its contributions. Everything is compared within
strata: classes, or bins of a regression target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import solve
from sklearn.metrics import roc_auc_score

from lightning_ifa.statistics.arrays import Array, Floats, Ints
from lightning_ifa.statistics.significance import Z_LIMIT
from lightning_ifa.statistics.strata import centre_within

SHIFT_FOLDS = 5

MOST_SAMPLES_A_CHANNEL = 4 / 3
"""Up to that many samples a channel, the two-sample test solves for samples rather than for channels."""


class SplitSample(NamedTuple):
    """One split's part in the comparison, rows are labelled samples.

    Attributes:
        margins: Logit of the true class over the next best, ``(n,)``; see ``margin``.
        intensity: Sum of the map explained for the true class, ``(n,)``.
        activations: Pooled activations, ``(n, c)``.
        strata: Class or target bin, ``(n,)``.
    """

    margins: Array
    intensity: Array
    activations: Array
    strata: Ints


def margin(logits: Array, targets: Ints) -> Array:
    """Subtract the largest other logit from the true class's.

    Args:
        logits: Logits of n samples, ``(n, k)``, k >= 2.
        targets: Class of each sample, ``(n,)``.

    Returns:
        One margin a sample, ``(n,)``; negative where the sample is misclassified.

    >>> margin(np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]]), np.array([0, 1]))
    array([ 2., -3.])
    """
    rows = np.arange(len(targets))
    others = logits.copy()
    others[rows, targets] = -np.inf
    return np.asarray(logits[rows, targets] - others.max(1))


def standardised_gap(train: Array, train_strata: Ints, val: Array, val_strata: Ints) -> tuple[float, float]:
    """Difference of means between two splits, within strata, in within-stratum standard deviations.

    The least-squares effect of the split with one intercept a stratum: strata are weighted by
    ``n_train * n_val / (n_train + n_val)``, so a class skew between the splits does not enter. Under exchangeable
    splits z is N(0, 1).

    Args:
        train: Values of the training split, ``(n,)``.
        train_strata: Their strata, ``(n,)``.
        val: Values of the validation split, ``(m,)``.
        val_strata: Their strata, ``(m,)``.

    Returns:
        ``d`` (positive: training larger; dimensionless) and its ``z``. NaN if no stratum has two samples on
        each side.

    >>> s = np.zeros(4, dtype=int)
    >>> round(standardised_gap(np.array([1.0, 2, 3, 4]), s, np.array([0.0, 1, 2, 3]), s)[0], 3)
    0.775
    """
    d, z = _gaps(train[:, None], train_strata, val[:, None], val_strata)
    return float(d[0]), float(z[0])


def gap_spread(train_strata: Ints, val_strata: Ints) -> float:
    """Give the standard deviation of ``standardised_gap`` under exchangeable splits; infinite if it is not defined.

    >>> gap_spread(np.zeros(200, dtype=int), np.zeros(200, dtype=int))
    0.1
    """
    weight = 0.0
    for label in np.intersect1d(train_strata, val_strata):
        n, m = int((train_strata == label).sum()), int((val_strata == label).sum())
        weight += n * m / (n + m) if min(n, m) > 1 else 0.0
    return float(1 / np.sqrt(weight)) if weight else np.inf


def _gaps(train: Array, train_strata: Ints, val: Array, val_strata: Ints) -> tuple[Floats, Floats]:
    """Standardised gap of every column, ``(c,)``, and its z."""
    c = train.shape[1]
    gap, squares, weight, freedom = np.zeros(c), np.zeros(c), 0.0, 0
    for label in np.intersect1d(train_strata, val_strata):
        a, b = train[train_strata == label].astype(np.float64), val[val_strata == label].astype(np.float64)
        if min(len(a), len(b)) < 2:
            continue
        w = len(a) * len(b) / (len(a) + len(b))
        gap, weight = gap + w * (a.mean(0) - b.mean(0)), weight + w
        squares += ((a - a.mean(0)) ** 2).sum(0) + ((b - b.mean(0)) ** 2).sum(0)
        freedom += len(a) + len(b) - 2
    if not freedom:
        return np.full(c, np.nan), np.full(c, np.nan)
    spread = np.sqrt(squares / freedom)
    d = np.where(spread > 0, gap / weight / np.where(spread > 0, spread, 1.0), 0.0)
    return d, d * np.sqrt(weight)


def shift_auc(train: Array, train_strata: Ints, val: Array, val_strata: Ints, seed: int = 0) -> float:
    """Measure how well a shrunk linear discriminant tells the splits apart by class-centred activations.

    Overfitting hardly moves where samples lie in feature space, a covariate shift does; cross-validated, so 0.5
    is chance whatever the number of channels.

    Args:
        train: Pooled activations of the training split, ``(n, c)``.
        train_strata: Their strata, ``(n,)``.
        val: Pooled activations of the validation split, ``(m, c)``.
        val_strata: Their strata, ``(m,)``.
        seed: Seed of the folds.

    Returns:
        AUC in [0, 1].
    """
    x = np.concatenate([train, val])
    side = np.repeat([0, 1], [len(train), len(val)])
    x = centre_within(x, np.concatenate([train_strata, val_strata]))
    spread = x.std(0)
    x = (x[:, spread > 0] / spread[spread > 0]).astype(np.float32)
    if min(len(train), len(val)) < SHIFT_FOLDS or not x.shape[1]:
        return 0.5
    order = np.random.default_rng(seed).permutation(len(x))
    fold = np.empty(len(x), dtype=np.int64)
    fold[order[np.argsort(side[order], kind="stable")]] = np.arange(len(x)) % SHIFT_FOLDS  # equal shares of both sides
    by_samples = len(x) <= MOST_SAMPLES_A_CHANNEL * x.shape[1]
    decide = _decide_by_samples(x) if by_samples else _decide_by_channels(x)
    decision = np.empty(len(x))
    for number in range(SHIFT_FOLDS):
        held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        signs = np.where(side[rest] == 1, 1 / side[rest].sum(), -1 / (1 - side[rest]).sum()).astype(np.float32)
        decision[held] = decide(held, rest, signs)
    return float(roc_auc_score(side, decision))


Decide = Callable[[Ints, Ints, NDArray[np.float32]], NDArray[np.float32]]
"""Held rows, the rest, and the weights by which a sum over the rest is the difference of the sides' means."""


def _decide_by_channels(x: NDArray[np.float32]) -> Decide:
    """Solve for one weight a channel: ``held @ inv(scatter) @ difference``."""
    everything = x.T @ x

    def decide(held: Ints, rest: Ints, signs: NDArray[np.float32]) -> NDArray[np.float32]:
        scatter = (everything - x[held].T @ x[held]) / len(rest)
        return np.asarray(x[held] @ solve(_shrink(scatter, len(rest), x.shape[1]), signs @ x[rest], assume_a="pos"))

    return decide


def _decide_by_samples(x: NDArray[np.float32]) -> Decide:
    """The same by one weight a sample, less work where channels are many: ``inv(a X'X + b) X' = X' inv(a XX' + b)``."""
    products = x @ x.T

    def decide(held: Ints, rest: Ints, signs: NDArray[np.float32]) -> NDArray[np.float32]:
        among = products[np.ix_(rest, rest)] / len(rest)
        weights = solve(_shrink(among, len(rest), x.shape[1]), signs, assume_a="pos")
        return np.asarray(products[np.ix_(held, rest)] @ weights)

    return decide


def _shrink(products: Array, n: int, p: int) -> Array:
    """Shrink towards a multiple of the identity: OAS (Chen, Wiesel, Eldar & Hero 2010, eq. 23).

    Args:
        products: Covariance of p channels, or the products of n samples, over n: their traces, and those of their
            squares, are the same.
        n: Number of samples.
        p: Number of channels.
    """
    level, squares = float(np.trace(products)) / p, float(np.vdot(products, products)) / p
    share = (squares + p * level**2) / max((n + 1) * (squares - level**2), 1e-12)
    share = float(np.clip(share, 1e-3, 1.0))
    shrunk = np.asarray((1 - share) * products)
    shrunk[np.diag_indices(len(shrunk))] += share * level
    return shrunk


def cut_at_median(train: Array, val: Array) -> tuple[Array, Array]:
    """Cut both splits' margins at their common median: a gap shows first among the harder half."""
    middle = np.median(np.concatenate([train, val]))
    return np.minimum(train, middle), np.minimum(val, middle)


def gaps_by_class(train: Array, train_strata: Ints, val: Array, val_strata: Ints) -> pd.DataFrame:
    """Say in which classes the gap lies, largest first.

    The arguments are those of ``standardised_gap``: margins of labelled samples, and their strata.

    Returns:
        One row a class with two samples on both sides: ``class``, ``gap`` (in standard deviations within the class),
        ``z``, ``train`` and ``validation`` (how many samples).
    """
    rows = []
    for label in np.intersect1d(train_strata, val_strata):
        a, b = train[train_strata == label], val[val_strata == label]
        gap, z = standardised_gap(a, np.zeros(len(a), dtype=np.int64), b, np.zeros(len(b), dtype=np.int64))
        if np.isfinite(gap):
            rows.append({"class": int(label), "gap": gap, "z": z, "train": len(a), "validation": len(b)})
    columns = ["class", "gap", "z", "train", "validation"]
    return pd.DataFrame(rows, columns=columns).sort_values("gap", ascending=False, ignore_index=True)


def gaps_by_feature(train: Array, train_strata: Ints, val: Array, val_strata: Ints) -> pd.DataFrame:
    """Say in which channels the gap lies, largest share first.

    The arguments are those of ``standardised_gap``, with contributions ``(n, c)`` and ``(m, c)`` for values.

    Returns:
        One row a channel: ``feature``, ``gap`` (in its own standard deviations within classes), ``z``, and ``share``
        of the gap in the contributions' sum; shares sum to 1. No row if no stratum has two samples on each side.
    """
    gap, z = _gaps(train, train_strata, val, val_strata)
    raw = _mean_gap(train, train_strata, val, val_strata)
    share = raw / raw.sum() if raw.sum() else 0.0 * raw
    frame = pd.DataFrame({"feature": np.arange(len(gap)), "gap": gap, "z": z, "share": share}).dropna()
    return frame.sort_values("share", ascending=False, ignore_index=True)


def _mean_gap(train: Array, train_strata: Ints, val: Array, val_strata: Ints) -> Floats:
    """Difference of means within strata, in units of the values, ``(c,)``."""
    gap, total = np.zeros(train.shape[1]), 0.0
    for label in np.intersect1d(train_strata, val_strata):
        a, b = train[train_strata == label], val[val_strata == label]
        weight = len(a) * len(b) / (len(a) + len(b))
        gap, total = gap + weight * (a.mean(0) - b.mean(0)), total + weight
    return np.asarray(gap / max(total, 1e-12))


def left_null(z: Sequence[float], successive: int = 2) -> int | None:
    """Find the epoch at which a training left its null: the first of ``successive`` ones with z above 3.

    Args:
        z: One value an analysed epoch, in order; NaN where there was none.
        successive: Number of such epochs in a row.

    >>> left_null([0.5, 3.4, 1.0, 3.2, 4.0]), left_null([0.1, 3.5])
    (3, None)
    """
    above = np.asarray(z, dtype=np.float64) > Z_LIMIT
    for epoch in range(len(above) - successive + 1):
        if above[epoch : epoch + successive].all():
            return epoch
    return None
