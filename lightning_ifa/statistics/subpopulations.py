"""Sub-populations: do the samples of one class fall into groups that the network tells apart?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints

LEAST_SAMPLES = 40
"""A smaller class is left out: its halves are too small to compare."""

MOST_GROUPS = 3

COMPONENTS = 5
"""Principal components of a class's contribution profiles that are clustered."""

HALVES, DRAWS, NULLS = 10, 30, 3
STABLE, Z_LIMIT = 0.8, 3.0
LEAST_SHARE = 0.1  # a smaller group is a matter for the list of outliers
_ROUNDS = 15


class Subpopulations(NamedTuple):
    """The best division of one class into two or three groups.

    Attributes:
        label: The class.
        group: Group of each of its samples, largest group first, ``(m,)``.
        rows: Row numbers of these samples, ``(m,)``.
        stability: Adjusted Rand index between divisions learnt from disjoint halves, mean of ten; 1 = the same.
        null: Stability on samples of one Gaussian with the class's covariance.
        separation: Share of the variance between the groups.
        z: Significance of the separation, against that Gaussian.
        features: Channels, those first whose contribution separates the groups best, ``(c,)``.
    """

    label: int
    group: Ints
    rows: Ints
    stability: float
    null: float
    separation: float
    z: float
    features: Ints

    @property
    def found(self) -> bool:
        """Whether the groups stand out: stable, further apart than one Gaussian's, and none of them tiny."""
        smallest = np.bincount(self.group).min() / len(self.group)
        return self.stability >= STABLE and self.z > Z_LIMIT and bool(smallest >= LEAST_SHARE)


def subpopulations(contributions: Array, labels: Ints, seed: int = 0) -> list[Subpopulations]:
    """Divide every class that is large enough, the most clearly divided first.

    One long cloud can be cut in two in a stable way as well, so the groups are set against samples of a Gaussian with
    the same covariance (Liu et al. 2008, SigClust), and stability is shown beside that of the same Gaussian.

    Args:
        contributions: Contributions to each sample's own class, ``(n, c)``.
        labels: Class of each sample, ``(n,)``, -1 where unlabelled.
        seed: Seed of the halves and of the draws from Gaussians.
    """
    rng = np.random.default_rng(seed)
    found = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        profiles = contributions[rows].astype(np.float64)
        if len(rows) >= LEAST_SAMPLES and profiles.std() > 0:
            found.append(_divide(int(label), rows, profiles, rng))
    return sorted(found, key=lambda division: (not division.found, -division.z))


def _divide(label: int, rows: Ints, profiles: Floats, rng: np.random.Generator) -> Subpopulations:
    left, spread, _ = np.linalg.svd(profiles - profiles.mean(0), full_matrices=False)
    scores = (left * spread)[:, :COMPONENTS]
    draws = rng.normal(size=(DRAWS, *scores.shape)) * scores.std(0)
    divisions = []
    for groups in range(2, MOST_GROUPS + 1):
        centres = _centres(scores[None], groups)
        group = _nearest(scores[None], centres)[0]
        order = np.argsort(-np.bincount(group, minlength=groups), kind="stable")
        group = np.argsort(order)[group]
        separation = float(_separation(scores[None], centres)[0])
        chance = _separation(draws, _centres(draws, groups))
        z = (separation - float(chance.mean())) / max(float(chance.std()), 1e-12)
        stability = _stability(scores, groups, rng)
        null = float(np.mean([_stability(draw, groups, rng) for draw in draws[:NULLS]]))
        features = _separating_channels(profiles, group)
        divisions.append(Subpopulations(label, group, rows, stability, null, separation, z, features))
    return max(divisions, key=lambda division: (division.found, division.z))


def _stability(scores: Floats, groups: int, rng: np.random.Generator) -> float:
    """Learn the division from each of two halves, apply both to all, and compare; mean over some ways to halve."""
    orders = np.stack([rng.permutation(len(scores)) for _ in range(HALVES)])
    size = len(scores) // 2
    learnt = [_centres(scores[half], groups) for half in (orders[:, :size], orders[:, size : 2 * size])]
    assigned = [_nearest(np.broadcast_to(scores, (HALVES, *scores.shape)), centres) for centres in learnt]
    return float(np.mean([_rand_index(a, b, groups) for a, b in zip(*assigned, strict=True)]))


def _rand_index(first: Ints, second: Ints, groups: int) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985); 1 where both know one group only."""
    table = np.bincount(first * groups + second, minlength=groups**2).reshape(groups, groups).astype(np.float64)
    pairs, rows, columns = ((v * (v - 1) / 2).sum() for v in (table, table.sum(1), table.sum(0)))
    total = len(first) * (len(first) - 1) / 2
    chance, most = rows * columns / total, (rows + columns) / 2
    return float((pairs - chance) / (most - chance)) if most > chance else 1.0


def _centres(scores: Floats, groups: int) -> Floats:
    """K-means of several data sets at once, ``(sets, n, p)`` to ``(sets, groups, p)``.

    Begun once along each of the first three components, so that nothing is random; the best is kept.
    """
    found, inertia = [], []
    for axis in range(min(3, scores.shape[2])):
        rank = scores[:, :, axis].argsort(1, kind="stable").argsort(1, kind="stable")
        group = rank * groups // scores.shape[1]
        centres = np.zeros((len(scores), groups, scores.shape[2]))
        for _ in range(_ROUNDS):
            members = (group[:, :, None] == np.arange(groups)).astype(np.float64)
            sizes = members.sum(1)[:, :, None]
            centres = np.where(sizes > 0, members.transpose(0, 2, 1) @ scores / np.maximum(sizes, 1), centres)
            group = _nearest(scores, centres)
        found.append(centres)
        inertia.append(_within(scores, centres))
    return np.asarray(np.stack(found)[np.argmin(inertia, axis=0), np.arange(len(scores))])


def _nearest(scores: Floats, centres: Floats) -> Ints:
    away = (centres**2).sum(2)[:, None, :] - 2 * scores @ centres.transpose(0, 2, 1)
    return np.asarray(away.argmin(2))


def _within(scores: Floats, centres: Floats) -> Floats:
    own = np.take_along_axis(centres, _nearest(scores, centres)[:, :, None], axis=1)
    return np.asarray(((scores - own) ** 2).sum((1, 2)))


def _separation(scores: Floats, centres: Floats) -> Floats:
    total = ((scores - scores.mean(1, keepdims=True)) ** 2).sum((1, 2))
    return np.asarray(1 - _within(scores, centres) / total)


def _separating_channels(profiles: Floats, group: Ints) -> Ints:
    """Channels by how much of the variance between the groups they make up, most first."""
    means = np.stack([profiles[group == g].mean(0) for g in np.unique(group)])
    between = (np.bincount(group)[np.unique(group)][:, None] * (means - profiles.mean(0)) ** 2).sum(0)
    return np.argsort(-between, kind="stable")
