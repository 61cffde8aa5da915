"""Outliers: how unlike its class a sample is, measured on its nearest neighbours in feature space."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask, scale_rows_to_unit
from lightning_ifa.statistics.label_noise import LabelScores

NEIGHBOURS = 10

MOST_REFERENCE = 1024
"""Reference samples at most, so that the cost grows linearly with the samples."""

THRESHOLD = 5.0
"""Score beyond which a sample is an outlier; measured share of clean samples beyond it in docs/indicators.md."""

VOTE = 0.6
"""Share of neighbours that must agree on another label to call an outlier mislabelled."""

STRANGE, DAMAGED = 2.5, 5.0
"""Robust z of the distance to any class, and of the image properties, that make an outlier foreign or corrupted."""

VOTE_WEIGHT, DOUBT_WEIGHT, PROPERTY_SLACK = 1.5, 1.1, 3.0
MAD_TO_SD = 1.4826
ONE_SD_BELOW = 0.1587


class OutlierInput(NamedTuple):
    """What is known of the samples of one split.

    Attributes:
        activations: Pooled activations, ``(n, c)``.
        contributions: Contributions to the label's class, ``(n, c)``.
        properties: Image properties, ``(n, p)``; p may be 0.
        margins: Logit of the label's class over that of the next best, ``(n,)``, NaN where classes do not compete.
        labels: Class or target bin, ``(n,)``, -1 where unlabelled.
    """

    activations: Array
    contributions: Array
    properties: Array
    margins: Array
    labels: Ints


class OutlierScores(NamedTuple):
    """Per sample, shape ``(n,)``.

    Attributes:
        score: Distance to its class, votes of the neighbours and image properties in one number, or the network's
            doubt of the label where that is larger, in robust standard deviations; NaN where there is no label, or no
            reference sample.
        disagreement: Share of the nearest reference samples, of whatever class, that agree on one other class.
        strangeness: Robust z of the distance to the nearest reference samples of any class.
        damage: Robust z of the image properties' distance to the nearest reference samples.
        doubt: Robust z of the margin, more where the network contradicts the label; NaN where there is no margin.
        distance: The score without the network's doubt.
    """

    score: Floats
    disagreement: Floats
    strangeness: Floats
    damage: Floats
    doubt: Floats
    distance: Floats

    @property
    def suspicious(self) -> Mask:
        """Which samples are far from their class, whatever the network makes of them."""
        return np.asarray(np.nan_to_num(self.distance, nan=-np.inf) > THRESHOLD)

    @property
    def doubted(self) -> Mask:
        """Which samples the network or the neighbours place in another class."""
        return np.asarray((self.disagreement >= VOTE) | (DOUBT_WEIGHT * self.doubt > THRESHOLD))


class OutlierReference:
    """The samples that others are compared with; what is found among them serves every split.

    Attributes:
        samples: All samples of the split.
        rows: The ``MOST_REFERENCE`` of them that count, or all if they are fewer, ``(m,)``.
        base: These samples.
    """

    def __init__(self, samples: OutlierInput, seed: int = 0) -> None:
        self.samples, n = samples, len(samples.labels)
        few = n <= MOST_REFERENCE
        self.rows = np.arange(n) if few else np.random.default_rng(seed).choice(n, MOST_REFERENCE, replace=False)
        self.base = samples if few else OutlierInput(*(values[self.rows] for values in samples))
        self._units = [scale_rows_to_unit(values) for values in (self.base.activations, self.base.contributions)]

    def compare(self, samples: OutlierInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give the cosine similarity to every reference sample, by activations and by contributions, each ``(n, m)``.

        It is ``-inf`` where a sample would meet itself.
        """
        if samples is self.base:
            return self._among
        activations, contributions = (
            scale_rows_to_unit(values) @ unit.T
            for values, unit in zip((samples.activations, samples.contributions), self._units, strict=True)
        )
        if samples is self.samples:
            activations[self.rows, np.arange(len(self.rows))] = -np.inf
            contributions[self.rows, np.arange(len(self.rows))] = -np.inf
        return activations, contributions

    @cached_property
    def _among(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        activations, contributions = (unit @ unit.T for unit in self._units)
        np.fill_diagonal(activations, -np.inf)
        np.fill_diagonal(contributions, -np.inf)
        return activations, contributions

    @cached_property
    def _known(self) -> list[_Neighbours]:
        return [_compare_neighbours(similarity, self.base.labels, self.base.labels) for similarity in self._among]

    def score(
        self, samples: OutlierInput, similarity: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    ) -> OutlierScores:
        """Score samples against the reference samples, or these against each other.

        The score is the mean robust z of the log cosine distance to the nearest reference samples of the same class, in
        activations and in contributions, plus 1.5 times the share of neighbours that agree on another class, plus what
        the image properties' z exceeds 3 by; or 1.1 times the robust z of the network's doubt (its margin, sign
        turned), if that is larger. The distance finds what is unlike its class, the vote stays true where many training
        labels are wrong, the properties see damage to which the network is blind, the doubt finds wrong labels. It does
        not add up with the rest: a sum would lift every sample that is merely misclassified above those that are
        damaged.

        Centre and spread come from the reference samples' own leave-one-out distances, so outliers among the judged
        samples do not hide each other. Where the judged samples as a whole lie further out, as they do in an overfitted
        network or after a shift, their own median and lower half take over: that is no property of single samples.

        Classes with too few reference samples are pooled: their samples are compared with the nearest reference samples
        of any class, which shows foreign and damaged ones, but hardly a wrong label.

        Args:
            samples: The samples that are judged.
            similarity: From ``compare``, where it is there already.
        """
        base, labels = self.base, samples.labels
        if samples is base:
            found = self._known
        else:
            found = [_compare_neighbours(s, labels, base.labels) for s in similarity or self.compare(samples)]
        small = np.isin(labels, small_classes(labels, base.labels))
        base_small = np.isin(base.labels, small_classes(base.labels, base.labels))
        same_class = []
        for near, known in zip(found, self._known, strict=True):
            same_class.append(_z_within_classes(near.same_class, known.same_class, labels, base.labels))
            same_class[-1][small] = _robust_z(near.any_class[small], known.any_class[base_small])
        votes = found[0].disagreement
        damage = _property_z(samples.properties, base.properties, self.rows if samples is self.samples else None)
        doubt = _robust_z(-samples.margins, -base.margins)
        score = (same_class[0] + same_class[1]) / 2 + VOTE_WEIGHT * votes
        score += np.maximum(damage - PROPERTY_SLACK, 0.0)
        distance, score = score, np.maximum(score, DOUBT_WEIGHT * np.nan_to_num(doubt, nan=-np.inf))
        strangeness = _robust_z(found[0].any_class, self._known[0].any_class)
        return OutlierScores(score, votes, strangeness, damage, doubt, distance)


def small_classes(labels: Ints, reference: Ints) -> Ints:
    """Give the classes among some labels that have too few reference samples to be compared within, and are pooled.

    >>> small_classes(np.array([0, 1, 2, -1]), np.repeat([0, 1], [11, 10]))
    array([1, 2])
    """
    found = np.unique(labels[labels >= 0])
    return found[[int((reference == label).sum()) <= NEIGHBOURS for label in found]]


KINDS = ("mislabelled", "corrupted", "foreign", "atypical")


def outlier_kinds(scores: OutlierScores, labels: LabelScores | None = None) -> NDArray[np.str_]:
    """Name each sample's kind, or ``""`` for no outlier, shape ``(n,)``.

    ``"mislabelled"``: the label is probably wrong, and either the split is known to have wrong labels or the sample is
    an outlier as well; ``"foreign"``: an outlier far from every class; ``"corrupted"``: its image properties are far
    out of the ordinary, though the network may place it well; ``"atypical"``: far from its own class only. A sample
    that is merely misclassified is none of them.

    Args:
        scores: How unlike its class each sample is.
        labels: What is thought of each label; without, the neighbours' vote and the network's doubt decide.
    """
    far = np.nan_to_num(scores.score, nan=-np.inf) > THRESHOLD
    wrong = far & scores.doubted if labels is None else labels.probable & (far | labels.announced)
    names = [
        (scores.suspicious & (scores.strangeness > STRANGE), "foreign"),
        (scores.suspicious & (scores.damage > DAMAGED), "corrupted"),
        (wrong, "mislabelled"),
        (scores.suspicious & ~scores.doubted, "atypical"),
    ]
    return np.select([found for found, _ in names], [name for _, name in names], "")


class _Neighbours(NamedTuple):
    """Log distances to the nearest reference samples, of any class and of the same, and their votes; each ``(n,)``."""

    any_class: Floats
    same_class: Floats
    disagreement: Floats


def _compare_neighbours(similarity: NDArray[np.float32], labels: Ints, base_labels: Ints) -> _Neighbours:
    same_class = _within_class(similarity, labels, base_labels)
    count = min(NEIGHBOURS, similarity.shape[1] - 1)
    if count < 1:
        return _Neighbours(np.full(len(similarity), np.nan), same_class, np.zeros(len(similarity)))
    nearest = np.argpartition(similarity, -count, axis=1)[:, -count:]
    any_class = _as_distance(np.take_along_axis(similarity, nearest, axis=1))
    return _Neighbours(any_class, same_class, _votes(base_labels[nearest], labels))


def _as_distance(nearest: NDArray[np.float32]) -> Floats:
    """Log of the mean cosine distance to some columns, ``(n,)``."""
    return np.asarray(np.log(np.maximum(1 - nearest, 1e-7).mean(1, dtype=np.float64)))


def _within_class(similarity: NDArray[np.float32], labels: Ints, base_labels: Ints) -> Floats:
    found = np.full(len(similarity), np.nan)
    for label in np.unique(labels[labels >= 0]):
        columns = np.flatnonzero(base_labels == label)
        if len(columns) > NEIGHBOURS:
            rows = np.flatnonzero(labels == label)
            among = similarity[np.ix_(rows, columns)]
            among.partition(len(columns) - NEIGHBOURS, axis=1)
            found[rows] = _as_distance(among[:, -NEIGHBOURS:])
    return found


def _votes(neighbours: Ints, labels: Ints) -> Floats:
    """Largest share of a sample's neighbours, given by their labels, that agree on one other class, ``(n,)``."""
    neighbours, count = np.sort(neighbours, axis=1), neighbours.shape[1]
    other = (neighbours != labels[:, None]) & (neighbours >= 0)
    most = np.zeros(len(labels))
    run = np.zeros(len(labels))
    for position in range(count):
        same = position > 0 and neighbours[:, position] == neighbours[:, position - 1]
        run = np.where(other[:, position], np.where(same, run, 0.0) + 1.0, 0.0)
        most = np.maximum(most, run)
    return np.asarray(most / count)


def _property_z(properties: Array, base: Array, own: Ints | None) -> Floats:
    """Robust z of the distance between rows of robustly scaled properties; 0 without properties.

    The base are the rows ``own`` of the properties, or others.
    """
    if not properties.shape[1] or len(base) < 3:
        return np.zeros(len(properties))
    middle = np.median(base, axis=0)
    spread = MAD_TO_SD * np.median(np.abs(base - middle), axis=0) + 1e-3 * base.std(0) + 1e-12
    x, b = (np.clip((values - middle) / spread, -20, 20) for values in (properties, base))
    among = _distances(b, b)
    np.fill_diagonal(among, np.inf)
    count = min(NEIGHBOURS, len(b) - 2)
    known = _mean_of_smallest(among, count)
    if own is None or len(own) < len(x):
        away = _distances(x, b)
        if own is not None:
            away[own, np.arange(len(b))] = np.inf
        return _robust_z(_mean_of_smallest(away, count), known)
    return _robust_z(known, known)


def _mean_of_smallest(distances: Floats, count: int) -> Floats:
    """Log of the mean of each row's ``count`` smallest distances, ``(n,)``."""
    return np.asarray(np.log(np.partition(distances, count, axis=1)[:, :count].mean(1) + 1e-9))


def _distances(x: Floats, b: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum((x**2).sum(1)[:, None] + (b**2).sum(1) - 2 * x @ b.T, 0.0)))


def _z_within_classes(distance: Floats, reference: Floats, labels: Ints, base_labels: Ints) -> Floats:
    """Robust z, no larger than within the class: a rare class lies further apart than a common one."""
    found = _robust_z(distance, reference)
    for label in np.unique(labels[labels >= 0]):
        rows, among = labels == label, base_labels == label
        if among.sum() > NEIGHBOURS:
            found[rows] = np.minimum(found[rows], _robust_z(distance[rows], reference[among]))
    return found


def _robust_z(distance: Floats, reference: Floats) -> Floats:
    known, judged = reference[np.isfinite(reference)], distance[np.isfinite(distance)]
    if not len(known) or not len(judged):
        return np.full(len(distance), np.nan)
    middle = np.median(known)
    centre = max(middle, np.median(judged))
    lower_half = np.median(judged) - np.quantile(judged, ONE_SD_BELOW)
    spread = max(MAD_TO_SD * np.median(np.abs(known - middle)), lower_half, 1e-12)
    return np.asarray((distance - centre) / spread)
