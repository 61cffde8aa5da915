"""Importance matrix: which features speak for which class, and in which order they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Mode = Literal["difference", "top", "reverse", "frequency", "random"]
MODES: tuple[str, ...] = get_args(Mode)

STRONGEST_SHARE = 0.1
"""A channel counts as used by a sample if it is among this share of the strongest."""


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


def frequency(
    contributions: NDArray[Any], classes: NDArray[np.int64], included: NDArray[np.bool_], share: float = STRONGEST_SHARE
) -> NDArray[np.float64]:
    """How often each channel is among the strongest of a sample, per class, in [0, 1].

    Args:
        contributions: ``(n, c)``; strength is their absolute value.
        classes: ``(n,)`` the class explained.
        included: ``(n,)`` mask of the samples that count.
        share: Of the channels that are called the strongest, at least one.

    Returns:
        ``(k, c)``, rows as in ``Importance.classes``.
    """
    c = np.abs(contributions[included])
    labels = classes[included]
    strongest = max(1, round(share * c.shape[1]))
    used = np.zeros(c.shape)
    np.put_along_axis(used, np.argpartition(-c, strongest - 1, axis=1)[:, :strongest], 1.0, axis=1)
    return np.array([used[labels == name].mean(0) for name in np.unique(labels)]).reshape(-1, c.shape[1])


def preference(
    mode: str,
    contributions: NDArray[Any],
    classes: NDArray[np.int64],
    included: NDArray[np.bool_],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Say how much each class wants each channel, by one of the ranking modes.

    ``"difference"``: ``|D[k]|``, the paper's ``diff_top``; where there is one class only, as for regression, ``D`` is
    zero and ``|I|`` is taken. ``"top"``: ``I[k]``. ``"reverse"``: ``-|D[k]|``. ``"frequency"``: see ``frequency``.
    ``"random"``: the control.

    Args:
        mode: One of ``MODES``.
        contributions: ``(n, c)``.
        classes: ``(n,)`` the class explained.
        included: ``(n,)`` mask of the samples that count.
        seed: Of the random mode.

    Returns:
        ``(k, c)``, larger is taken first; rows are the classes with an included sample, sorted.

    Raises:
        ValueError: The mode is unknown, or no sample is included.
    """
    if mode not in MODES:
        raise ValueError(f"unknown ranking mode {mode!r}; choose one of {', '.join(MODES)}")
    found = importance(contributions, classes, included)
    if not len(found.classes):
        raise ValueError("no sample is included, so no channel can be ranked")
    if mode == "frequency":
        return frequency(contributions, classes, included)
    if mode == "random":
        return np.random.default_rng(seed).random(found.matrix.shape)
    if mode == "top":
        return found.matrix
    strength = np.abs(found.difference if len(found.classes) > 1 else found.matrix)
    return -strength if mode == "reverse" else strength


def order(wanted: NDArray[np.float64], row: int | None = None) -> NDArray[np.int64]:
    """Put the channels in the order in which they are taken, ``(c,)``.

    Args:
        wanted: ``(k, c)`` from ``preference``.
        row: One class; None for all jointly, by the class that wants a channel most.
    """
    return np.argsort(-(wanted.max(0) if row is None else wanted[row]), kind="stable")
