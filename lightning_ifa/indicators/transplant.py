"""Transplants: which share of the evidence between classes travels with a part of the image?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.exchange import grouped_variance
from lightning_ifa.indicators.reliance import Reliance
from lightning_ifa.indicators.strata import group_means

LEAST_RECIPIENTS = 5
"""Recipients of a class that are compared among themselves; smaller classes are pooled."""


def transplant_reliance(
    before: NDArray[Any],
    after: NDArray[Any],
    donor: NDArray[Any],
    labels: NDArray[np.int64],
    donor_labels: NDArray[np.int64],
    donor_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the between-class evidence that travels with what was transplanted.

    The covariance of the donor's class with the change of that class's logit, among recipients of one class, set
    against the same for a transplant of the whole image: 1 if all evidence moves along, 0 if the part means
    nothing. Damage to the recipient does not count, since it does not depend on the donor's class; so a part that
    goes with the class in every single sample is found as well, where nothing is left to compare within classes.

    The null exchanges donors' classes among the recipients of a class; mean 0, variance in closed form. Donors of one
    group, as of one patient, are exchanged together. Recipients' groups do not matter: donors are drawn at random, so
    what recipients share has nothing to do with what they are given.

    Args:
        before: ``(n, k)`` logits of the recipients.
        after: ``(n, k)`` after the transplant.
        donor: ``(n, k)`` logits of the donors.
        labels: ``(n,)`` class of each recipient.
        donor_labels: ``(n,)`` class of its donor, drawn at random.
        donor_groups: ``(n,)`` which donors belong together; None where each stands for itself.
    """
    classes = np.unique(donor_labels)
    change, whole = _centred(after - before)[:, classes], _centred(donor - before)[:, classes]
    origin = (donor_labels[:, None] == classes).astype(np.float64)
    return travelled(origin, change, whole, labels, classes, donor_groups)


def travelled(
    origin: NDArray[np.float64],
    change: NDArray[np.float64],
    whole: NDArray[np.float64],
    recipients: NDArray[Any],
    classes: NDArray[np.int64],
    donor_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Covariance of what the donor is with what changed, as a share of the same for the whole image.

    Args:
        origin: ``(n, p)`` what the donor is, one column a class.
        change: ``(n, p)`` of the scores.
        whole: ``(n, p)`` change that a transplant of the whole image would make.
        recipients: ``(n,)`` or ``(n, q)``; recipients that agree in it are compared among themselves.
        classes: ``(p,)`` what the columns are called.
        donor_groups: ``(n,)`` which donors belong together; None where each stands for itself.
    """
    _, position, counts = np.unique(recipients, axis=0, return_inverse=True, return_counts=True)
    groups = np.where(counts[position] >= LEAST_RECIPIENTS, position, -1)
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
    if donor_groups is not None:
        o, d = (v - group_means(v, groups)[1][np.unique(groups, return_inverse=True)[1]] for v in (origin, change))
        variance = max(variance, float(grouped_variance(o[:, None], d[:, None], groups, donor_groups)[0]))
        of_class = grouped_variance(o[:, :, None], d[:, :, None], groups, donor_groups)
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
