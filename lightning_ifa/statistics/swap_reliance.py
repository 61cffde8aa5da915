"""Reliance on a part of the image: which share of the evidence between classes moves with it when it is swapped?

Evidence is a class's logit set against those of the others. A swap puts a part of one image, the source, into another,
the recipient.
"""

from __future__ import annotations

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints, centre_rows
from lightning_ifa.statistics.permutation import grouped_variance
from lightning_ifa.statistics.reliance import Reliance
from lightning_ifa.statistics.strata import bin_edges, centre_within, strata

LEAST_TARGETS = 5
"""Recipients of a class that are compared among themselves; smaller classes are pooled."""


def swap_reliance(
    before: Array, after: Array, source: Array, labels: Ints, source_labels: Ints, source_groups: Ints | None = None
) -> Reliance:
    """Measure the share of the between-class evidence that moves with what was swapped.

    The covariance of the source's class with the change of that class's logit, among recipients of one class, set
    against the same for a swap of the whole image: 1 if all evidence moves along, 0 if the part means
    nothing. Damage to the recipient does not count, since it does not depend on the source's class; so a part that
    goes with the class in every single sample is found as well, where nothing is left to compare within classes.

    The null exchanges sources' classes among the recipients of a class; mean 0, variance in closed form. Sources of one
    group, as of one patient, are exchanged together. Recipients' groups do not matter: sources are drawn at random, so
    what recipients share has nothing to do with what they are given.

    Args:
        before: Logits of the recipients, ``(n, k)``.
        after: Logits after the swap, ``(n, k)``.
        source: Logits of the sources, ``(n, k)``.
        labels: Class of each recipient, ``(n,)``.
        source_labels: Class of each recipient's source, drawn at random, ``(n,)``.
        source_groups: Group of each source, ``(n,)``; None where every sample stands for itself.
    """
    classes = np.unique(source_labels)
    change, whole = centre_rows(after - before)[:, classes], centre_rows(source - before)[:, classes]
    origin = (source_labels[:, None] == classes).astype(np.float64)
    return _moved_evidence(origin, change, whole, labels, classes, source_groups)


def _moved_evidence(
    origin: Floats, change: Floats, whole: Floats, recipients: Array, classes: Ints, source_groups: Ints | None = None
) -> Reliance:
    """Covariance of what the source is with what changed, as a share of the same for the whole image.

    Args:
        origin: What the source is, one column a class, ``(n, p)``.
        change: Change of the scores, ``(n, p)``.
        whole: Change that a swap of the whole image would make, ``(n, p)``.
        recipients: Labels of the recipients, ``(n,)`` or ``(n, q)``; those that agree are compared among themselves.
        classes: Names of the columns, ``(p,)``.
        source_groups: Group of each source, ``(n,)``, or None.
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
        o, d = (centre_within(v, groups) for v in (origin, change))
        variance = max(variance, float(grouped_variance(o[:, None], d[:, None], groups, source_groups)[0]))
        of_class = grouped_variance(o[:, :, None], d[:, :, None], groups, source_groups)
        class_variance = np.maximum(class_variance, of_class)
    if total.sum() <= 0:  # a network whose evidence points away from its classes
        return Reliance(0.0, 0.0, classes, np.zeros(len(classes)), np.zeros(len(classes)))
    share = float(moved.sum() / total.sum())
    z = float(moved.sum()) / np.sqrt(max(variance, 1e-300))
    shares = np.where(total > 0, moved / np.where(total > 0, total, 1.0), 0.0)
    return Reliance(share, z, classes, shares, moved / np.sqrt(np.maximum(class_variance, 1e-300)))


def regression_swap(
    before: Array, after: Array, source: Array, targets: Array, source_targets: Array, source_groups: Ints | None = None
) -> Reliance:
    """Measure the share of the prediction's slope on the target that moves with what was swapped.

    How far the prediction moves towards the source's target, among recipients of one target bin, set against how far
    it moves if the whole image is the source's. Null, variance and arguments are those of ``swap_reliance``, with
    predictions ``(n,)`` in place of logits and float targets ``(n,)`` in place of classes.

    Returns:
        The reliance, with the single class -1.
    """
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, None] for v in (source_targets, after - before, source - before)
    )
    bins = strata(targets, bin_edges(targets))
    return _moved_evidence(origin, change, whole, bins, np.array([-1]), source_groups)


def multilabel_swap(
    before: Array, after: Array, source: Array, labels: Ints, source_labels: Ints, source_groups: Ints | None = None
) -> Reliance:
    """Measure the share of the evidence for each label by itself, yes against no, that moves; all labels pooled.

    Recipients with the same set of labels are compared; rare sets are pooled. No softmax ties the labels, so their
    logits are not centred. The arguments are those of ``swap_reliance``, with labels ``(n, k)`` of 0 and 1.

    Returns:
        The reliance; its classes are the labels that some sources have and others have not.
    """
    varying = np.flatnonzero(source_labels.std(0) > 0)
    if not len(varying):
        return Reliance(0.0, 0.0, np.array([-1]), np.zeros(1), np.zeros(1))
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, varying] for v in (source_labels, after - before, source - before)
    )
    return _moved_evidence(origin, change, whole, labels, varying, source_groups)
