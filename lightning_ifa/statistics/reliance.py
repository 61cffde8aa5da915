"""Reliance: which share of the evidence between classes runs through a variable, and how sure is it?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.statistics.permutation import as_normal, chance_variances, degrees_of_freedom, grouped_variance
from lightning_ifa.statistics.strata import group_means

_TINY = 1e-300


class Reliance(NamedTuple):
    """What runs through one variable.

    Attributes:
        share: Of the mean between-class evidence, in about [-1, 1]; 0 = none.
        z: Of the share under its null.
        classes: ``(k,)`` the classes that occur, sorted.
        class_shares: ``(k,)`` share of each class's own evidence.
        class_z: ``(k,)``.
    """

    share: float
    z: float
    classes: NDArray[np.int64]
    class_shares: NDArray[np.float64]
    class_z: NDArray[np.float64]


class Further(NamedTuple):
    """Samples of another split that help to say how the network uses a variable; ``(m, ...)`` as in ``reliance``."""

    logits: NDArray[Any]
    labels: NDArray[np.int64]
    column: NDArray[Any]
    groups: NDArray[np.int64] | None = None


def reliance(
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    column: NDArray[Any],
    further: Further | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the between-class evidence that runs through a variable: association times use.

    Within classes, the slope of every (centred) logit on the variable says how far the network uses it; the class
    means of the variable say how far it goes with the class. Their product, summed over classes, is set against
    the total evidence ``sum_y (L[y, y] - L[., y])`` of the class means L. Zero if either is absent.

    The null is: no use or no association. Without use, values may be exchanged within classes; for it the statistic,
    a sum over samples of the centred variable times a number, has mean 0 and a variance in closed form (Hoeffding
    1951, combinatorial central limit theorem), so that nothing is drawn at random. Without association, the class
    means of the variable scatter by chance. The smaller z of the two counts (an intersection-union test), so that
    neither an associated but unused variable nor a used one that only chance ties to the class stands out.

    Where samples come in groups, both nulls exchange whole groups (``indicators/exchange.py``), and the second one's z
    allows for how few they are. Groups only ever make the answer less sure.

    Args:
        logits: ``(n, k)``.
        labels: ``(n,)`` class of each sample, a column of ``logits``; at least two classes.
        column: ``(n, p)`` numeric, varying within classes; one column, or the dummy columns of a categorical one.
        further: Training samples. How the network uses a variable is the same on both splits, and where few samples
            lie off the pattern, every one counts. How far it goes with the class is still read off ``column``.
        groups: ``(n,)`` which samples belong together, as of one patient; ``further`` needs them too then. None where
            every sample stands for itself.
    """
    classes, position = np.unique(labels, return_inverse=True)
    L = _centred(logits)
    _, class_logits = group_means(L, labels)
    _, class_column = group_means(column.astype(np.float64), labels)
    inside, use, stratum = column - class_column[position], L - class_logits[position], position
    group = groups
    if further is not None:
        inside, use, stratum, group = _pooled(inside, use, stratum, groups, further, classes)
    use = use[:, classes]
    spread = np.linalg.pinv(inside.T @ inside)
    away = (class_column - class_column.mean(0)) @ spread  # (classes, p): how far each class's mean lies out
    evidence = class_logits[np.arange(len(classes)), classes] - class_logits.mean(0)[classes]
    through = np.einsum("np,nc,cp->c", inside, use, away, optimize=True)
    slopes = np.asarray(spread @ (inside.T @ use)).T  # (classes, p)
    known = _Known(inside, use, away, slopes, position, stratum)
    null = _independent(known)
    if group is not None:
        null = _grouped(known, group, null)
    z_use = through / np.sqrt(np.maximum(null.use, _TINY))
    z_association = through / np.sqrt(np.maximum(null.chance, _TINY))
    joint_use = float(through.sum()) / np.sqrt(max(null.joint_use, _TINY))
    joint_association = float(through.sum()) / np.sqrt(max(null.joint_chance, _TINY))
    if group is not None:
        freedom = degrees_of_freedom(stratum, group)
        z_association, joint_association = (as_normal(t, freedom) for t in (z_association, joint_association))
    z, z_class = _nearer_null(joint_use, joint_association), _nearer_null(z_use, z_association)
    total = float(evidence.sum())
    if total <= 0:  # a network whose evidence speaks against its classes
        return Reliance(0.0, 0.0, classes, np.zeros(len(classes)), np.zeros(len(classes)))
    shares = np.where(evidence > 0, through / np.where(evidence > 0, evidence, 1.0), 0.0)
    return Reliance(float(through.sum()) / total, float(z), classes, shares, np.asarray(z_class))


class _Known(NamedTuple):
    """What the nulls are computed from: column and logits within strata, and what the class means make of them."""

    inside: NDArray[np.float64]
    use: NDArray[np.float64]
    away: NDArray[np.float64]
    slopes: NDArray[np.float64]
    position: NDArray[np.int64]
    stratum: NDArray[np.int64]


class _Variances(NamedTuple):
    """Of each class's part and of the sum, without use and without association."""

    use: NDArray[np.float64]
    joint_use: float
    chance: NDArray[np.float64]
    joint_chance: float


def _independent(known: _Known) -> _Variances:
    """Variances where every sample stands for itself."""
    inside, use, away, slopes, position, stratum = known
    free = np.maximum(np.bincount(stratum) - 1, 1)
    column_products = _class_sums(inside[:, :, None] * inside[:, None, :], stratum)  # (strata, p, p)
    lever = np.einsum("yp,cpq,yq->cy", away, column_products, away, optimize=True)
    of_class = (_class_sums(use**2, stratum) * lever / free[:, None]).sum(0)
    joint = use @ away
    joint_products = _class_sums(joint[:, :, None] * joint[:, None, :], stratum)
    variance = float((column_products * joint_products / free[:, None, None]).sum())
    chance = np.einsum("cp,pq,cq->c", slopes, inside.T @ inside / len(inside), slopes, optimize=True)
    chance = chance / np.bincount(position)
    return _Variances(of_class, variance, chance, float(chance.sum()))


