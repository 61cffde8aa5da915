"""Principal features: the few directions along which contributions vary, named by what they serve."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, IncrementalPCA, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning

from lightning_ifa.statistics.arrays import Array, Floats, Ints, standardise_columns
from lightning_ifa.statistics.strata import group_means

LARGE = 20_000_000
"""Matrices of more entries are decomposed in batches of rows."""

SERVES = 1.0
"""A component serves a class whose mean score lies that many standard deviations above the overall mean."""


@dataclass(frozen=True, eq=False)
class Components:
    """A decomposition of contributions into q components, strongest first.

    Attributes:
        method: ``"pca"`` or ``"nmf"``.
        directions: Signed directions of unit length, ``(q, c)``; the largest entry of each PCA direction is positive.
        scores: ``contributions @ directions.T``, ``(n, q)``, units of the score: the sum of the component's own map.
        shares: Share of the variance (PCA) or of the sum of absolute contributions (NMF), ``(q,)``.
    """

    method: str
    directions: Floats
    scores: Floats
    shares: Floats

    def maps(self, contributions: Array) -> Floats:
        """Give the components' own maps.

        Args:
            contributions: Contribution maps ``A * G``, ``(p, c, *space)``.

        Returns:
            One map a component, ``(p, q, *space)``; each sums over space to the component's score.
        """
        return np.asarray(np.einsum("qc,pc...->pq...", self.directions, contributions))

    def strongest(self, component: int, count: int = 5) -> Ints:
        """Give the rows with the largest scores of a component, strongest first."""
        return np.argsort(-self.scores[:, component], kind="stable")[:count]

    def profile(self, classes: Ints) -> tuple[Ints, Floats]:
        """Say how far each class's mean score lies above the mean over all samples, in standard deviations.

        Args:
            classes: Class of each sample, ``(n,)``.

        Returns:
            The classes, ``(k,)``, and the profile, ``(k, q)``.
        """
        _, means = group_means(self.scores, classes)
        spread = self.scores.std(0)
        return np.unique(classes), (means - self.scores.mean(0)) / np.where(spread > 0, spread, 1.0)

    def serves(self, classes: Ints) -> list[list[int]]:
        """List the classes that each component serves, best first; see ``SERVES``."""
        names, profile = self.profile(classes)
        ranked = np.argsort(-profile, axis=0, kind="stable")
        return [[int(names[k]) for k in ranked[:, j] if profile[k, j] >= SERVES] for j in range(profile.shape[1])]


class Match(NamedTuple):
    """Components of one decomposition found again in another.

    Attributes:
        order: Number of each component's partner in the second, ``(q,)``; -1 if there is none.
        sign: 1, or -1 where the partner points the other way, ``(q,)``.
        correlation: Absolute correlation of the partners' scores, ``(q,)``; 0 if there is no partner.
    """

    order: Ints
    sign: Floats
    correlation: Floats


def principal_components(contributions: Array, count: int) -> Components:
    """Decompose contributions by PCA: directions of falling variance.

    Args:
        contributions: Contributions of n samples and c channels, ``(n, c)``.
        count: Number of components; fewer where samples or channels are fewer.
    """
    C = contributions.astype(np.float64)
    count = min(count, *C.shape)
    model = IncrementalPCA(count) if C.size > LARGE else PCA(count, svd_solver="full")
    directions = model.fit(C).components_
    largest = directions[np.arange(count), np.abs(directions).argmax(1)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)[:, None]
    return Components("pca", directions, C @ directions.T, np.nan_to_num(model.explained_variance_ratio_))


def nonnegative_components(contributions: Array, count: int, seed: int = 0) -> Components:
    """Decompose contributions by NMF: parts that only add up.

    Contributions have signs, so the positive and the negative part of each channel are two columns; a component's
    direction is the difference of their weights. Nothing is thrown away as by clipping at 0.

    Args:
        contributions: Contributions of n samples and c channels, ``(n, c)``.
        count: Number of components; fewer where samples or channels are fewer.
        seed: Seed of the solver.
    """
    C = contributions.astype(np.float64)
    count = min(count, *C.shape)
    parts = np.concatenate([np.maximum(C, 0), np.maximum(-C, 0)], axis=1)
    kind = MiniBatchNMF if C.size > LARGE else NMF
    model = kind(count, init="nndsvda", tol=1e-3, max_iter=500, random_state=seed)
    with warnings.catch_warnings():  # progress is measured against the start, and the start from an SVD is near the end
        warnings.simplefilter("ignore", ConvergenceWarning)
        loads = model.fit_transform(parts)
    mass = loads.sum(0) * model.components_.sum(1)
    ranked = np.argsort(-mass, kind="stable")
    signed = (model.components_[:, : C.shape[1]] - model.components_[:, C.shape[1] :])[ranked]
    length = np.linalg.norm(signed, axis=1, keepdims=True)
    directions = signed / np.where(length > 0, length, 1.0)
    return Components("nmf", directions, C @ directions.T, mass[ranked] / max(float(parts.sum()), 1e-300))


def match(first: Array, second: Array) -> Match:
    """Find components again in another epoch or run, by what they say of the same samples.

    Channels have no identity across runs, so directions cannot be compared there; scores of the same samples can.
    The pairing maximises the sum of absolute correlations (Hungarian algorithm).

    Args:
        first: Scores of one decomposition, ``(n, q)``.
        second: Scores of the other, ``(n, p)``, of the same samples in the same order.
    """
    a, b = (standardise_columns(scores.astype(np.float64)) for scores in (first, second))
    correlation = a.T @ b
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    order = np.full(first.shape[1], -1, dtype=np.int64)
    sign, strength = np.ones(len(order)), np.zeros(len(order))
    order[rows] = columns
    strength[rows] = np.abs(correlation[rows, columns])
    sign[rows] = np.where(correlation[rows, columns] < 0, -1.0, 1.0)
    return Match(order, sign, strength)
