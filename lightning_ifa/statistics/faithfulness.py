"""Faithfulness: does the network lose its score with what the map marks, and keep it with nothing else?

The numbers come from scores before and after masking; ``interventions.masking`` masks the input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.metrics import auc

from lightning_ifa.statistics.arrays import Array, Floats, Ints

PROBABILITY = ("multiclass", "binary", "multilabel", "segmentation")
"""Tasks whose score has a probability; a drop of confidence means something there only."""


def confidence(logits: Array, explained: Ints, task: str) -> Floats:
    """Give the explained class's probability, or the score itself where there is none.

    Args:
        logits: Logits, ``(..., n, k)``.
        explained: Class explained of each sample, ``(n,)``.
        task: ``"multilabel"``: sigmoid; the other tasks of ``PROBABILITY``: softmax; any other: the score.

    Returns:
        Confidences, ``(..., n)``.

    >>> confidence(np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([0, 1]), "multiclass")
    array([0.5, 0.5])
    """
    values = np.asarray(logits, dtype=np.float64)
    if task == "multilabel":
        values = expit(values)
    elif task in PROBABILITY:
        values = softmax(values, axis=-1)
    return np.asarray(values[..., np.arange(len(explained)), explained])


def average_drop(before: Array, after: Array) -> float:
    """Mean share of the confidence that is lost when only what the map marks is shown, in [0, 1]; less is better.

    Average Drop of Chattopadhyay et al., arXiv 1710.11063, section 4.1, as a fraction.

    Args:
        before: Confidence of the whole input, ``(n,)``, in (0, 1].
        after: Confidence of the masked input, ``(n,)``.

    >>> average_drop(np.array([0.8, 0.5]), np.array([0.4, 0.9]))
    0.25
    """
    return float((np.maximum(before - after, 0) / np.maximum(before, 1e-300)).mean())


def average_increase(before: Array, after: Array) -> float:
    """Share of samples whose confidence rises when only what the map marks is shown, in [0, 1]; more is better.

    Increase in Confidence of Chattopadhyay et al., arXiv 1710.11063, section 4.1, as a fraction.

    Args:
        before: Confidence of the whole input, ``(n,)``.
        after: Confidence of the masked input, ``(n,)``.
    """
    return float((np.asarray(after) > np.asarray(before)).mean())


def logit_increase(before: Array, after: Array) -> float:
    """Share of samples whose explained logit rises when only what the map marks is shown, in [0, 1]; more is better.

    The logit variant of Increase in Confidence in the IFA paper's research code; arguments are logits, ``(n,)``.
    """
    return float((np.asarray(after) > np.asarray(before)).mean())


def others_drop(before: Array, after: Array, explained: Ints) -> float:
    """Share of samples whose other logits fall in sum when only what the map marks is shown; more is better.

    The logit variant of Average Drop in the IFA paper's research code, which sums the explained logit as well.

    Args:
        before: Logits of the whole input, ``(n, k)``.
        after: Logits of the masked input, ``(n, k)``.
        explained: Class explained of each sample, ``(n,)``.

    >>> others_drop(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[2.0, 0.5], [0.0, 3.0]]), np.array([0, 1]))
    0.5
    """
    rows = np.arange(len(explained))
    first, second = (logits.sum(1, dtype=np.float64) - logits[rows, explained] for logits in (before, after))
    return float((second < first).mean())


def area(shares: Array, values: Array) -> float:
    """Area under a curve by the trapezoid rule, over the range of the shares: the mean height.

    Insertion and deletion metric of Petsiuk et al. (RISE), arXiv 1806.07421, section 3.2.

    Args:
        shares: Positions along the axis, rising, ``(s,)``, s >= 2.
        values: Height of the curve at each, ``(s,)``.

    >>> area(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.0, 0.0]))
    0.25
    """
    return float(auc(shares, values) / (shares[-1] - shares[0]))


def own_scale(maps: Array) -> NDArray[np.float32]:
    """Stretch each map's positive part to its own maximum, in [0, 1]; a map without positive part stays 0.

    Args:
        maps: Maps, ``(n, *space)``.
    """
    positive = np.maximum(maps, 0)
    top = positive.reshape(len(maps), -1).max(1).reshape(-1, *[1] * (maps.ndim - 1))
    return np.asarray(np.divide(positive, top, out=np.zeros(maps.shape, np.float32), where=top > 0))


def shuffle(maps: Array, indices: Ints, seed: int) -> Array:
    """Move each map's values to random positions: a control with the same intensities that points nowhere.

    Args:
        maps: Maps, ``(n, *space)``.
        indices: Data-set indices, ``(n,)``; a sample's shuffle depends on its own index only.
        seed: Seed of the draw.
    """
    flat = maps.reshape(len(maps), -1)
    orders = [np.random.default_rng((seed, int(index))).permutation(flat.shape[1]) for index in indices]
    return np.take_along_axis(flat, np.stack(orders), axis=1).reshape(maps.shape)
