"""Completeness: how far the sum of a map rises and falls with the logit that it explains."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.strata import centre_within

TRANSFORMS = ("raw", "common scale", "common clipped", "common tanh", "relu", "relu / own maximum", "per image")
"""What is done to a map before it is shown, from harmless to harmful."""


ROUNDING = 4
"""Spacings of the floating-point type, at the largest score, that scores differ by through rounding alone."""


def completeness(scores: Array, sums: Array, explained: Ints) -> float:
    """Share of the score's variance that the map's sum accounts for, slope and all: at most 1, 1 = exact.

    Within each explained class, so that a class's bias does not count. NaN where the scores are constant there to
    rounding.

    Args:
        scores: Explained logit of each sample, ``(n,)``.
        sums: Sum of each sample's map over space, ``(n,)``.
        explained: Class that each map explains, ``(n,)``.

    >>> completeness(np.array([1.0, 2, 3]), np.array([0.5, 1.5, 2.5]), np.zeros(3, dtype=int))
    1.0
    """
    variation = _variation_within(scores, explained)
    if variation <= len(scores) * (ROUNDING * _precision(scores) * np.abs(scores).max(initial=0)) ** 2:
        return float("nan")
    return 1.0 - _variation_within(scores - sums, explained) / variation


def _precision(values: Array) -> float:
    """The relative spacing of the coarsest floating-point type that holds all the values: of bfloat16, half or single.

    A network that computes in half precision gives scores whose rounding is that of half precision, whatever the type
    that they are kept in.
    """
    mantissa, _ = np.frexp(np.asarray(values, dtype=np.float64))
    for bits in (8, 11):
        if np.array_equal(np.round(mantissa * 2**bits), mantissa * 2**bits):
            return float(2.0 ** (1 - bits))
    return float(np.finfo(np.float32).eps)


def spread_within(values: Array, labels: Ints) -> float:
    """Standard deviation of values ``(n,)`` within classes ``(n,)``."""
    return float(np.sqrt(_variation_within(values, labels) / max(len(values), 1)))


def pearson(scores: Array, sums: Array, explained: Ints) -> float:
    """Correlation of score and map sum within explained classes, in [-1, 1]; NaN if either is constant."""
    a, b = centre_within(scores, explained), centre_within(sums, explained)
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


def shown_levels(maps: Array, scale: IntensityScale, transform: str) -> Floats:
    """Sum of each map over space after one of the display transforms.

    Args:
        maps: Maps of n samples, each explained for k classes, ``(n, k, *space)``.
        scale: The common scale of these maps.
        transform: One of ``TRANSFORMS``.

    Returns:
        The sums, ``(n, k)``.
    """
    flat: Array = np.asarray(maps, dtype=np.float64).reshape(*maps.shape[:2], -1)
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
    logits: Array, levels: Array, predictions: Ints | None = None, targets: Ints | None = None
) -> pd.DataFrame:
    """Tabulate how map levels follow logits, over all samples, class by class and together.

    Args:
        logits: Logits of the k explained classes, ``(n, k)``.
        levels: Sums of the maps, sample i explained for class j, ``(n, k)``.
        predictions: Column of the predicted class, ``(n,)``, -1 if it is none of them; None leaves the row
            ``"predicted"`` out, as for regression.
        targets: Column of the true class, ``(n,)``, -1 if it is none of them; None leaves AUROC out.

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


def _agreement(scores: Array, levels: Array) -> dict[str, float]:
    one_class = np.zeros(len(scores), dtype=np.int64)
    return {
        "pearson": pearson(scores, levels, one_class),
        "spearman": pearson(rankdata(scores), rankdata(levels), one_class),
        "completeness": completeness(scores, levels, one_class),
    }


def _auroc(member: Mask | None, levels: Array) -> float:
    if member is None or not 0 < member.sum() < len(member):
        return float("nan")
    return float(roc_auc_score(member, levels))


def _variation_within(values: Array, labels: Ints) -> float:
    return float((centre_within(values, labels) ** 2).sum())
