"""Learning curves: what more training samples would bring, from refits of a linear head to fewer of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.linear_head import LinearHead, fit_head

SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
DRAWS = 6
BOOTSTRAPS = 200
LEVEL = 0.9
RIDGE = 0.03
EXPONENTS = np.arange(0.05, 2.01, 0.05)
"""Exponents of the power law that are tried; errors fall with exponents below 1 (Hestness et al. 2017)."""


class Split(NamedTuple):
    """Samples of one split.

    Attributes:
        features: ``(n, d)``.
        labels: Class, 0 to k - 1, ``(n,)``.
    """

    features: Array
    labels: Ints


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """How accuracy grows with the number of training samples.

    Attributes:
        points: One row a share: ``samples`` (how many of those that were varied), ``accuracy`` and ``margin`` (mean
            logit of the label over the next best, in standard deviations of the logits), mean over draws.
        present: Number of the varied training samples.
        times: The multiple of them that is extrapolated to.
        accuracy: Extrapolated accuracy there.
        interval: Its 90 % interval, by a bootstrap over draws and held-out samples; that the law goes on is assumed.
        gain: Extrapolated gain over the present samples.
        gain_interval: Its 90 % interval.
        what: The varied samples, in words.
    """

    points: pd.DataFrame
    present: int
    times: float
    accuracy: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    what: str = "all samples"

    @property
    def helps(self) -> bool:
        """Whether more samples bring half a point of accuracy or more, as sure as the interval says."""
        return self.gain_interval[0] > 0 and self.gain >= 0.005

    def __str__(self) -> str:
        verdict = "more of the same helps" if self.helps else "more of the same brings nothing that can be told"
        return (
            f"{self.times:g} times {self.what} (now {self.present}): accuracy {self.accuracy - self.gain:.3f} -> "
            f"{self.accuracy:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}], gain {self.gain:+.3f} "
            f"[{self.gain_interval[0]:+.3f}, {self.gain_interval[1]:+.3f}]: {verdict}"
        )


def learning_curve(
    train: Split,
    test: Split,
    varied: Mask | None = None,
    times: float = 2.0,
    what: str = "all samples",
    seed: int = 0,
) -> LearningCurve:
    """Refit a linear head to fewer and fewer training samples, measure it on held-out ones, and extrapolate.

    A power law ``error = floor + scale * samples ** -exponent`` is fitted to the mean error at each size.

    Args:
        train: Training samples.
        test: Held-out samples.
        varied: Which training samples become fewer, ``(n,)``, as those of one group; the others stay. None for all.
        times: To which multiple of the varied samples the curve is extrapolated.
        what: Name of the varied samples.
        seed: Seed of the draws.
    """
    k = int(max(train.labels.max(), test.labels.max())) + 1
    nothing = LinearHead(np.zeros((k, train.features.shape[1])), np.zeros(k))
    rows = np.arange(len(train.labels)) if varied is None else np.flatnonzero(varied)
    fixed = np.setdiff1d(np.arange(len(train.labels)), rows)
    rng, right, margins, sizes = np.random.default_rng(seed), [], [], []
    for draw in range(DRAWS):
        order = rng.permutation(rows)
        for share in SHARES if draw == 0 else SHARES[:-1]:
            size = max(round(share * len(order)), min(k, len(order)))
            chosen = np.concatenate([fixed, order[:size]])
            head = fit_head(train.features[chosen], train.labels[chosen], np.ones(len(chosen)), nothing, RIDGE)
            scores = head(test.features)
            sizes.append(size)
            right.append(scores.argmax(1) == test.labels)
            margins.append(_margin(scores, test.labels))
    hits, counts = np.array(right, dtype=float), np.array(sizes)
    goal = np.array([len(rows), times * len(rows)])
    best = _extrapolate(counts, hits, goal)
    drawn = np.array([_extrapolate(*_resample(counts, hits, rng), goal) for _ in range(BOOTSTRAPS)])
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    points = pd.DataFrame({"samples": counts, "accuracy": hits.mean(1), "margin": margins})
    return LearningCurve(
        points=points.groupby("samples", as_index=False).mean(),
        present=len(rows),
        times=times,
        accuracy=float(best[1]),
        interval=_pair(np.quantile(drawn[:, 1], ends)),
        gain=float(best[1] - best[0]),
        gain_interval=_pair(np.quantile(drawn[:, 1] - drawn[:, 0], ends)),
        what=what,
    )


def fit_power_law(samples: Array, error: Array) -> Callable[[Array], Floats]:
    """Fit ``error = floor + scale * samples ** -exponent`` by least squares, none below 0; give it as a function.

    >>> n = np.array([10.0, 20, 40, 80, 160])
    >>> fit_power_law(n, 0.1 + 2 * n**-0.5)(np.array([640])).round(3).tolist()
    [0.179]
    """
    middle = float(np.median(samples))
    x = (samples / middle) ** -EXPONENTS[:, None]  # (exponents, sizes)
    inside = x - x.mean(1, keepdims=True)
    scale = np.maximum(inside @ (error - error.mean()) / (inside**2).sum(1), 0.0)
    floor = error.mean() - scale * x.mean(1)
    scale = np.where(floor < 0, x @ error / (x**2).sum(1), scale)
    floor = np.maximum(floor, 0.0)
    best = int(((floor[:, None] + scale[:, None] * x - error) ** 2).sum(1).argmin())
    return lambda size: np.asarray(floor[best] + scale[best] * (np.asarray(size) / middle) ** -EXPONENTS[best])


def _extrapolate(counts: Ints, hits: Floats, goal: Array) -> Floats:
    """Give the accuracy at sizes, ``(g,)``, by the law of the mean error at each."""
    sizes = np.unique(counts)
    error = np.array([1 - hits[counts == size].mean() for size in sizes])
    return 1 - fit_power_law(sizes.astype(float), error)(goal)


def _resample(counts: Ints, hits: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw the draws of each size, and the held-out samples, with replacement."""
    rows = np.concatenate([rng.choice(found, len(found)) for found in _rows_by_size(counts)])
    return counts[rows], hits[rows][:, rng.integers(0, hits.shape[1], hits.shape[1])]


def _rows_by_size(counts: Ints) -> list[Ints]:
    return [np.flatnonzero(counts == size) for size in np.unique(counts)]


def _pair(ends: Any) -> tuple[float, float]:
    return float(ends[0]), float(ends[1])


def _margin(scores: Floats, labels: Ints) -> float:
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    return float((scores[rows, labels] - others.max(1)).mean() / max(float(scores.std()), 1e-12))
