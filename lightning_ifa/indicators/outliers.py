"""Outliers: which samples lie far from the training samples of their own class, and which look mislabelled?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from lightning_ifa.indicators.finding import Finding, health, undecided

NEIGHBOURS = 10
VOTE = 0.8
"""Share of neighbours that must agree on another label to call a sample mislabelled."""

THRESHOLD = 3.5
"""Robust z of the log distance beyond which a sample is an outlier."""

NULL_SHARE = 0.01
"""Share of clean samples that may lie beyond the threshold; measured 0.004 to 0.009."""

EXCESS_LIMIT = 0.01

MAD_TO_SD = 1.4826
ONE_SD_BELOW = 0.1587


class OutlierScores(NamedTuple):
    """Per sample, shape ``(n,)``.

    Attributes:
        score: Robust z of the log cosine distance to the nearest reference samples of the same class; NaN where
            the class has too few of them.
        disagreement: Share of the nearest reference samples, of whatever class, that agree on one other class.
    """

    score: NDArray[np.float64]
    disagreement: NDArray[np.float64]


def outlier_scores(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    reference: NDArray[Any] | None = None,
    reference_labels: NDArray[np.int64] | None = None,
) -> OutlierScores:
    """Score samples against reference samples (the training split), or against each other without reference.

    Centre and spread of the log distance come from the reference samples' own leave-one-out distances, so outliers
    among the judged samples do not hide each other. Where the judged samples as a whole lie further out, as they do
    in an overfitted network, their own median and lower half take over: that is no property of single samples.

    Args:
        features: ``(n, c)`` pooled activations.
        labels: ``(n,)`` class of each sample.
        reference: ``(m, c)``, or None.
        reference_labels: ``(m,)``, or None.
    """
    own = reference is None or reference_labels is None
    base = _unit(features if reference is None else reference)
    base_labels = labels if reference_labels is None else reference_labels
    calibration = _own_class_distance(base, base_labels, base, base_labels, leave_out=True)
    distance = calibration if own else _own_class_distance(_unit(features), labels, base, base_labels)
    known, judged = calibration[np.isfinite(calibration)], distance[np.isfinite(distance)]
    if not len(known) or not len(judged):
        return OutlierScores(np.full(len(features), np.nan), np.zeros(len(features)))
    middle = np.median(known)
    centre = max(middle, np.median(judged))
    lower_half = np.median(judged) - np.quantile(judged, ONE_SD_BELOW)
    spread = max(MAD_TO_SD * np.median(np.abs(known - middle)), lower_half)
    score = (distance - centre) / max(spread, 1e-12)
    return OutlierScores(score, _disagreement(_unit(features), labels, base, base_labels, leave_out=own))


def outliers(scores: OutlierScores) -> Finding:
    """Judge the validation split by its share of outliers beyond what clean data has.

    Score: share of samples with robust z > 3.5, minus the 1 % that clean data may have, clipped at 0. Null:
    binomial with that 1 %. Cannot be told: no class with enough reference samples.
    """
    judged = scores.score[np.isfinite(scores.score)]
    if not len(judged):
        return undecided(f"no class has more than {NEIGHBOURS} reference samples")
    n, share = len(judged), float((judged > THRESHOLD).mean())
    z = (share - NULL_SHARE) / np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
    mislabelled = float((scores.disagreement >= VOTE).mean())
    score = max(share - NULL_SHARE, 0.0)
    return Finding(score, z, health(score, EXCESS_LIMIT, z), {"share": share, "mislabelled_share": mislabelled})


def outlier_kinds(scores: OutlierScores) -> NDArray[np.str_]:
    """Name each sample ``"mislabelled"``, ``"atypical"`` or ``""`` (no outlier), shape ``(n,)``."""
    far = np.nan_to_num(scores.score, nan=-np.inf) > THRESHOLD
    return np.where(scores.disagreement >= VOTE, "mislabelled", np.where(far, "atypical", ""))


def _unit(features: NDArray[Any]) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float32)


def _own_class_distance(
    x: NDArray[Any], labels: NDArray[Any], base: NDArray[Any], base_labels: NDArray[Any], leave_out: bool = False
) -> NDArray[np.float64]:
    """Log of the mean cosine distance to the nearest base samples of the same class; NaN where they are too few."""
    found = np.full(len(x), np.nan)
    for label in np.unique(labels):
        members = base[base_labels == label]
        if len(members) <= NEIGHBOURS:
            continue
        similarity = x[labels == label] @ members.T
        if leave_out:
            np.fill_diagonal(similarity, -np.inf)
        nearest = np.partition(similarity, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        found[labels == label] = np.log(np.maximum(1 - nearest, 1e-7).mean(1, dtype=np.float64))
    return found


def _disagreement(
    x: NDArray[Any], labels: NDArray[Any], base: NDArray[Any], base_labels: NDArray[Any], leave_out: bool
) -> NDArray[np.float64]:
    extra = int(leave_out)
    count = min(NEIGHBOURS, len(base) - extra)
    if count < 1:
        return np.zeros(len(x))
    nearest = NearestNeighbors(n_neighbors=count + extra, algorithm="brute").fit(base).kneighbors(x)[1][:, extra:]
    classes, votes = np.unique(base_labels, return_inverse=True)
    tally = np.zeros((len(x), len(classes)))
    np.add.at(tally, (np.arange(len(x))[:, None], votes[nearest]), 1.0 / count)
    tally[labels[:, None] == classes[None, :]] = 0.0
    return np.asarray(tally.max(1))
