"""Performance by subgroup: whom an error hurts, with intervals, and a test that allows for the classes of a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import fftconvolve
from scipy.special import softmax
from scipy.stats import binomtest, hypergeom, rankdata

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.generalization_gap import standardised_gap
from lightning_ifa.statistics.metadata_groups import LEAST_SIZE, Group, column_levels, list_groups

LEVEL = 0.05
"""Chance that any of all groups is called worse or better if none is."""

SHORT = 64
"""Samples of a class up to which a plain convolution is faster than one by Fourier transform."""

COLUMNS = [
    "column", "group", "size", "accuracy", "low", "high", "expected", "auroc", "calibration_error", "margin",
    "overfitting", "p", "judgement",
]  # fmt: skip


class Outcome(NamedTuple):
    """What a network makes of each sample.

    Attributes:
        labels: Class, ``(n,)``, -1 where unlabelled.
        logits: ``(n, k)``.
        margins: Evidence for the label's class over the next best, ``(n,)``, in logits.
    """

    labels: Ints
    logits: Array
    margins: Array

    @property
    def correct(self) -> Mask:
        """Which are classified correctly, ``(n,)``."""
        return np.asarray(self.labels == self.logits.argmax(1))


class SplitOutcome(NamedTuple):
    """A split: what the network makes of its samples, and what is known of them.

    Attributes:
        outcome: What the network makes of n samples; unlabelled ones are left out of every comparison.
        metadata: What is known of each, n rows.
    """

    outcome: Outcome
    metadata: pd.DataFrame

    def labelled(self) -> SplitOutcome:
        """Leave out what has no label: also where numbers are cut, every result speaks of the same samples."""
        known = self.outcome.labels >= 0
        outcome = Outcome(*(part[known] for part in self.outcome))
        return SplitOutcome(outcome, self.metadata[known].reset_index(drop=True))


def list_subgroups(validation: SplitOutcome, train: SplitOutcome | None = None, pairs: bool = True) -> pd.DataFrame:
    """Compare every group of every metadata column, and of pairs of columns, with all samples.

    A group of harder classes has a lower accuracy for that reason alone. ``p`` therefore tests the number of errors
    given how many errors each class has: within a class they would fall on any of its samples alike. It is exact
    (a sum of hypergeometric counts), two-sided, and corrected for the number of groups (Holm).

    Args:
        validation: The samples that are compared; numbers in their metadata are cut into three parts of equal size,
            and columns of more than 20 categories are left out.
        train: The training samples, or None.
        pairs: Whether groups of two columns are compared as well, of the five columns with the fewest groups.

    Returns:
        One row a group, the worst first: ``column``, ``group``, ``size``, ``accuracy`` with its 95 % interval ``low``
        to ``high`` (Wilson), ``expected`` (accuracy of all samples of these classes), ``auroc`` (each class against
        the rest, averaged), ``calibration_error`` (confidence minus accuracy), ``margin`` (mean, in logits),
        ``overfitting`` (how far margins of the group's training samples exceed those of its validation samples, within
        classes, in standard deviations; NaN where either are less than 20), ``p`` (corrected), ``judgement``
        (``"worse"``, ``"better"``, ``"as expected"`` or ``"too few"``).
    """
    found = _list(*_labelled(validation, train), pairs)
    judged = found["size"].to_numpy() >= LEAST_SIZE
    found.loc[judged, "p"] = holm(found.loc[judged, "p"].to_numpy(float))
    worse = np.where(found["accuracy"] < found["expected"], "worse", "better")
    told = np.where(found["p"] < LEVEL, worse, "as expected")
    found["judgement"] = np.where(judged, told, "too few")
    found.loc[~judged, "p"] = np.nan
    order = (found["accuracy"] - found["expected"]).where(judged, 1.0)
    return found.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def subgroup_metrics(validation: SplitOutcome, train: SplitOutcome | None = None) -> dict[str, float]:
    """Summarise the groups of single columns that are large enough; arguments as for ``list_subgroups``.

    Returns:
        ``worst_accuracy``; ``gap`` (largest difference of accuracy between two groups of a column);
        ``equalised_odds`` (largest difference of a class's recall between two groups of a column, 20 samples of the
        class in each); ``worse`` (how many groups do worse than their classes explain). Empty if no group is judged.
    """
    validation, train = _labelled(validation, train)
    alone = list_subgroups(validation, train, pairs=False)
    alone = alone[alone["judgement"] != "too few"]
    if not len(alone):
        return {}
    accuracy = alone.groupby("column")["accuracy"]
    columns = column_levels(validation.metadata, train.metadata)
    return {
        "worst_accuracy": float(alone["accuracy"].min()),
        "gap": float((accuracy.max() - accuracy.min()).max()),
        "equalised_odds": max((_recall_gap(validation.outcome, found.validation) for _, found in columns), default=0.0),
        "worse": float((alone["judgement"] == "worse").sum()),
    }


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Give the interval of a share by Wilson's score (1927).

    >>> low, high = wilson(8, 10)
    >>> round(low, 2), round(high, 2)
    (0.49, 0.94)
    """
    found = binomtest(hits, n).proportion_ci(level, "wilson")
    return float(found.low), float(found.high)


