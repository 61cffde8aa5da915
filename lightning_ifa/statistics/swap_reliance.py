"""Swaps: which share of the evidence between classes travels with a part of the image?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.statistics.permutation import grouped_variance
from lightning_ifa.statistics.reliance import Reliance
from lightning_ifa.statistics.strata import bin_edges, group_means, strata

LEAST_TARGETS = 5
"""Recipients of a class that are compared among themselves; smaller classes are pooled."""


def swap_reliance(
    before: NDArray[Any],
    after: NDArray[Any],
    source: NDArray[Any],
    labels: NDArray[np.int64],
    source_labels: NDArray[np.int64],
    source_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the between-class evidence that travels with what was swapped.

    The covariance of the source's class with the change of that class's logit, among recipients of one class, set
    against the same for a swap of the whole image: 1 if all evidence moves along, 0 if the part means
    nothing. Damage to the recipient does not count, since it does not depend on the source's class; so a part that
    goes with the class in every single sample is found as well, where nothing is left to compare within classes.

    The null exchanges sources' classes among the recipients of a class; mean 0, variance in closed form. Sources of one
    group, as of one patient, are exchanged together. Recipients' groups do not matter: sources are drawn at random, so
    what recipients share has nothing to do with what they are given.

    Args:
        before: ``(n, k)`` logits of the recipients.
        after: ``(n, k)`` after the swap.
        source: ``(n, k)`` logits of the sources.
        labels: ``(n,)`` class of each recipient.
        source_labels: ``(n,)`` class of its source, drawn at random.
        source_groups: ``(n,)`` which sources belong together; None where each stands for itself.
    """
    classes = np.unique(source_labels)
    change, whole = _centred(after - before)[:, classes], _centred(source - before)[:, classes]
    origin = (source_labels[:, None] == classes).astype(np.float64)
    return moved_evidence(origin, change, whole, labels, classes, source_groups)


def moved_evidence(
    origin: NDArray[np.float64],
    change: NDArray[np.float64],
    whole: NDArray[np.float64],
    recipients: NDArray[Any],
    classes: NDArray[np.int64],
    source_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Covariance of what the source is with what changed, as a share of the same for the whole image.

    Args:
        origin: ``(n, p)`` what the source is, one column a class.
        change: ``(n, p)`` of the scores.
        whole: ``(n, p)`` change that a swap of the whole image would make.
        recipients: ``(n,)`` or ``(n, q)``; recipients that agree in it are compared among themselves.
        classes: ``(p,)`` what the columns are called.
        source_groups: ``(n,)`` which sources belong together; None where each stands for itself.
    """
    _, position, counts = np.unique(recipients, axis=0, return_inverse=True, return_counts=True)
    groups = np.where(counts[position] >= LEAST_TARGETS, position, -1)
    moved, total = np.zeros(len(classes)), np.zeros(len(classes))
    variance, class_variance = 0.0, np.zeros(len(classes))
    for group in np.unique(groups):
        rows = groups == group
        o, d, w = (v[rows] - v[rows].mean(0) for v in (origin, change, whole))
        free = max(int(rows.sum()) - 1, 1)
        moved += (o * d).sum(0)
        total += (o * w).sum(0)
        variance += float(((o @ d.T) ** 2).sum()) / free
        class_variance += (o**2).sum(0) * (d**2).sum(0) / free
    if source_groups is not None:
        o, d = (v - group_means(v, groups)[1][np.unique(groups, return_inverse=True)[1]] for v in (origin, change))
        variance = max(variance, float(grouped_variance(o[:, None], d[:, None], groups, source_groups)[0]))
        of_class = grouped_variance(o[:, :, None], d[:, :, None], groups, source_groups)
        class_variance = np.maximum(class_variance, of_class)
    if total.sum() <= 0:  # a network whose evidence speaks against its classes
        return Reliance(0.0, 0.0, classes, np.zeros(len(classes)), np.zeros(len(classes)))
    share = float(moved.sum() / total.sum())
    z = float(moved.sum()) / np.sqrt(max(variance, 1e-300))
    shares = np.where(total > 0, moved / np.where(total > 0, total, 1.0), 0.0)
    return Reliance(share, z, classes, shares, moved / np.sqrt(np.maximum(class_variance, 1e-300)))


def _centred(values: NDArray[Any]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    return np.asarray(values - values.mean(1, keepdims=True))


def regression_swap(
    before: NDArray[Any],
    after: NDArray[Any],
    source: NDArray[Any],
    targets: NDArray[Any],
    source_targets: NDArray[Any],
    source_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the prediction's slope on the target that travels with what was swapped.

    How far the prediction moves towards the source's target, among recipients of one target bin, set against how far
    it moves if the whole image is the source's. Null and variance as for classes: sources are exchangeable.

    Args:
        before: ``(n,)`` predictions for the recipients.
        after: ``(n,)`` after the swap.
        source: ``(n,)`` predictions for the sources.
        targets: ``(n,)`` of the recipients.
        source_targets: ``(n,)`` of the sources, drawn at random.
        source_groups: ``(n,)`` which sources belong together; None where each stands for itself.

    Returns:
        With the single class -1.
    """
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, None] for v in (source_targets, after - before, source - before)
    )
    bins = strata(targets, bin_edges(targets))
    return moved_evidence(origin, change, whole, bins, np.array([-1]), source_groups)


def multilabel_swap(
    before: NDArray[Any],
    after: NDArray[Any],
    source: NDArray[Any],
    labels: NDArray[np.int64],
    source_labels: NDArray[np.int64],
    source_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the evidence for each label by itself, yes against no, that travels; all labels pooled.

    Among recipients with the same set of labels; rare sets are pooled. No softmax ties the labels, so their logits
    are not centred.

    Args:
        before: ``(n, k)`` logits of the recipients.
        after: ``(n, k)`` after the swap.
        source: ``(n, k)`` logits of the sources.
        labels: ``(n, k)`` of 0 and 1, of the recipients.
        source_labels: ``(n, k)`` of their sources, drawn at random.
        source_groups: ``(n,)`` which sources belong together; None where each stands for itself.

    Returns:
        The classes are the labels that some sources have and others have not.
    """
    told = np.flatnonzero(source_labels.std(0) > 0)
    if not len(told):
        return Reliance(0.0, 0.0, np.array([-1]), np.zeros(1), np.zeros(1))
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, told] for v in (source_labels, after - before, source - before)
    )
    return moved_evidence(origin, change, whole, labels, told, source_groups)
