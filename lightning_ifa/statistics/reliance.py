"""Reliance: which share of the evidence between classes depends on a variable, and how sure is it?

Evidence for a class is its mean logit on the class's own samples minus that on the samples of all classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints, centre_rows
from lightning_ifa.statistics.permutation import as_normal, chance_variances, degrees_of_freedom, grouped_variance
from lightning_ifa.statistics.strata import centre_within, group_means, group_sums

_TINY = 1e-300


class Reliance(NamedTuple):
    """How far the evidence depends on one variable.

    Attributes:
        share: Share of the mean between-class evidence, in about [-1, 1]; 0 = none.
        z: Significance of the share under its null, in standard deviations.
        classes: The classes that occur, sorted, ``(k,)``.
        class_shares: Share of each class's own evidence, ``(k,)``.
        class_z: Significance of each class's share, ``(k,)``.
    """

    share: float
    z: float
    classes: Ints
    class_shares: Floats
    class_z: Floats


class Further(NamedTuple):
    """Samples of another split that help to say how the network uses a variable; ``(m, ...)`` as in ``reliance``."""

    logits: Array
    labels: Ints
    column: Array
    groups: Ints | None = None


def reliance(
    logits: Array, labels: Ints, column: Array, further: Further | None = None, groups: Ints | None = None
) -> Reliance:
    """Measure the share of the between-class evidence that depends on a variable: association times use.

    Within classes, the slope of every (centred) logit on the variable says how far the network uses it; the class
    means of the variable say how far it goes with the class. Their product, summed over classes, is set against
    the total evidence ``sum_y (L[y, y] - L[., y])`` of the class means L. Zero if either is absent.

    The null is: no use or no association. Without use, values may be exchanged within classes; for it the statistic,
    a sum over samples of the centred variable times a number, has mean 0 and a variance in closed form (Hoeffding
    1951, combinatorial central limit theorem), so that nothing is drawn at random. Without association, the class
    means of the variable scatter by chance. The smaller z of the two counts (an intersection-union test), so that
    neither an associated but unused variable nor a used one that only chance ties to the class stands out.

    Where samples come in groups, both nulls exchange whole groups (see ``permutation``), and the second one's z
    allows for how few they are. Groups only ever make the answer less sure.

    Args:
        logits: Logits of n samples for k classes, ``(n, k)``.
        labels: Class of each sample, a column of ``logits``, ``(n,)``; at least two classes.
        column: The variable, numeric, varying within classes, ``(n, p)``: one column, or the dummy columns of a
            categorical one.
        further: Training samples. How the network uses a variable is the same on both splits, and where few samples
            lie off the pattern, every one counts. How far it goes with the class is still read off ``column``.
        groups: Group of each sample, as its patient, ``(n,)``; ``further`` needs them too then. None where every
            sample stands for itself.
    """
    classes, position = np.unique(labels, return_inverse=True)
    L = centre_rows(logits)
    _, class_logits = group_means(L, labels)
    _, class_column = group_means(column.astype(np.float64), labels)
    inside, use, stratum, group = centre_within(column, labels), centre_within(L, labels), position, groups
    if further is not None:
        inside, use, stratum, group = _add_further(inside, use, stratum, groups, further, classes)
    use = use[:, classes]
    spread = np.linalg.pinv(inside.T @ inside)
    away = (class_column - class_column.mean(0)) @ spread  # (classes, p): how far each class's mean lies out
    evidence = class_logits[np.arange(len(classes)), classes] - class_logits.mean(0)[classes]
    through = np.einsum("np,nc,cp->c", inside, use, away, optimize=True)
    slopes = np.asarray(spread @ (inside.T @ use)).T  # (classes, p)
    known = _Statistic(inside, use, away, slopes, position, stratum)
    null = _sample_variances(known)
    if group is not None:
        null = _group_variances(known, group, null)
    z_use = through / np.sqrt(np.maximum(null.use, _TINY))
    z_association = through / np.sqrt(np.maximum(null.chance, _TINY))
    joint_use = float(through.sum()) / np.sqrt(max(null.joint_use, _TINY))
    joint_association = float(through.sum()) / np.sqrt(max(null.joint_chance, _TINY))
    if group is not None:
        freedom = degrees_of_freedom(stratum, group)
        z_association, joint_association = (as_normal(t, freedom) for t in (z_association, joint_association))
    z, z_class = _nearer_null(joint_use, joint_association), _nearer_null(z_use, z_association)
    total = float(evidence.sum())
    if total <= 0:  # a network whose evidence points away from its classes
        return Reliance(0.0, 0.0, classes, np.zeros(len(classes)), np.zeros(len(classes)))
    shares = np.where(evidence > 0, through / np.where(evidence > 0, evidence, 1.0), 0.0)
    return Reliance(float(through.sum()) / total, float(z), classes, shares, np.asarray(z_class))


class _Statistic(NamedTuple):
    """What the nulls are computed from: variable and logits within strata, and how far the class means lie out."""

    inside: Floats
    use: Floats
    away: Floats
    slopes: Floats
    position: Ints
    stratum: Ints


class _Variances(NamedTuple):
    """Variances of each class's part and of the sum (``joint``), without use and without association (``chance``)."""

    use: Floats
    joint_use: float
    chance: Floats
    joint_chance: float


