"""What is known of each feature: whom it serves, how far it overfits, how much of the evidence it carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.context import table_strata
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.strata import group_means

DRAWS = 10


def center_contributions(report: AnalysisResult, channel: int) -> dict[str, NDArray[np.float64]]:
    """A channel's contributions less the mean of the validation samples of the same class, split by split."""
    labels = table_strata(report.tables)
    table = report.tables["validation"]
    known = labels["validation"] >= 0
    names = np.unique(labels["validation"][known])
    if not len(names):
        return {"validation": table.contributions[:, channel].astype(np.float64)}
    _, means = group_means(table.contributions[known, channel].astype(np.float64), labels["validation"][known])
    found = {}
    for split, rows in labels.items():
        shared = np.isin(rows, names)
        place = np.searchsorted(names, rows[shared])
        found[split] = report.tables[split].contributions[shared, channel] - means[place]
    return found


def evidence_kept(report: AnalysisResult, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of the evidence in the most important channels with that in all, and the same of random channels.

    Evidence is the sum of contributions, which is the map's sum; each class ranks the channels itself, by its
    importance difference. Within classes, so that differences between classes do not enter.

    Args:
        report: The report.
        seed: Seed of the random orders.

    Returns:
        Both ``(c,)``, for 1 to c channels kept.
    """
    table, found = report.tables["validation"], report.importance
    wanted = np.abs(found.difference if len(found.classes) > 1 else found.matrix)
    member = np.searchsorted(found.classes, table.explained).clip(max=max(len(found.classes) - 1, 0))
    rows = np.isin(table.explained, found.classes)
    if not rows.any():
        empty = np.full(table.contributions.shape[1], np.nan)
        return empty, empty
    orders = np.argsort(-wanted, axis=1, kind="stable")[member[rows]]
    values, labels = table.contributions[rows].astype(np.float64), table.explained[rows]
    best = _agreement(np.take_along_axis(values, orders, 1), labels)
    rng = np.random.default_rng(seed)
    drawn = [_agreement(values[:, rng.permutation(values.shape[1])], labels) for _ in range(DRAWS)]
    return best, np.mean(drawn, axis=0)


def _agreement(ordered: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Correlation of every partial sum over columns with the whole sum, within labels, ``(c,)``."""
    sums = np.cumsum(ordered, axis=1)
    position, means = group_means(sums, labels)
    sums = sums - means[position]
    norm = np.sqrt((sums**2).sum(0))
    whole = sums[:, -1] / max(float(norm[-1]), 1e-300)
    return np.asarray(whole @ sums / np.where(norm > 0, norm, np.inf))
