"""Confounder candidates: on which metadata column, image property or part of the image does the evidence depend?

Evidence for a class is its logit set against those of the other classes; see ``reliance`` and ``swap_reliance``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.metadata_columns import Column, read_column
from lightning_ifa.statistics.reliance import Further, Reliance, regression_reliance, reliance
from lightning_ifa.statistics.significance import Z_LIMIT, correct_for_count, health
from lightning_ifa.statistics.strata import centre_within, group_means
from lightning_ifa.statistics.swap_reliance import multilabel_swap, regression_swap, swap_reliance

RELIANCE_LIMIT = 0.02

CLASS_WEIGHT = 0.2
"""A single class may depend on a candidate five times as far as the average of all classes."""

COVERAGE_LIMIT, ASSOCIATION_LIMIT = 0.3, 0.5

OFF_PATTERN = 3
"""Samples of a class that must lie off its majority level to compare within the class."""


@dataclass(frozen=True)
class ConfounderCandidate:
    """One metadata column, image property or part of the image, tested.

    Attributes:
        source: Name of the column, property or part.
        origin: ``"metadata"``, ``"background"``, ``"content"``, ``"swap"`` or ``"region"``.
        reliance: Share of the mean between-class evidence that depends on it, in about [-1, 1]; NaN if untested.
        z: Significance of the reliance under its null, in standard deviations.
        worst_class: Class that stands out most; -1 if untested, or for regression.
        worst_reliance: Share of that class's own evidence that depends on it.
        worst_z: Significance of that share.
        classes: Number of classes that were compared.
        association: Share of its variance that the class explains, in [0, 1]; NaN for a swap.
        accuracy_aligned: Accuracy among samples whose value points to their class, averaged within classes; NaN if
            untested.
        accuracy_conflicting: Accuracy among samples whose value points away from their class.
        conflicting: Number of samples whose value points away from their class.
        identifiable: False where nearly every class shows one level only, so that use cannot be told from class.
        note: Why it was not tested, or empty.
    """

    source: str
    origin: str
    reliance: float = float("nan")
    z: float = 0.0
    worst_class: int = -1
    worst_reliance: float = 0.0
    worst_z: float = 0.0
    classes: int = 1
    association: float = float("nan")
    accuracy_aligned: float = float("nan")
    accuracy_conflicting: float = float("nan")
    conflicting: int = 0
    identifiable: bool = True
    note: str = ""

    @property
    def tested(self) -> bool:
        """Whether there was anything to compare."""
        return bool(np.isfinite(self.reliance))

    def sentence(self) -> str:
        """Say in plain words what was found."""
        if not self.tested or max(self.z, self.worst_z) < Z_LIMIT or max(self.strength()[0], 0.0) <= RELIANCE_LIMIT:
            return ""
        how = {"swap": "moves with", "region": "moves with what lies"}.get(self.origin, "depends on")
        if self.worst_class < 0:
            return f"{self.reliance:.0%} of the prediction's slope on the target {how} {self.source}"
        return (
            f"{self.reliance:.0%} of the evidence between classes {how} {self.source}; "
            f"most for class {self.worst_class} ({self.worst_reliance:.0%})"
        )

    def strength(self, tests: int = 1) -> tuple[float, float]:
        """Give the reliance, or a fifth of the worst class's if that is more alarming, and its corrected z.

        Args:
            tests: Number of candidates of which the z is the largest.
        """
        overall = self.reliance, correct_for_count(self.z, tests)
        if self.origin == "background":  # an object of one class may well reach into its background
            return overall
        worst = CLASS_WEIGHT * self.worst_reliance, correct_for_count(self.worst_z, tests * self.classes)
        return min(overall, worst, key=lambda found: health(found[0], RELIANCE_LIMIT, found[1]))


class TrainingRows(NamedTuple):
    """Labelled training samples, with what the user knows of them.

    Attributes:
        logits: Logits, ``(m, k)``.
        labels: Class of each sample, ``(m,)``.
        metadata: The user's table, m rows.
        groups: Group of each sample, ``(m,)``, numbered as those of the judged samples; None if there are none.
    """

    logits: Array
    labels: Ints
    metadata: pd.DataFrame
    groups: Ints | None = None


def find_candidates(
    logits: Array,
    labels: Ints,
    sources: Mapping[str, pd.DataFrame],
    targets: Array | None = None,
    training: TrainingRows | None = None,
    groups: Ints | None = None,
) -> list[ConfounderCandidate]:
    """Test every column of every source, most suspicious first.

    Args:
        logits: Logits of labelled samples, ``(n, k)``.
        labels: Class, or target bin for regression, ``(n,)``.
        sources: Tables of n rows by origin; missing values are allowed. ``"content"`` is for properties that may well
            belong to the class, such as brightness: tested and listed, but not judged.
        targets: Float targets for regression (k = 1), ``(n,)``, else None.
        training: Training samples, which help to say how the network uses a metadata column that is known there too.
        groups: Group of each sample, as its patient, ``(n,)``; None where every sample stands for itself.

    Raises:
        MetadataError: A column holds values that cannot be compared; column and row are named.
    """
    candidates = []
    if training is not None and (training.groups is None) != (groups is None):
        training = None
    for origin, frame in sources.items():
        for name in frame:
            is_known = training is not None and origin == "metadata" and name in training.metadata and targets is None
            helping = training if is_known else None
            candidates.append(_test(logits, labels, frame[name], origin, targets, helping, groups))
    return rank_candidates(candidates)


def swap_candidates(
    before: Array,
    swapped: Mapping[str, Array],
    source: Array,
    labels: Array,
    source_labels: Array,
    origin: str = "swap",
    source_groups: Ints | None = None,
) -> list[ConfounderCandidate]:
    """Test every part of the image that was swapped.

    Args:
        before: Logits of the recipients, ``(n, k)``.
        swapped: Logits after the swap, ``(n, k)``, by the name of the part.
        source: Logits of the sources, ``(n, k)``.
        labels: Class of each recipient, ``(n,)`` whole numbers; its labels, ``(n, k)`` of 0 and 1; or its target,
            ``(n,)`` float, for regression.
        source_labels: Class, labels or target of each recipient's source, as ``labels``.
        origin: ``"swap"``, ``"region"`` for what lies outside the user's regions, or ``"content"``.
        source_groups: Group of each source, ``(n,)``; None where every sample stands for itself.
    """
    measure: Callable[..., Reliance] = swap_reliance if labels.ndim == 1 else multilabel_swap
    if labels.dtype.kind == "f":
        before, source, swapped = before[:, 0], source[:, 0], {name: after[:, 0] for name, after in swapped.items()}
        measure = regression_swap
    return rank_candidates(
        [
            _candidate(name, origin, measure(before, after, source, labels, source_labels, source_groups))
            for name, after in swapped.items()
        ]
    )


def rank_candidates(candidates: list[ConfounderCandidate]) -> list[ConfounderCandidate]:
    """Sort candidates, most suspicious first, untested ones last."""

    def verdict(candidate: ConfounderCandidate) -> float:
        score, z = candidate.strength()
        return health(score, RELIANCE_LIMIT, z) if candidate.tested else 2.0

    return sorted(candidates, key=verdict)


def _test(
    logits: Array,
    labels: Ints,
    frame_column: pd.Series[Any],
    origin: str,
    targets: Array | None,
    training: TrainingRows | None,
    groups: Ints | None,
) -> ConfounderCandidate:
    name, pooled = str(frame_column.name), frame_column
    if training is not None:
        in_training = training.metadata[frame_column.name]
        read_column(in_training)  # its own rows are named if a value cannot be compared
        read_column(frame_column)
        pooled = pd.concat([frame_column, in_training], ignore_index=True)
    column = read_column(pooled)
    if column.values is None:
        return ConfounderCandidate(name, origin, note=f"{column.levels} different values: taken for an identifier")
    here, there = column.known[: len(labels)], column.known[len(labels) :]
    y, values = labels[here], column.values[: int(here.sum())]
    unit = None if groups is None else groups[here]
    both, further, units = (values, y), None, unit
    if training is not None:
        more = None if training.groups is None else training.groups[there]
        units = None if unit is None or more is None else np.concatenate([unit, more])
        further = Further(training.logits[there], training.labels[there], column.values[len(values) :], more)
        both = column.values, np.concatenate([y, further.labels])
    if len(np.unique(y)) < 2:
        return ConfounderCandidate(name, origin, note="fewer than two classes have a value")
    association = _association(values, y)
    if not _varies_within(*both):
        constant = float(values.std()) == 0.0
        note = "constant" if constant else "one value in every class: use cannot be told from class"
        return ConfounderCandidate(name, origin, association=association, identifiable=constant, note=note)
    if targets is not None:
        share, z = regression_reliance(logits[here, 0], targets[here], y, values, unit)
        return ConfounderCandidate(name, origin, share, z, worst_reliance=share, worst_z=z, association=association)
    aligned, conflicting, count = alignment_accuracy(logits[here].argmax(1) == y, y, values)
    return _candidate(
        name,
        origin,
        reliance(logits[here], y, values, further, unit),
        association=association,
        accuracy_aligned=aligned,
        accuracy_conflicting=conflicting,
        conflicting=count,
        identifiable=not _is_unidentifiable(column, _drop_repeats(*both, units), association),
    )


def _candidate(name: str, origin: str, found: Reliance, **more: Any) -> ConfounderCandidate:
    limit = RELIANCE_LIMIT / CLASS_WEIGHT
    worst = int(np.argmin([health(s, limit, z) for s, z in zip(found.class_shares, found.class_z, strict=True)]))
    return ConfounderCandidate(
        name,
        origin,
        found.share,
        found.z,
        int(found.classes[worst]),
        float(found.class_shares[worst]),
        float(found.class_z[worst]),
        len(found.classes),
        **more,
    )


def alignment(values: Floats, labels: Ints) -> Floats:
    """Say how far each sample's value points to its class: positive for, negative against, ``(n,)``.

    Args:
        values: The variable, numeric, ``(n, p)``.
        labels: Class of each sample, ``(n,)``.
    """
    position, means = group_means(values, labels)
    overall = values.mean(0)
    return np.asarray(((values - overall) * (means[position] - overall)).sum(1))


def alignment_accuracy(correct: Mask, labels: Ints, values: Floats) -> tuple[float, float, int]:
    """Measure accuracy where a variable points to the sample's class, and where it points away from it.

    Within classes that have both, weighted by ``n1 n2 / (n1 + n2)``, so that easy classes do not enter.

    Args:
        correct: Whether each sample is classified correctly, ``(n,)``.
        labels: Class of each sample, ``(n,)``.
        values: The variable, numeric, ``(n, p)``.

    Returns:
        Both accuracies (NaN if no class has both sorts of samples), and the number of conflicting samples.
    """
    position, means = group_means(values, labels)
    side = np.sign(alignment(values, labels))
    count = [np.bincount(position, side == s, len(means)) for s in (1, -1)]
    right = [np.bincount(position, (side == s) & correct, len(means)) for s in (1, -1)]
    weight = count[0] * count[1] / np.maximum(count[0] + count[1], 1)
    if not weight.any():
        return float("nan"), float("nan"), int(count[1].sum())
    accuracy = [float((weight * r / np.maximum(c, 1)).sum() / weight.sum()) for r, c in zip(right, count, strict=True)]
    return accuracy[0], accuracy[1], int(count[1].sum())


def _is_unidentifiable(column: Column, both: tuple[Array, Ints], association: float) -> bool:
    return column.levels > 0 and association > ASSOCIATION_LIMIT and _coverage(*both) < COVERAGE_LIMIT


def _drop_repeats(values: Array, labels: Ints, groups: Ints | None) -> tuple[Array, Ints]:
    """Keep one of the samples that agree in group, class and value."""
    if groups is None:
        return values, labels
    _, first = np.unique(np.column_stack([groups, labels, values]), axis=0, return_index=True)
    return values[first], labels[first]


def _association(values: Array, labels: Ints) -> float:
    position, means = group_means(values, labels)
    total = float(((values - values.mean(0)) ** 2).sum())
    return float(((means[position] - values.mean(0)) ** 2).sum()) / total if total > 0 else 0.0


def _varies_within(values: Array, labels: Ints) -> bool:
    within = float((centre_within(values, labels) ** 2).sum())
    return within > 1e-12 * max(float(((values - values.mean(0)) ** 2).sum()), 1e-300) and within > 0


def _coverage(values: Array, labels: Ints) -> float:
    """Share of the association that lies in classes with enough samples off the class's majority level."""
    _, means = group_means(values, labels)
    away = np.linalg.norm(means - means.mean(0), axis=1)
    covered = []
    for label in np.unique(labels):
        _, counts = np.unique(values[labels == label], axis=0, return_counts=True)
        covered.append(int((labels == label).sum()) - counts.max() >= OFF_PATTERN)
    return float((away * covered).sum() / max(float(away.sum()), 1e-300))
