"""How far the sum of a map rises and falls with the logit that it explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.strata import group_means

TRANSFORMS = ("raw", "common scale", "common clipped", "common tanh", "relu", "relu / own maximum", "per image")
"""What is done to a map before it is shown, from harmless to harmful."""


def completeness(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> float:
    """Share of the score's variance that the map's sum accounts for, slope and all: at most 1, 1 = exact.

    Within each explained class, so that a class's bias does not count.

    Args:
        scores: ``(n,)`` the explained logit.
        sums: ``(n,)`` sum of the map over space.
        explained: ``(n,)`` class explained.

    >>> completeness(np.array([1.0, 2, 3]), np.array([0.5, 1.5, 2.5]), np.zeros(3, dtype=int))
    1.0
    """
    variation = _within(scores, explained)
    return 1.0 - _within(scores - sums, explained) / variation if variation > 0 else float("nan")


def pearson(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> float:
    """Correlation of score and map sum within explained classes, in [-1, 1]; NaN if either is constant."""
    a, b = _centred(scores, explained), _centred(sums, explained)
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


def shown_levels(maps: NDArray[Any], scale: IntensityScale, transform: str) -> NDArray[np.float64]:
    """Sum of each map over space after one of the display transforms.

    Args:
        maps: ``(n, k, *space)``: n samples, each explained for k classes.
        scale: The common scale of these maps.
        transform: One of ``TRANSFORMS``.

    Returns:
        ``(n, k)``.
    """
    flat: NDArray[Any] = np.asarray(maps, dtype=np.float64).reshape(*maps.shape[:2], -1)
    if transform == "common scale":
        flat = scale.position(flat)
    elif transform in ("common clipped", "common tanh"):
        flat = IntensityScale(scale.low, scale.high, "norm" if transform.endswith("clipped") else "tanh").apply(flat)
    elif transform.startswith("relu"):
        flat = np.maximum(flat, 0)
        flat = flat / np.maximum(flat.max(2, keepdims=True), 1e-300) if transform != "relu" else flat
    elif transform == "per image":
        low, high = flat.min(2, keepdims=True), flat.max(2, keepdims=True)
        flat = (flat - low) / np.maximum(high - low, 1e-300)
    return np.asarray(flat.sum(2, dtype=np.float64))


def agreement(
    logits: NDArray[Any],
    levels: NDArray[Any],
    predictions: NDArray[np.int64] | None = None,
    targets: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Tabulate how map levels follow logits, over all samples, class by class and together.

    Args:
        logits: ``(n, k)`` of the k explained classes.
        levels: ``(n, k)`` map sums, sample i explained for class j.
        predictions: ``(n,)`` column of the predicted class, -1 if it is none of them; None leaves the row
            ``"predicted"`` out, as for regression.
        targets: ``(n,)`` column of the true class, -1 if it is none of them; None leaves AUROC out.

    Returns:
        Index: ``0 .. k-1`` (a fixed class over all samples), ``"mean"`` of these, ``"pooled"`` (all samples and
        classes in one), ``"predicted"``. Columns: ``pearson``, ``spearman``, ``completeness`` (share of the
        logit's variance that the sum accounts for, slope and all) and ``auroc`` (of the sum for membership of the
        class); NaN where undefined.
    """
    rows: dict[int | str, dict[str, float]] = {}
    for j in range(logits.shape[1]):
        member = None if targets is None else targets == j
        rows[j] = _agreement(logits[:, j], levels[:, j]) | {"auroc": _auroc(member, levels[:, j])}
    mean = pd.DataFrame(rows).T.mean()
    rows["mean"] = {str(name): float(value) for name, value in mean.items()}
    rows["pooled"] = _agreement(logits.ravel(), levels.ravel())
    if targets is not None:
        rows["pooled"]["auroc"] = _auroc((targets[:, None] == np.arange(logits.shape[1])).ravel(), levels.ravel())
    if predictions is not None:
        own = np.flatnonzero(predictions >= 0), predictions[predictions >= 0]
        rows["predicted"] = _agreement(logits[own], levels[own])
    return pd.DataFrame(rows).T


def _agreement(scores: NDArray[Any], levels: NDArray[Any]) -> dict[str, float]:
    together = np.zeros(len(scores), dtype=np.int64)
    return {
        "pearson": pearson(scores, levels, together),
        "spearman": pearson(rankdata(scores), rankdata(levels), together),
        "completeness": completeness(scores, levels, together),
    }


def _auroc(member: NDArray[np.bool_] | None, levels: NDArray[Any]) -> float:
    if member is None or not 0 < member.sum() < len(member):
        return float("nan")
    return float(roc_auc_score(member, levels))


def _centred(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    position, means = group_means(values, labels)
    return np.asarray(values - means[position])


def _within(values: NDArray[Any], labels: NDArray[np.int64]) -> float:
    return float((_centred(values, labels) ** 2).sum())