def holm(p: Floats) -> Floats:
    """Correct p-values for their number, step down (Holm 1979), ``(m,)``.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    found = np.empty(len(p))
    found[order] = np.minimum(raised, 1.0)
    return found


def error_p_value(wrong: Mask, labels: Ints, inside: Mask) -> float:
    """Give the two-sided p-value of a group's number of errors, given the errors and the size of each class in it.

    Args:
        wrong: Which samples are misclassified, ``(n,)``.
        labels: Class of each, ``(n,)``.
        inside: Which belong to the group, ``(n,)``.
    """
    _, position = np.unique(labels, return_inverse=True)
    size, errors, drawn = (np.bincount(position, part) for part in (np.ones(len(labels)), wrong, inside))
    density = np.ones(1)
    for n, bad, taken in zip(size, errors, drawn, strict=True):
        if taken:
            chances = hypergeom.pmf(np.arange(taken + 1), n, bad, taken) if 0 < bad < n else _sure(taken, bad)
            density = (np.convolve if taken < SHORT else fftconvolve)(density, chances)
    density = np.maximum(density, 0)
    seen = density[int(wrong[inside].sum())]
    return float(min(density[density <= seen * (1 + 1e-7)].sum() / density.sum(), 1.0))


def _sure(taken: float, bad: float) -> Floats:
    """The chances of a class with nothing but errors, or none."""
    return np.asarray(np.eye(int(taken) + 1)[-1 if bad else 0])


def _labelled(validation: SplitOutcome, train: SplitOutcome | None) -> tuple[SplitOutcome, SplitOutcome]:
    """Give the labelled samples of both splits; no training sample where there is no such split."""
    found = validation.labelled()
    return found, (SplitOutcome(Outcome(*(part[:0] for part in found.outcome)), pd.DataFrame()) if train is None
                   else train.labelled())  # fmt: skip


def _list(validation: SplitOutcome, train: SplitOutcome, pairs: bool) -> pd.DataFrame:
    describe = _describer(validation.outcome, train.outcome)
    groups = list_groups(validation.metadata, train.metadata, pairs)
    return pd.DataFrame([describe(group) for group in groups], columns=COLUMNS)


def _describer(outcome: Outcome, train: Outcome) -> Callable[[Group], list[Any]]:
    """Give what makes the row of a group; what all groups share is computed once."""
    right = outcome.correct
    expected = pd.Series(right).groupby(outcome.labels).transform("mean").to_numpy()
    confidence = softmax(outcome.logits, axis=1).max(1)

    def describe(group: Group) -> list[Any]:
        inside, trained = group.inside, group.trained
        hits, n = int(right[inside].sum()), int(inside.sum())
        gap = np.nan
        if min(n, int(trained.sum())) >= LEAST_SIZE:
            sides = (train.margins, train.labels, trained), (outcome.margins, outcome.labels, inside)
            gap = standardised_gap(*(values[rows] for *both, rows in sides for values in both))[0]
        return [
            group.column, group.name, n, hits / n, *wilson(hits, n), float(expected[inside].mean()),
            _auroc(outcome.logits[inside], outcome.labels[inside]), float(confidence[inside].mean() - hits / n),
            float(outcome.margins[inside].mean()), gap,
            error_p_value(~right, outcome.labels, inside) if n >= LEAST_SIZE else np.nan, "",
        ]  # fmt: skip

    return describe


def _auroc(logits: Array, labels: Ints) -> float:
    """Give the mean AUROC of each class against the rest, NaN where a group has one class.

    All classes at once by their ranks (Mann & Whitney 1947), since there may be a thousand of them.
    """
    present, position, count = np.unique(labels, return_inverse=True, return_counts=True)
    if len(present) < 2:
        return np.nan
    ranks = rankdata((logits - logits.mean(1, keepdims=True))[:, present], axis=0)
    own = np.bincount(position, ranks[np.arange(len(labels)), position])
    return float(np.mean((own - count * (count + 1) / 2) / (count * (len(labels) - count))))


def _recall_gap(outcome: Outcome, column: pd.Series[Any]) -> float:
    """Give the largest difference of a class's recall between two groups that have enough of its samples."""
    known = column.notna().to_numpy()
    keys = [outcome.labels[known], column[known].to_numpy()]
    recall = pd.Series(outcome.correct[known]).groupby(keys).agg(["mean", "size"])
    large = recall[recall["size"] >= LEAST_SIZE]["mean"].groupby(level=0)
    return float((large.max() - large.min()).max()) if len(large) else 0.0
