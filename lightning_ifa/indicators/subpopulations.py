"""Sub-populations: do the samples of one class fall into groups that the network tells apart?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

LEAST_SAMPLES = 40
"""A smaller class is not looked at: halves of it say nothing."""

MOST_GROUPS = 3
COMPONENTS = 5
"""Principal components of a class's contribution profiles that are clustered."""

HALVES, DRAWS = 10, 20
STABLE, Z_LIMIT = 0.8, 3.0
LEAST_SHARE = 0.1  # a smaller group is a matter for the list of outliers

_ROUNDS = 25


class Subpopulations(NamedTuple):
    """The best division of one class into two or three groups.

    Attributes:
        label: The class.
        group: ``(m,)`` group of each of its samples, largest group first.
        rows: ``(m,)`` which samples those are.
        stability: Adjusted Rand index between divisions learnt from disjoint halves, mean of ten; 1 = the same.
        null: The same on samples of one Gaussian with the class's covariance.
        separation: Share of the variance between the groups.
        z: Of the separation, against that Gaussian.
        features: ``(c,)`` channels, those first whose contribution tells the groups apart best.
    """

    label: int
    group: NDArray[np.int64]
    rows: NDArray[np.int64]
    stability: float
    null: float
    separation: float
    z: float
    features: NDArray[np.int64]

    @property
    def found(self) -> bool:
        """Whether the groups stand out: stable, further apart than one Gaussian's, and none of them tiny."""
        smallest = np.bincount(self.group).min() / len(self.group)
        return self.stability >= STABLE and self.z > Z_LIMIT and bool(smallest >= LEAST_SHARE)


def subpopulations(contributions: NDArray[Any], labels: NDArray[np.int64], seed: int = 0) -> list[Subpopulations]:
    """Divide every class that is large enough, the most clearly divided first.

    One long cloud can be cut in two in a stable way as well, so the groups are set against samples of a Gaussian with
    the same covariance (Liu et al. 2008, SigClust), and stability is shown beside that of the same Gaussian.

    Args:
        contributions: ``(n, c)``, of each sample's own class.
        labels: ``(n,)`` class, -1 where unlabelled.
        seed: Of halves and draws.
    """
    rng = np.random.default_rng(seed)
    found = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        profiles = contributions[rows].astype(np.float64)
        if len(rows) >= LEAST_SAMPLES and profiles.std() > 0:
            found.append(_divided(int(label), rows, profiles, rng))
    return sorted(found, key=lambda division: (not division.found, -division.z))


def _divided(
    label: int, rows: NDArray[np.int64], profiles: NDArray[np.float64], rng: np.random.Generator
) -> Subpopulations:
    left, spread, _ = np.linalg.svd(profiles - profiles.mean(0), full_matrices=False)
    scores = (left * spread)[:, :COMPONENTS]
    draws = [rng.normal(size=scores.shape) * scores.std(0) for _ in range(DRAWS)]
    divisions = []
    for groups in range(2, MOST_GROUPS + 1):
        centres = _centres(scores, groups)
        group = _nearest(scores, centres)
        order = np.argsort(-np.bincount(group, minlength=groups), kind="stable")
        group = np.argsort(order)[group]
        separation = _separation(scores, centres)
        chance = np.array([_separation(draw, _centres(draw, groups)) for draw in draws])
        z = float((separation - chance.mean()) / max(chance.std(), 1e-12))
        stability = float(np.mean([_agreement(scores, groups, rng) for _ in range(HALVES)]))
        null = float(np.mean([_agreement(draw, groups, rng) for draw in draws[:HALVES]]))
        told = _telling(profiles, group)
        divisions.append(Subpopulations(label, group, rows, stability, null, separation, z, told))
    return max(divisions, key=lambda division: (division.found, division.z))


def _agreement(scores: NDArray[np.float64], groups: int, rng: np.random.Generator) -> float:
    """Learn the division from each of two halves, apply both to all, and compare."""
    order = rng.permutation(len(scores))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    first, second = (_nearest(scores, _centres(scores[half], groups)) for half in halves)
    return float(adjusted_rand_score(first, second))


def _centres(scores: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """K-means, begun once along each of the first three components, so that nothing is random; the best is kept."""
    best, least = np.empty(0), np.inf
    for axis in range(min(3, scores.shape[1])):
        parts = np.array_split(np.argsort(scores[:, axis], kind="stable"), groups)
        centres = np.stack([scores[part].mean(0) for part in parts])
        for _ in range(_ROUNDS):
            group = _nearest(scores, centres)
            members = group == np.arange(groups)[:, None]
            sizes = members.sum(1)
            moved = np.where(sizes[:, None] > 0, members @ scores / np.maximum(sizes, 1)[:, None], centres)
            if np.array_equal(moved, centres):
                break
            centres = moved
        inertia = float(((scores - centres[_nearest(scores, centres)]) ** 2).sum())
        if inertia < least:
            best, least = centres, inertia
    return best


def _nearest(scores: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(((centres**2).sum(1) - 2 * scores @ centres.T).argmin(1))


def _separation(scores: NDArray[np.float64], centres: NDArray[np.float64]) -> float:
    within = ((scores - centres[_nearest(scores, centres)]) ** 2).sum()
    return float(1 - within / ((scores - scores.mean(0)) ** 2).sum())


def _telling(profiles: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Channels by how much of the variance between the groups they make up, most first."""
    means = np.stack([profiles[group == g].mean(0) for g in np.unique(group)])
    between = (np.bincount(group)[np.unique(group)][:, None] * (means - profiles.mean(0)) ** 2).sum(0)
    return np.argsort(-between, kind="stable")
