"""Confounding: how much of the evidence between classes runs through something that is not the class?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from lightning_ifa.indicators.finding import Z_LIMIT, Finding, health, undecided
from lightning_ifa.indicators.strata import group_means

RELIANCE_LIMIT = 0.02
PERMUTATIONS = 100
MOST_LEVELS = 20
"""A column with more levels than this is taken for an identifier."""

COVERAGE_LIMIT, ASSOCIATION_LIMIT = 0.3, 0.5
OFF_PATTERN = 3
"""Samples of a class that must lie off its majority level to compare within the class."""


@dataclass(frozen=True)
class Suspect:
    """One metadata column or image property, tested.

    Attributes:
        source: Its name.
        origin: ``"metadata"``, ``"background"`` or ``"content"``.
        reliance: Share of the mean between-class evidence that runs through it, in [-1, 1]; NaN if untested.
        z: Of the reliance against permutations within classes.
        worst_class: Class with the largest share; -1 if untested.
        worst_reliance: That share.
        association: Share of its variance that the class explains, in [0, 1].
        identifiable: False where nearly every class shows one level only, so that use cannot be told from class.
        note: Why it was not tested, or empty.
    """

    source: str
    origin: str
    reliance: float
    z: float
    worst_class: int
    worst_reliance: float
    association: float
    identifiable: bool = True
    note: str = ""


def reliance(
    logits: NDArray[Any], labels: NDArray[np.int64], column: NDArray[Any], seed: int = 0
) -> tuple[float, float, NDArray[np.float64]]:
    """Share of the between-class evidence that runs through a variable: association times use.

    Within classes, the slope of every (centred) logit on the variable says how far the network uses it; the class
    means of the variable say how far it goes with the class. Their product, summed over classes, is set against
    the total evidence ``sum_y (L[y, y] - L[., y])`` of the class means L. Zero if either is absent.

    Args:
        logits: ``(n, k)``.
        labels: ``(n,)`` class of each sample, a column of ``logits``.
        column: ``(n, p)`` numeric; one column, or the dummy columns of one categorical variable.
        seed: Of the within-class permutations that make the null.

    Returns:
        The share (its null's mean subtracted), its z, and the share of each class that occurs, ``(classes,)``.
    """
    classes = np.unique(labels)
    L = logits.astype(np.float64)
    L = L - L.mean(1, keepdims=True)
    position, class_logits = group_means(L, labels)
    _, class_column = group_means(column.astype(np.float64), labels)
    within_logits, within_column = L - class_logits[position], column - class_column[position]
    spread = np.linalg.pinv(within_column.T @ within_column)
    distance = class_column - class_column.mean(0)
    own = np.arange(len(classes)), classes
    evidence = class_logits[own] - class_logits.mean(0)[classes]
    total = float(evidence.sum())

    def through(cross: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes = spread @ cross  # (..., p, k)
        return np.asarray(np.einsum("...pc,cp->...c", slopes[..., classes], distance))

    observed = through(within_column.T @ within_logits)
    shuffled = _permuted_within(labels, PERMUTATIONS, seed)
    null = through(np.einsum("mnp,nk->mpk", within_column[shuffled], within_logits)).sum(1) / total
    share = float(observed.sum()) / total - null.mean()
    z = share / max(float(null.std(ddof=1)), 1e-12)
    per_class = np.where(evidence > 0, observed / np.where(evidence > 0, evidence, 1.0), 0.0)
    return share, z, per_class


def regression_reliance(
    predictions: NDArray[Any], targets: NDArray[Any], bins: NDArray[np.int64], column: NDArray[Any], seed: int = 0
) -> tuple[float, float]:
    """The same for a regression: share of the slope of prediction on target that runs through a variable.

    With ``prediction ~ a * target + b * m`` and ``m ~ s * target``, the share is ``b * s / (a + b * s)``.

    Args:
        predictions: ``(n,)``.
        targets: ``(n,)``.
        bins: ``(n,)`` target bin, within which the null permutes.
        column: ``(n, p)`` numeric.
        seed: Of the permutations.

    Returns:
        The share, its null's mean subtracted, and its z.
    """
    y = targets - targets.mean()
    p = predictions - predictions.mean()
    total = float(y @ p)

    def share(m: NDArray[Any]) -> float:
        m = m - m.mean(0)
        slopes = np.linalg.lstsq(np.column_stack([y, m]), p, rcond=None)[0][1:]
        return float(slopes @ (m.T @ y)) / total

    null = np.array([share(column[order]) for order in _permuted_within(bins, PERMUTATIONS, seed)])
    value = share(column) - null.mean()
    return value, value / max(float(null.std(ddof=1)), 1e-12)


def find_suspects(
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    sources: Mapping[str, pd.DataFrame],
    targets: NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Suspect]:
    """Test every column of every source, most suspicious first.

    Args:
        logits: ``(n, k)`` of labelled samples.
        labels: ``(n,)`` class, or target bin for regression.
        sources: Origin to a table of n rows; missing values allowed. ``"content"`` is for properties that may well
            belong to the class, such as brightness: tested and listed, but not judged.
        targets: ``(n,)`` float targets for regression (k = 1), else None.
        seed: Of the permutations.
    """
    suspects = [
        _test(logits, labels, frame[name], str(name), origin, targets, seed)
        for origin, frame in sources.items()
        for name in frame.columns
    ]
    return sorted(suspects, key=lambda s: -np.nan_to_num(s.reliance, nan=-2.0))


def carriers(
    contributions: NDArray[Any], labels: NDArray[np.int64], column: pd.Series[Any], most: int = 5
) -> list[int]:
    """Name the channels that carry a suspect into the decision, strongest first.

    Per channel, the within-class slope of its contribution on the variable times the class's association with
    the variable, summed over classes: for a linear head the channel's part of the reliance.

    Args:
        contributions: ``(n, c)`` for the label class.
        labels: ``(n,)``.
        column: The suspect's n values; missing ones are left out.
        most: How many channels at most.
    """
    known = column.notna().to_numpy()
    values, _ = _as_numbers(column[known])
    if values is None:
        return []
    part = np.zeros(contributions.shape[1])
    for label in np.unique(labels[known]):
        m, c = values[labels[known] == label], contributions[known][labels[known] == label].astype(np.float64)
        slopes = np.linalg.pinv(m - m.mean(0)) @ (c - c.mean(0))
        part += (m.mean(0) - values.mean(0)) @ slopes
    return [int(k) for k in np.argsort(-part, kind="stable")[:most] if part[k] > 0]


def confounding(suspects: list[Suspect]) -> Finding:
    """Judge by the suspect on which the network relies most; properties of the content are left out.

    Score: the largest reliance, clipped at 0; 0.02 alarm if also significant after correction for the number of
    suspects. Cannot be told: a metadata column that leaves nothing to compare within classes, or no suspect.

    Args:
        suspects: From ``find_suspects``.
    """
    tested = [s for s in suspects if np.isfinite(s.reliance) and s.origin != "content"]
    hidden = [s.source for s in suspects if not s.identifiable]
    if not tested:
        return undecided("there is no metadata column or image property to test")
    z_limit = max(Z_LIMIT, float(norm.isf(norm.sf(Z_LIMIT) / len(tested))))
    worst = min(tested, key=lambda s: health(s.reliance, RELIANCE_LIMIT, s.z, z_limit))
    details = {"suspects": float(len(tested)), "worst_class": worst.worst_reliance}
    value = health(worst.reliance, RELIANCE_LIMIT, worst.z, z_limit)
    finding = Finding(max(worst.reliance, 0.0), worst.z, value, details, f"strongest suspect: {worst.source}")
    if finding.alarm or not hidden:
        return finding
    return undecided(f"nearly every class shows one value of {', '.join(hidden)} only: use cannot be told", details)


def _test(
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    column: pd.Series[Any],
    name: str,
    origin: str,
    targets: NDArray[Any] | None,
    seed: int,
) -> Suspect:
    known = column.notna().to_numpy()
    values, levels = _as_numbers(column[known])
    y = labels[known]
    if values is None or len(np.unique(y)) < 2:
        note = f"{levels} levels: taken for an identifier" if values is None else "fewer than two classes known"
        return Suspect(name, origin, float("nan"), 0.0, -1, 0.0, 0.0, True, note)
    association = _association(values, y)
    if not _varies_within(values, y):
        constant = float(values.std()) == 0.0
        note = "constant" if constant else "one value in every class: use cannot be told from class"
        return Suspect(name, origin, float("nan"), 0.0, -1, 0.0, association, constant, note)
    if targets is not None:
        share, z = regression_reliance(logits[known, 0], targets[known], y, values, seed)
        worst, worst_share = -1, share
    else:
        share, z, per_class = reliance(logits[known], y, values, seed)
        worst, worst_share = int(np.unique(y)[per_class.argmax()]), float(per_class.max())
    open_question = levels > 0 and association > ASSOCIATION_LIMIT and _coverage(values, y) < COVERAGE_LIMIT
    return Suspect(name, origin, share, z, worst, worst_share, association, not open_question)


def _as_numbers(column: pd.Series[Any]) -> tuple[NDArray[np.float64] | None, int]:
    """Numeric columns, and the number of levels (0: continuous); None for what looks like an identifier."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(np.float64)[:, None]
        levels = column.nunique()
        return values, levels if levels <= 2 else 0
    codes, names = pd.factorize(column.astype(str))
    if len(names) > MOST_LEVELS:
        return None, len(names)
    return (np.eye(len(names))[codes][:, 1:] if len(names) > 1 else np.zeros((len(codes), 1))), len(names)


def _association(values: NDArray[Any], labels: NDArray[np.int64]) -> float:
    position, means = group_means(values, labels)
    total = float(((values - values.mean(0)) ** 2).sum())
    return float(((means[position] - values.mean(0)) ** 2).sum()) / total if total > 0 else 0.0


def _varies_within(values: NDArray[Any], labels: NDArray[np.int64]) -> bool:
    position, means = group_means(values, labels)
    within = float(((values - means[position]) ** 2).sum())
    return within > 1e-12 * max(float(((values - values.mean(0)) ** 2).sum()), 1e-300) and within > 0


def _coverage(values: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of classes in which enough samples lie off the class's majority level."""
    covered = []
    for label in np.unique(labels):
        _, counts = np.unique(values[labels == label], axis=0, return_counts=True)
        covered.append(len(values[labels == label]) - counts.max() >= OFF_PATTERN)
    return float(np.mean(covered))


def _permuted_within(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Row orders that shuffle samples within their class only, ``(count, n)``."""
    rng = np.random.default_rng(seed)
    grouped = np.argsort(labels, kind="stable")
    keys = rng.random((count, len(labels)))
    shuffled = np.lexsort((keys, np.broadcast_to(labels, keys.shape)), axis=1)
    orders = np.empty_like(shuffled)
    orders[:, grouped] = shuffled
    return orders
