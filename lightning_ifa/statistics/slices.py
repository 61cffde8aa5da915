"""Slices that nobody named: samples that lie together in what the network or the image shows, and err too often.

A scan statistic (Kulldorff 1997, "A spatial scan statistic") over the tails of many signals: each sample's position
along the main directions of its features, how far it lies from the others, and its image properties. What the logits
say is taken out of the features beforehand, and errors are counted against those of the samples that are taken for the
same class: near a boundary between overlapping classes any network errs, and that is no slice. Other ways to slice:
Domino (Eyuboglu et al. 2022, arXiv 2203.14960), SliceLine (Sagadeeva & Boehm 2021); they have no null.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.utils.extmath import randomized_svd

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask, standardise_columns
from lightning_ifa.statistics.strata import centre_within

LEAST_SAMPLES, LEAST_ERRORS = 100, 20
"""Samples without which nothing is told, and errors without which nothing is looked for."""

SHARES = (0.02, 0.03, 0.05, 0.08)
"""Sizes of a slice as shares of the samples."""

LEAST_SIZE = 10
LEAST_EXCESS = 0.25
"""How far a slice's share of errors exceeds what its samples' classes explain."""

LEVEL = 0.001
"""Chance that the worst of all slices of a network without any looks as bad."""

DRAWS = 100
DIRECTIONS = 12
EVIDENCE = 10
"""Directions of the logits that are taken out of the features."""

MOST_SLICES = 5
GUMBEL_MEAN = 0.5772156649015329


class WeakSlice(NamedTuple):
    """Samples that err more than they should.

    Attributes:
        inside: Which samples belong to it, ``(n,)``.
        expected: Mean share of errors among samples taken for the same classes.
        excess: How far its own share of errors exceeds that.
        p: Chance that the worst slice of a network without any is as bad.
    """

    inside: Mask
    expected: float
    excess: float
    p: float


def find_slices(features: Array, properties: Array, logits: Array, labels: Ints, seed: int = 0) -> list[WeakSlice]:
    """Find the slices in which a network errs too often, the worst first; none where chance explains the worst.

    The null: within the samples taken for one class, errors fall on any of them alike. Errors are dealt out anew so a
    hundred times; the worst slices of these follow a Gumbel law, which allows for the number of slices looked at.

    Args:
        features: What the network sees, such as pooled activations, ``(n, c)``; nothing that knows the labels, as
            contributions to the label's class do.
        properties: Numbers known of each sample, such as image properties, ``(n, m)``; NaN where unknown.
        logits: ``(n, k)``.
        labels: Class of each sample, ``(n,)``.
        seed: Seed of the deals.
    """
    predictions = logits.argmax(1)
    wrong = labels != predictions
    if len(labels) < LEAST_SAMPLES or wrong.sum() < LEAST_ERRORS:
        return []
    candidates = _tails(_signals(features, properties, logits, predictions))
    expected, spread = _binomial(wrong, predictions)
    null = _scan(candidates, _deal(wrong, predictions, seed), expected, spread).max(0, initial=0)
    scale = max(float(null.std()), 1e-9) * np.sqrt(6) / np.pi
    found: list[WeakSlice] = []
    while len(candidates) and len(found) < MOST_SLICES:
        z = _scan(candidates, wrong[:, None], expected, spread)[:, 0]
        inside = candidates[z.argmax()] > 0
        excess = float((wrong - expected)[inside].mean())
        p = float(-np.expm1(-np.exp(-(z.max() - null.mean()) / scale - GUMBEL_MEAN)))
        if excess < LEAST_EXCESS or p > LEVEL:
            break
        found.append(WeakSlice(inside, float(expected[inside].mean()), excess, p))
        candidates = candidates * ~inside  # what is left of the others once its samples are told
        candidates = candidates[candidates.sum(1) >= LEAST_SIZE]
    return found


def _signals(features: Array, properties: Array, logits: Array, predictions: Ints) -> Floats:
    """Give what samples are sorted by, ``(n, s)``: directions, distances and properties."""
    shown = standardise_columns(features.astype(np.float64))
    evidence = _directions(centre_within(logits, predictions), EVIDENCE)
    rest = centre_within(shown, predictions)
    rest -= evidence @ (np.linalg.pinv(evidence) @ rest)
    along = _directions(standardise_columns(rest), DIRECTIONS)
    spread = along / np.maximum(along.std(0), 1e-12)
    apart = [(spread**2).sum(1), np.abs(spread).max(1, initial=0), (shown**2).sum(1)]
    known = np.isfinite(properties)
    complete = properties[:, known.any(0)]
    middles = np.nanmedian(np.where(known[:, known.any(0)], complete, np.nan), 0)
    return np.column_stack([along, *apart, np.where(np.isfinite(complete), complete, middles)])


def _directions(values: Floats, count: int) -> Floats:
    """Give the positions along the main directions of ``(n, c)``, ``(n, q)``."""
    count = min(count, *values.shape)
    left, strengths, _ = randomized_svd(values.astype(np.float32), count, n_iter=2, random_state=0)
    kept = strengths > 1e-3 * max(float(strengths[0]), 1e-12)
    return np.asarray(left[:, kept] * strengths[kept], dtype=np.float64)


def _tails(signals: Floats) -> NDArray[np.float32]:
    """Mark both ends of each signal, in all sizes, ``(tails, n)``; a signal of one value has none."""
    varied = signals[:, np.ptp(signals, axis=0) > 0]
    n = len(varied)
    low, high = (rankdata(sign * varied, "ordinal", axis=0).T for sign in (1, -1))
    sizes = sorted({max(LEAST_SIZE, round(share * n)) for share in SHARES})
    return np.concatenate([ranks <= size for size in sizes for ranks in (low, high)]).astype(np.float32)


def _binomial(wrong: Mask, predictions: Ints) -> tuple[Floats, Floats]:
    """Give each sample the share of errors of its predicted class, and its variance, ``(n,)``."""
    expected = wrong - centre_within(wrong.astype(np.float64), predictions)
    return expected, expected * (1 - expected)


def _deal(wrong: Mask, predictions: Ints, seed: int) -> Mask:
    """Deal the errors out anew within each predicted class, ``(n, draws)``."""
    order = np.argsort(predictions, kind="stable")
    keys = np.random.default_rng(seed).random((len(wrong), DRAWS)) + predictions[order][:, None]
    dealt = np.empty_like(wrong, shape=keys.shape)
    dealt[order] = wrong[order][np.argsort(keys, axis=0)]
    return dealt


def _scan(candidates: NDArray[np.float32], wrong: Mask, expected: Floats, spread: Floats) -> Floats:
    """Give how far the errors of each candidate exceed the expected ones, in standard deviations, ``(m, draws)``.

    Half an error is added to the variance: one error where next to none is expected is no evidence.
    """
    excess = candidates @ (wrong - expected[:, None]).astype(np.float32)
    return np.asarray(excess / np.sqrt(candidates @ spread.astype(np.float32) + 0.5)[:, None], dtype=np.float64)
