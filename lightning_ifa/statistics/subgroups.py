"""Performance by subgroup: whom an error hurts, with intervals, and a test that allows for the classes of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import fftconvolve
from scipy.special import softmax
from scipy.stats import binomtest, hypergeom, rankdata

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.metadata_columns import GROUP, MOST_LEVELS, read_column

LEAST_SIZE = 20
"""Samples from which on a group is judged: below, a 95 % interval of an accuracy is wider than .4."""

PARTS = 3
"""Parts of equal size that numbers are cut into."""

MOST_PAIRED = 5
"""Columns whose groups are crossed: the number of pairs, and of tests, grows with their square."""

LEVEL = 0.05
"""Chance that any of all groups is called worse or better if none is."""

SHORT = 64
"""Samples of a class up to which a plain convolution is faster than one by Fourier transform."""

PAIR = " × "
"""Between the names of two columns, and of their groups."""

COLUMNS = [
    "column", "group", "size", "accuracy", "low", "high", "expected", "auroc", "calibration_error", "margin", "p",
    "judgement",
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


def list_subgroups(outcome: Outcome, metadata: pd.DataFrame, pairs: bool = True) -> pd.DataFrame:
    """Compare every group of every metadata column, and of pairs of columns, with all samples.

    A group of harder classes has a lower accuracy for that reason alone. ``p`` therefore tests the number of errors
    given how many errors each class has: within a class they would fall on any of its samples alike. It is exact
    (a sum of hypergeometric counts), two-sided, and corrected for the number of groups (Holm).

    Args:
        outcome: What the network makes of the samples; unlabelled ones are left out.
        metadata: What is known of each sample, n rows; numbers are cut into three parts of equal size, and columns of
            more than 20 categories are left out.
        pairs: Whether groups of two columns are compared as well, of the five columns with the fewest groups.

    Returns:
        One row a group, the worst first: ``column``, ``group``, ``size``, ``accuracy`` with its 95 % interval ``low``
        to ``high`` (Wilson), ``expected`` (accuracy of all samples of these classes), ``auroc`` (each class against
        the rest, averaged), ``calibration_error`` (confidence minus accuracy), ``margin`` (mean, in logits),
        ``p`` (corrected), ``judgement`` (``"worse"``, ``"better"``, ``"as expected"`` or ``"too few"``).
    """
    known = outcome.labels >= 0
    outcome = Outcome(outcome.labels[known], outcome.logits[known], outcome.margins[known])
    describe = _describer(outcome)
    groups = _groups(metadata[known].reset_index(drop=True), pairs)
    found = pd.DataFrame([describe(*group) for group in groups], columns=COLUMNS)
    judged = found["size"].to_numpy() >= LEAST_SIZE
    found.loc[judged, "p"] = holm(found.loc[judged, "p"].to_numpy(float))
    worse = np.where(found["accuracy"] < found["expected"], "worse", "better")
    told = np.where(found["p"] < LEVEL, worse, "as expected")
    found["judgement"] = np.where(judged, told, "too few")
    found.loc[~judged, "p"] = np.nan
    order = (found["accuracy"] - found["expected"]).where(judged, 1.0)
    return found.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def subgroup_metrics(outcome: Outcome, metadata: pd.DataFrame) -> dict[str, float]:
    """Summarise the groups of single columns that are large enough; arguments as for ``list_subgroups``.

    Returns:
        ``worst_accuracy``; ``gap`` (largest difference of accuracy between two groups of a column);
        ``equalised_odds`` (largest difference of a class's recall between two groups of a column, 20 samples of the
        class in each); ``worse`` (how many groups do worse than their classes explain). Empty if no group is judged.
    """
    alone = list_subgroups(outcome, metadata, pairs=False)
    alone = alone[alone["judgement"] != "too few"]
    if not len(alone):
        return {}
    accuracy = alone.groupby("column")["accuracy"]
    return {
        "worst_accuracy": float(alone["accuracy"].min()),
        "gap": float((accuracy.max() - accuracy.min()).max()),
        "equalised_odds": max((_recall_gap(outcome, column) for _, column in list_levels(metadata)), default=0.0),
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


def _groups(metadata: pd.DataFrame, pairs: bool) -> Iterator[tuple[str, str, Mask]]:
    """Name and mask each group of each column, and of each pair of columns."""
    levels = dict(list_levels(metadata))
    for column, values in levels.items():
        for name in values.dropna().unique():
            yield column, str(name), np.asarray(values == name)
    fewest = sorted(levels, key=lambda name: levels[name].nunique())[: MOST_PAIRED if pairs else 0]
    for one, two in combinations(fewest, 2):
        both = levels[one].str.cat(levels[two], sep=PAIR)
        sizes = both.value_counts()
        for name in sizes.index[sizes >= LEAST_SIZE]:
            yield f"{one}{PAIR}{two}", str(name), np.asarray(both == name)


def list_levels(metadata: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any]]]:
    """Turn each column into words for its groups; those of one group, or of more than 20 categories, are left out."""
    for name in metadata:
        if name == GROUP:
            continue
        column = metadata[name]
        read = read_column(column)
        if read.values is None or column.nunique() < 2:
            continue
        words = column.astype(str).where(column.notna()) if read.levels else _cut(column, read.values[:, 0])
        if 2 <= words.nunique() <= MOST_LEVELS:
            yield str(name), words


def _cut(column: pd.Series[Any], numbers: Floats) -> pd.Series[Any]:
    """Cut numbers and times, given those that are known, into parts of equal size, named by their range."""
    known = column.dropna()
    parts = pd.Series(pd.qcut(numbers, PARTS, labels=False, duplicates="drop"), known.index)
    groups = known.groupby(parts)
    words = {part: f"{_short(values.min())} to {_short(values.max())}" for part, values in groups}
    return parts.map(words).reindex(column.index)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _describer(outcome: Outcome) -> Callable[[str, str, Mask], list[Any]]:
    """Give what makes the row of a group; what all groups share is computed once."""
    right = outcome.correct
    expected = pd.Series(right).groupby(outcome.labels).transform("mean").to_numpy()
    confidence = softmax(outcome.logits, axis=1).max(1)

    def describe(column: str, group: str, inside: Mask) -> list[Any]:
        hits, n = int(right[inside].sum()), int(inside.sum())
        return [
            column, group, n, hits / n, *wilson(hits, n), float(expected[inside].mean()),
            _auroc(outcome.logits[inside], outcome.labels[inside]), float(confidence[inside].mean() - hits / n),
            float(outcome.margins[inside].mean()),
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
    known = (column.notna() & (outcome.labels >= 0)).to_numpy()
    keys = [outcome.labels[known], column[known].to_numpy()]
    recall = pd.Series(outcome.correct[known]).groupby(keys).agg(["mean", "size"])
    large = recall[recall["size"] >= LEAST_SIZE]["mean"].groupby(level=0)
    return float((large.max() - large.min()).max()) if len(large) else 0.0
