"""Principal features: the few directions along which contributions vary, named by what they serve."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, IncrementalPCA, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning

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
        directions: ``(q, c)`` signed, of unit length; the largest entry of each PCA direction is positive.
        scores: ``(n, q)`` ``contributions @ directions.T``, units of the score: the sum of the component's own map.
        shares: ``(q,)`` PCA: share of the variance; NMF: share of the sum of absolute contributions.
    """

    method: str
    directions: NDArray[np.float64]
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]

    def maps(self, contributions: NDArray[Any]) -> NDArray[np.float64]:
        """The components' own maps.

        Args:
            contributions: ``(p, c, *space)`` contribution maps ``A * G``.

        Returns:
            ``(p, q, *space)``; each sums over space to the component's score.
        """
        return np.asarray(np.einsum("qc,pc...->pq...", self.directions, contributions))

    def strongest(self, component: int, count: int = 5) -> NDArray[np.int64]:
        """Rows with the largest scores of a component, strongest first."""
        return np.argsort(-self.scores[:, component], kind="stable")[:count]

    def profile(self, classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """How far each class's mean score lies above the mean over all samples, in standard deviations.

        Args:
            classes: ``(n,)`` class of each sample.

        Returns:
            The classes, ``(k,)``, and the profile, ``(k, q)``.
        """
        _, means = group_means(self.scores, classes)
        spread = self.scores.std(0)
        return np.unique(classes), (means - self.scores.mean(0)) / np.where(spread > 0, spread, 1.0)

    def serves(self, classes: NDArray[np.int64]) -> list[list[int]]:
        """Classes that each component serves, best first; see ``SERVES``."""
        names, profile = self.profile(classes)
        ranked = np.argsort(-profile, axis=0, kind="stable")
        return [[int(names[k]) for k in ranked[:, j] if profile[k, j] >= SERVES] for j in range(profile.shape[1])]


class Match(NamedTuple):
    """Components of one decomposition found again in another.

    Attributes:
        order: ``(q,)`` for each component of the first the partner's number in the second; -1 if there is none.
        sign: ``(q,)`` 1, or -1 where the partner points the other way.
        correlation: ``(q,)`` absolute correlation of the two's scores, 0 if there is no partner.
    """

    order: NDArray[np.int64]
    sign: NDArray[np.float64]
    correlation: NDArray[np.float64]


def principal_components(contributions: NDArray[Any], count: int) -> Components:
    """PCA of contributions: directions of falling variance.

    Args:
        contributions: ``(n, c)``.
        count: How many; fewer where samples or channels are fewer.
    """
    C = contributions.astype(np.float64)
    count = min(count, *C.shape)
    model = IncrementalPCA(count) if C.size > LARGE else PCA(count, svd_solver="full")
    directions = model.fit(C).components_
    largest = directions[np.arange(count), np.abs(directions).argmax(1)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)[:, None]
    return Components("pca", directions, C @ directions.T, np.nan_to_num(model.explained_variance_ratio_))


def nonnegative_components(contributions: NDArray[Any], count: int, seed: int = 0) -> Components:
    """NMF of contributions: parts that only add up.

    Contributions have signs, so the positive and the negative part of each channel are two columns; a component's
    direction is the difference of their weights. Nothing is thrown away as by clipping at 0.

    Args:
        contributions: ``(n, c)``.
        count: How many; fewer where samples or channels are fewer.
        seed: Of the solver.
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


def match(first: NDArray[Any], second: NDArray[Any]) -> Match:
    """Find components again in another epoch or run, by what they say of the same samples.

    Channels have no identity across runs, so directions cannot be compared there; scores of the same samples can.
    The pairing maximises the sum of absolute correlations (Hungarian algorithm).

    Args:
        first: ``(n, q)`` scores of one decomposition.
        second: ``(n, p)`` scores of the other, of the same samples in the same order.
    """
    a, b = (_unit(scores.astype(np.float64)) for scores in (first, second))
    correlation = a.T @ b
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    order = np.full(first.shape[1], -1, dtype=np.int64)
    sign, strength = np.ones(len(order)), np.zeros(len(order))
    order[rows] = columns
    strength[rows] = np.abs(correlation[rows, columns])
    sign[rows] = np.where(correlation[rows, columns] < 0, -1.0, 1.0)
    return Match(order, sign, strength)


def _unit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = scores - scores.mean(0)
    norm = np.sqrt((centred**2).sum(0))
    return np.asarray(centred / np.where(norm > 0, norm, 1.0))