def _grouped(known: _Known, group: NDArray[np.int64], alone: _Variances) -> _Variances:
    """Variances where whole groups are exchanged, never below those of samples that stand for themselves."""
    inside, use, away, slopes, position, stratum = known
    of_class = grouped_variance((inside @ away.T)[:, :, None], use[:, :, None], stratum, group)
    variance = float(grouped_variance(inside[:, None], (use @ away)[:, None], stratum, group)[0])
    chance, joint_chance = chance_variances(inside, slopes, position, stratum, group)
    return _Variances(
        np.maximum(alone.use, of_class),
        max(alone.joint_use, variance),
        np.maximum(alone.chance, chance),
        max(alone.joint_chance, joint_chance),
    )


def _pooled(
    inside: NDArray[np.float64],
    use: NDArray[np.float64],
    stratum: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    further: Further,
    classes: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]:
    """Add further samples, centred within their own classes, which are strata of their own."""
    rows = np.isin(further.labels, classes)
    labels = further.labels[rows]
    if not len(labels):
        return inside, use, stratum, groups
    values, L = further.column[rows].astype(np.float64), _centred(further.logits[rows])
    position, class_values = group_means(values, labels)
    _, class_logits = group_means(L, labels)
    return (
        np.concatenate([inside, values - class_values[position]]),
        np.concatenate([use, L - class_logits[position]]),
        np.concatenate([stratum, stratum.max() + 1 + position]),
        None if groups is None or further.groups is None else np.concatenate([groups, further.groups[rows]]),
    )


def _centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    L = logits.astype(np.float64)
    return np.asarray(L - L.mean(1, keepdims=True))


def _nearer_null(a: Any, b: Any) -> Any:
    return np.where(np.abs(a) < np.abs(b), a, b)


def regression_reliance(
    predictions: NDArray[Any],
    targets: NDArray[Any],
    bins: NDArray[np.int64],
    column: NDArray[Any],
    groups: NDArray[np.int64] | None = None,
) -> tuple[float, float]:
    """The same for a regression: share of the slope of prediction on target that runs through a variable.

    With ``prediction ~ a * target + b * m`` and ``m ~ s * target``, the share is ``b * s / (a + b * s)``. The null
    exchanges the variable's part that the target leaves over, within target bins.

    Args:
        predictions: ``(n,)``.
        targets: ``(n,)``.
        bins: ``(n,)`` target bin.
        column: ``(n, p)`` numeric.
        groups: ``(n,)`` as for ``reliance``.

    Returns:
        The share and its z.
    """
    y, p, m = (v - v.mean(0) for v in (targets.astype(np.float64), predictions.astype(np.float64), column))
    scale = max(float(y @ y), _TINY)
    along = m.T @ y / scale  # (p,): slope of the variable on the target
    _, position = np.unique(bins, return_inverse=True)
    left, unexplained = (v - np.outer(y, v.T @ y / scale).reshape(v.shape) for v in (m, p))
    centred = [v - group_means(v, bins)[1][position] for v in (left, unexplained)]
    weights = np.linalg.pinv(centred[0].T @ centred[0]) @ along
    lever = centred[0] @ weights  # one number a sample
    statistic = float(lever @ centred[1])
    squares = [_class_sums(v**2, position) for v in (lever, centred[1])]
    variance = float((squares[0] * squares[1] / np.maximum(np.bincount(position) - 1, 1)).sum())
    if groups is not None:
        a, b = (v.reshape(len(v), 1, 1) for v in (lever, centred[1]))
        variance = max(variance, float(grouped_variance(a, b, position, groups)[0]))
    share = statistic * scale / (np.sign(y @ p) * max(abs(float(y @ p)), _TINY))
    return share, statistic / np.sqrt(max(variance, _TINY))


def channel_reliance(
    contributions: NDArray[Any], activations: NDArray[Any], labels: NDArray[np.int64], column: NDArray[Any]
) -> NDArray[np.float64]:
    """Split a variable's reliance over channels.

    A channel's part is the slope of its activation on the variable, times its weight for each class, times how far
    the class goes with the variable. The weight is read off as contribution per activation: exact behind pooling
    and one linear layer, where the parts sum to the reliance, an approximation behind anything else.

    Args:
        contributions: ``(n, c)`` for the label class.
        activations: ``(n, c)`` means over space.
        labels: ``(n,)``.
        column: ``(n, p)``.

    Returns:
        ``(c,)``, in units of the score summed over classes.
    """
    A, C = activations.astype(np.float64), contributions.astype(np.float64)
    _, position = np.unique(labels, return_inverse=True)
    weights = _class_sums(A * C, position) / np.maximum(_class_sums(A**2, position), _TINY)
    inside, varying = (v - group_means(v, labels)[1][position] for v in (column.astype(np.float64), A))
    slopes = np.linalg.pinv(inside) @ varying
    _, class_column = group_means(column.astype(np.float64), labels)
    away = class_column - class_column.mean(0)
    return np.asarray(((away @ slopes) * (weights - weights.mean(0))).sum(0))


def _class_sums(values: NDArray[np.float64], position: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum rows within each class, ``(classes, ...)``."""
    counts = np.bincount(position)
    return np.add.reduceat(values[np.argsort(position, kind="stable")], np.cumsum(counts) - counts, axis=0)
