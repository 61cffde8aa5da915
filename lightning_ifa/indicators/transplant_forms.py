"""Transplants where a sample has no single class: regression, and several labels at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.reliance import Reliance
from lightning_ifa.indicators.strata import bin_edges, strata
from lightning_ifa.indicators.transplant import travelled


def regression_transplant(
    before: NDArray[Any],
    after: NDArray[Any],
    donor: NDArray[Any],
    targets: NDArray[Any],
    donor_targets: NDArray[Any],
    donor_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the prediction's slope on the target that travels with what was transplanted.

    How far the prediction moves towards the donor's target, among recipients of one target bin, set against how far
    it moves if the whole image is the donor's. Null and variance as for classes: donors are exchangeable.

    Args:
        before: ``(n,)`` predictions for the recipients.
        after: ``(n,)`` after the transplant.
        donor: ``(n,)`` predictions for the donors.
        targets: ``(n,)`` of the recipients.
        donor_targets: ``(n,)`` of the donors, drawn at random.
        donor_groups: ``(n,)`` which donors belong together; None where each stands for itself.

    Returns:
        With the single class -1.
    """
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, None] for v in (donor_targets, after - before, donor - before)
    )
    bins = strata(targets, bin_edges(targets))
    return travelled(origin, change, whole, bins, np.array([-1]), donor_groups)


def multilabel_transplant(
    before: NDArray[Any],
    after: NDArray[Any],
    donor: NDArray[Any],
    labels: NDArray[np.int64],
    donor_labels: NDArray[np.int64],
    donor_groups: NDArray[np.int64] | None = None,
) -> Reliance:
    """Share of the evidence for each label by itself, yes against no, that travels; all labels pooled.

    Among recipients with the same set of labels; rare sets are pooled. No softmax ties the labels, so their logits
    are not centred.

    Args:
        before: ``(n, k)`` logits of the recipients.
        after: ``(n, k)`` after the transplant.
        donor: ``(n, k)`` logits of the donors.
        labels: ``(n, k)`` of 0 and 1, of the recipients.
        donor_labels: ``(n, k)`` of their donors, drawn at random.
        donor_groups: ``(n,)`` which donors belong together; None where each stands for itself.

    Returns:
        The classes are the labels that some donors have and others have not.
    """
    told = np.flatnonzero(donor_labels.std(0) > 0)
    if not len(told):
        return Reliance(0.0, 0.0, np.array([-1]), np.zeros(1), np.zeros(1))
    origin, change, whole = (
        np.asarray(v, dtype=np.float64)[:, told] for v in (donor_labels, after - before, donor - before)
    )
    return travelled(origin, change, whole, labels, told, donor_groups)
