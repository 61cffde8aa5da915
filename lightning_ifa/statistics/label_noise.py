"""Wrong labels: how probable is it that a label is wrong, where classes overlap and networks err?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask

NEIGHBOURS = 10

LEAST_EVIDENCE = 20.0
"""Evidence, with the neighbours and without them, from which on wrong labels are announced; docs/indicators.md."""

CERTAIN = 0.9
"""Probability beyond which a label is called wrong."""

UNCLEAR_SHARE, UNCLEAR_EVIDENCE = 0.04, 4.0
"""Fitted share and evidence from which on overlap and wrong labels cannot be told apart, short of an announcement."""

PRIOR_SHARE = 0.02
"""Share of wrong labels that samples are ranked with where the data give no sign of any."""

MOST_CLASSES_EXACT = 100
"""Beyond as many classes the model is fitted in float32."""

LEAST_SHARE, MOST_SHARE = 1e-4, 0.5
NO_SHARE = -40.0  # logit of a share that is as good as 0
MOST_STEPS = 100
RIDGE = 0.01  # of the class biases, in units of their squares: a class without a sample gets none


class LabelScores(NamedTuple):
    """What is thought of each label of a split.

    Attributes:
        score: Probability that the label is wrong, ``(n,)``; NaN where there is no label.
        suggested: Most probable class, ``(n,)``; -1 where there is no label.
        share: Estimated share of wrong labels, one number; means little below ``LEAST_EVIDENCE``.
        evidence: Evidence that any label is wrong, the smaller of that with and without the neighbours.
    """

    score: Floats
    suggested: Ints
    share: float
    evidence: float

    @property
    def announced(self) -> bool:
        """Whether the split has wrong labels beyond what overlap explains."""
        return self.evidence > LEAST_EVIDENCE

    @property
    def unclear(self) -> bool:
        """Whether errors might come from wrong labels as well as from overlap."""
        return not self.announced and self.share > UNCLEAR_SHARE and self.evidence > UNCLEAR_EVIDENCE

    @property
    def probable(self) -> Mask:
        """Which labels are probably wrong, ``(n,)``; they are if the split has any, or the sample is odd otherwise."""
        return np.asarray(np.nan_to_num(self.score) > CERTAIN)


def score_labels(logits: Array, nearness: Array, labels: Ints) -> LabelScores:
    """Score the labels of a split by the network's logits and by the nearest reference samples of each class.

    Two models are fitted, one on the logits and one on both. Wrong labels must show in both: a network that is badly
    calibrated early in training, or neighbours that mislead, then raise no alarm. Where they do not show, a share of at
    most 2 % is assumed, so that samples are ranked and none is suspected for overlap alone.

    Args:
        logits: ``(n, k)``.
        nearness: Nearness to each class, ``(n, k)``; see ``class_nearness``.
        labels: Given class, ``(n,)``, -1 where unlabelled.
    """
    score, suggested = np.full(len(labels), np.nan), np.full(len(labels), -1, dtype=np.int64)
    rows = np.flatnonzero((labels >= 0) & np.isfinite(logits).all(1))
    if len(rows) < 2 or logits.shape[1] < 2:
        return LabelScores(score, suggested, 0.0, 0.0)
    given, scores = labels[rows], [np.asarray(s[rows], dtype=np.float64) for s in (logits, nearness)]
    models = [fit_label_model(np.stack(scores[:count]), given) for count in (1, 2)]
    evidence, share = min(m.evidence for m in models), min(m.share for m in models)
    assumed = share if evidence > LEAST_EVIDENCE else min(max(share, LEAST_SHARE), PRIOR_SHARE)
    score[rows] = np.mean([wrong_label_probability(m, given, assumed) for m in models], axis=0)
    suggested[rows] = np.mean([m.probability for m in models], axis=0).argmax(1)
    return LabelScores(score, suggested, float(share), float(evidence))


def class_nearness(similarity: NDArray[np.float32], base_labels: Ints, classes: int) -> Floats:
    """Give minus the log mean cosine distance to the nearest base samples of each class, ``(n, classes)``.

    Args:
        similarity: Cosines of n samples with m base samples, ``(n, m)``; ``-inf`` where a sample would meet itself.
        base_labels: Classes of the base samples, ``(m,)``.
        classes: How many classes there are.
    """
    found = np.zeros((len(similarity), classes))
    for label in range(classes):
        columns = np.flatnonzero(base_labels == label)
        count = min(NEIGHBOURS, len(columns) - 1)
        if count > 0:
            among = similarity[:, columns]
            among.partition(len(columns) - count, axis=1)
            nearest = among[:, -count:]
            found[:, label] = -np.log(np.maximum(1 - nearest, 1e-6).mean(1, dtype=np.float64))
    return found


class LabelModel(NamedTuple):
    """What a split's evidence says of its labels.

    Attributes:
        probability: Probability of each class, calibrated on this split, ``(n, k)``.
        share: Share of wrong labels that fits best.
        evidence: Twice the gain in log-likelihood over no wrong label: large if errors do not become rarer where the
            network is surest. Overlap alone leaves it small.
    """

    probability: Floats
    share: float
    evidence: float


def fit_label_model(evidence: NDArray[np.float64], labels: Ints) -> LabelModel:
    """Calibrate scores on a split some of whose labels may be wrong.

    A label is taken for a draw from ``softmax(sum_j a_j s_j + b)``, or, with a small probability that is the same for
    every sample, for any other class. Scales, one bias a class, and that share are found by maximum likelihood. Overlap
    is a slope: disagreement goes to zero with sureness. Wrong labels are a floor that does not fall.

    Args:
        evidence: Scores of each class by one or more measures, ``(m, n, k)``, larger is more probable.
        labels: Given class, ``(n,)``, 0 to k - 1.
    """
    scores = evidence - evidence.mean(2, keepdims=True)
    scores = scores / np.maximum(scores.std((1, 2), keepdims=True), 1e-9)
    scores = scores.astype(np.float32 if scores.shape[2] > MOST_CLASSES_EXACT else np.float64)
    plain = _maximise(scores, labels, None)
    mixed = min((_maximise(scores, labels, start) for start in (0.05, 0.25)), key=lambda found: found[1])
    gain = 2 * (plain[1] - mixed[1])
    best, share = (mixed[0], _share(mixed[0][-1])) if gain > 0 else (plain[0], LEAST_SHARE)
    return LabelModel(_probability(scores, best).astype(np.float64), share, float(max(gain, 0.0)))


def wrong_label_probability(model: LabelModel, labels: Ints, share: float) -> Floats:
    """Give the probability that each label is wrong, ``(n,)``, if a share of all labels is.

    Args:
        model: The calibrated model.
        labels: Given class, ``(n,)``.
        share: Share of wrong labels to assume.
    """
    own = model.probability[np.arange(len(labels)), labels]
    wrong = share * (1 - own) / max(model.probability.shape[1] - 1, 1)
    return np.asarray(wrong / np.maximum((1 - share) * own + wrong, 1e-300))


def _maximise(scores: Array, labels: Ints, start: float | None) -> tuple[Floats, float]:
    measures, _, k = scores.shape
    first = np.zeros(measures + k + 1)
    first[:measures] = 1.0
    first[-1] = NO_SHARE if start is None else np.log(start / (1 - start))
    low, high = (np.log(s / (1 - s)) for s in (LEAST_SHARE, MOST_SHARE))
    last = (NO_SHARE, NO_SHARE) if start is None else (low, high)
    bounds = [(0.0, 100.0)] * measures + [(-8.0, 8.0)] * k + [last]
    found = minimize(
        _loss, first, (scores, labels), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MOST_STEPS}
    )
    return found.x, float(found.fun)


def _loss(x: Floats, scores: Array, labels: Ints) -> tuple[float, Floats]:
    """Negative log-likelihood and its gradient in scales, biases and the share's logit."""
    measures, n, k = scores.shape
    p = _probability(scores, x)
    rows, bias, share = np.arange(n), x[measures:-1], _share(x[-1])
    own = p[rows, labels].astype(np.float64)
    likelihood = np.maximum((1 - share) * own + share * (1 - own) / (k - 1), 1e-300)
    weight = -((1 - share) - share / (k - 1)) * own / likelihood
    slope = np.multiply(p, -weight.astype(p.dtype)[:, None], out=p)
    slope[rows, labels] += weight.astype(p.dtype)
    in_share = -((1 - own) / (k - 1) - own) / likelihood
    gradient = np.concatenate(
        [[np.vdot(s, slope) for s in scores], slope.sum(0) + RIDGE * bias, [in_share.sum() * share * (1 - share)]]
    )
    return float(-np.log(likelihood).sum() + RIDGE / 2 * (bias**2).sum()), gradient


def _probability(scores: Array, x: Floats) -> Array:
    """Softmax over classes, ``(n, k)``, in the scores' own precision."""
    measures = len(scores)
    scales, bias = x[:measures].astype(scores.dtype), x[measures:-1].astype(scores.dtype)
    found = scales[0] * scores[0]
    for scale, more in zip(scales[1:], scores[1:], strict=True):
        found += scale * more
    found += bias
    found -= found.max(1, keepdims=True)
    np.exp(found, out=found)
    found /= found.sum(1, keepdims=True)
    return np.asarray(found)


def _share(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))
