"""Importance matrix: which features speak for which class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Importance:
    """Mean contributions over correctly classified samples (IFA paper, feature decomposition).

    Attributes:
        classes: ``(k,)`` the classes that have a correctly classified sample, sorted.
        counts: ``(k,)`` how many.
        matrix: ``(k, c)`` mean contribution ``I[k]``, units of the score.
        overall: ``(c,)`` mean over all of them, ``I_all``.
        standard_error: ``(k, c)`` of ``matrix``; NaN for a class with one sample.
    """

    classes: NDArray[np.int64]
    counts: NDArray[np.int64]
    matrix: NDArray[np.float64]
    overall: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    @property
    def difference(self) -> NDArray[np.float64]:
        """``D[k] = I[k] - I_all``, shape ``(k, c)``."""
        return self.matrix - self.overall

    def ranking(self, row: int) -> NDArray[np.int64]:
        """Channels in the order of falling ``|D[row]|`` (the paper's ``diff_top``), shape ``(c,)``."""
        return np.argsort(-np.abs(self.difference[row]), kind="stable")


def importance(contributions: NDArray[Any], classes: NDArray[np.int64], included: NDArray[np.bool_]) -> Importance:
    """Average the contributions of each class.

    Args:
        contributions: ``(n, c)``.
        classes: ``(n,)`` the class explained; all 0 for regression.
        included: ``(n,)`` mask of the samples that count: correctly classified ones, or all for regression.
    """
    c = contributions[included].astype(np.float64)
    labels = classes[included]
    names, counts = np.unique(labels, return_counts=True)
    shape = (len(names), contributions.shape[1])
    matrix, error = np.empty(shape), np.full(shape, np.nan)
    for row, name in enumerate(names):
        own = c[labels == name]
        matrix[row] = own.mean(0)
        if len(own) > 1:
            error[row] = own.std(0, ddof=1) / np.sqrt(len(own))
    overall = c.mean(0) if len(c) else np.zeros(shape[1])
    return Importance(names, counts, matrix, overall, error)