def _sample_variances(known: _Statistic) -> _Variances:
    """Variances where every sample stands for itself."""
    inside, use, away, slopes, position, stratum = known
    free = np.maximum(np.bincount(stratum) - 1, 1)
    column_products = group_sums(inside[:, :, None] * inside[:, None, :], stratum)  # (strata, p, p)
    lever = np.einsum("yp,cpq,yq->cy", away, column_products, away, optimize=True)
    of_class = (group_sums(use**2, stratum) * lever / free[:, None]).sum(0)
    joint = use @ away
    joint_products = group_sums(joint[:, :, None] * joint[:, None, :], stratum)
    variance = float((column_products * joint_products / free[:, None, None]).sum())
    chance = np.einsum("cp,pq,cq->c", slopes, inside.T @ inside / len(inside), slopes, optimize=True)
    chance = chance / np.bincount(position)
    return _Variances(of_class, variance, chance, float(chance.sum()))


def _group_variances(known: _Statistic, group: Ints, alone: _Variances) -> _Variances:
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


def _add_further(
    inside: Floats, use: Floats, stratum: Ints, groups: Ints | None, further: Further, classes: Ints
) -> tuple[Floats, Floats, Ints, Ints | None]:
    """Add further samples, centred within their own classes, which are strata of their own."""
    rows = np.isin(further.labels, classes)
    labels = further.labels[rows]
    if not len(labels):
        return inside, use, stratum, groups
    _, position = np.unique(labels, return_inverse=True)
    return (
        np.concatenate([inside, centre_within(further.column[rows], labels)]),
        np.concatenate([use, centre_within(centre_rows(further.logits[rows]), labels)]),
        np.concatenate([stratum, stratum.max() + 1 + position]),
        None if groups is None or further.groups is None else np.concatenate([groups, further.groups[rows]]),
    )


def _nearer_null(a: Any, b: Any) -> Any:
    return np.where(np.abs(a) < np.abs(b), a, b)


def regression_reliance(
    predictions: Array, targets: Array, bins: Ints, column: Array, groups: Ints | None = None
) -> tuple[float, float]:
    """Measure the share of a regression's slope of prediction on target that depends on a variable.

    With ``prediction ~ a * target + b * m`` and ``m ~ s * target``, the share is ``b * s / (a + b * s)``. The null
    exchanges the variable's part that the target leaves over, within target bins.

    Args:
        predictions: Predicted values, ``(n,)``.
        targets: True values, ``(n,)``.
        bins: Target bin of each sample, ``(n,)``.
        column: The variable, numeric, ``(n, p)``.
        groups: Group of each sample, ``(n,)``, or None, as for ``reliance``.

    Returns:
        The share and its z.
    """
    y, p, m = (v - v.mean(0) for v in (targets.astype(np.float64), predictions.astype(np.float64), column))
    scale = max(float(y @ y), _TINY)
    along = m.T @ y / scale  # (p,): slope of the variable on the target
    _, position = np.unique(bins, return_inverse=True)
    left, unexplained = (v - np.outer(y, v.T @ y / scale).reshape(v.shape) for v in (m, p))
    centred = [centre_within(v, bins) for v in (left, unexplained)]
    weights = np.linalg.pinv(centred[0].T @ centred[0]) @ along
    lever = centred[0] @ weights  # one number a sample
    statistic = float(lever @ centred[1])
    squares = [group_sums(v**2, position) for v in (lever, centred[1])]
    variance = float((squares[0] * squares[1] / np.maximum(np.bincount(position) - 1, 1)).sum())
    if groups is not None:
        a, b = (v.reshape(len(v), 1, 1) for v in (lever, centred[1]))
        variance = max(variance, float(grouped_variance(a, b, position, groups)[0]))
    share = statistic * scale / (np.sign(y @ p) * max(abs(float(y @ p)), _TINY))
    return share, statistic / np.sqrt(max(variance, _TINY))


def channel_weights(contributions: Array, activations: Array, labels: Ints) -> Floats:
    """Read the weight of each channel for each class off as contribution per activation, less its mean over classes.

    Args:
        contributions: Contributions to the label's class, ``(n, c)``.
        activations: Activations averaged over space, ``(n, c)``.
        labels: Class of each sample, ``(n,)``.

    Returns:
        Weights, ``(classes, c)``, in the order of the sorted labels.
    """
    A, C = activations.astype(np.float64), contributions.astype(np.float64)
    weights = group_sums(A * C, labels) / np.maximum(group_sums(A**2, labels), _TINY)
    return np.asarray(weights - weights.mean(0))


def channel_reliance(
    contributions: Array, activations: Array, labels: Ints, column: Array, weights: Floats | None = None
) -> Floats:
    """Split a variable's reliance over channels.

    A channel's part is the slope of its activation on the variable, times its weight for each class, times how far
    the class goes with the variable. The weight is read off as contribution per activation: exact behind pooling
    and one linear layer, where the parts sum to the reliance, an approximation behind anything else.

    Args:
        contributions: Contributions to the label's class, ``(n, c)``.
        activations: Activations averaged over space, ``(n, c)``.
        labels: Class of each sample, ``(n,)``.
        column: The variable, numeric, ``(n, p)``.
        weights: From ``channel_weights`` of the same samples, where several variables share them.

    Returns:
        Each channel's part, ``(c,)``, in units of the score summed over classes.
    """
    if weights is None:
        weights = channel_weights(contributions, activations, labels)
    inside = centre_within(column, labels)  # orthogonal to the class means, so that activations need no centring
    slopes = np.linalg.pinv(inside.T @ inside, hermitian=True) @ (inside.T @ activations)
    _, class_column = group_means(column.astype(np.float64), labels)
    away = class_column - class_column.mean(0)
    return np.asarray(((away.T @ weights) * slopes).sum(0))
