"""Importance: how much each channel contributes to each class, and the order in which channels are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask

Mode = Literal["difference", "top", "reverse", "frequency", "random"]
MODES: tuple[str, ...] = get_args(Mode)

STRONGEST_SHARE = 0.1
"""A channel counts as used by a sample if it is among this share of the strongest."""


@dataclass(frozen=True)
class Importance:
    """Mean contributions over correctly classified samples (IFA paper, feature decomposition).

    Attributes:
        classes: The classes that have a correctly classified sample, sorted, ``(k,)``.
        counts: Number of such samples, ``(k,)``.
        matrix: Mean contribution ``I[k]``, ``(k, c)``, units of the score.
        overall: Mean contribution over all these samples, ``I_all``, ``(c,)``.
        standard_error: Standard error of ``matrix``, ``(k, c)``; NaN for a class with one sample.
    """

    classes: Ints
    counts: Ints
    matrix: Floats
    overall: Floats
    standard_error: Floats

    @property
    def difference(self) -> Floats:
        """``D[k] = I[k] - I_all``, shape ``(k, c)``."""
        return self.matrix - self.overall

    def ranking(self, row: int) -> Ints:
        """Channels in the order of falling ``|D[row]|`` (the paper's ``diff_top``), shape ``(c,)``."""
        return np.argsort(-np.abs(self.difference[row]), kind="stable")


def importance(contributions: Array, classes: Ints, included: Mask) -> Importance:
    """Average the contributions of each class.

    Args:
        contributions: Contributions of n samples and c channels, ``(n, c)``.
        classes: Class explained, ``(n,)``; all 0 for regression.
        included: Which samples count, ``(n,)``: correctly classified ones, or all for regression.
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


def frequency(contributions: Array, classes: Ints, included: Mask, share: float = STRONGEST_SHARE) -> Floats:
    """Count how often each channel is among the strongest of a sample, per class, in [0, 1].

    Args:
        contributions: Contributions, ``(n, c)``; strength is their absolute value.
        classes: Class explained, ``(n,)``.
        included: Which samples count, ``(n,)``.
        share: Share of the channels that are called the strongest; at least one channel is.

    Returns:
        Frequencies, ``(k, c)``, rows as in ``Importance.classes``.
    """
    c = np.abs(contributions[included])
    labels = classes[included]
    strongest = max(1, round(share * c.shape[1]))
    used = np.zeros(c.shape)
    np.put_along_axis(used, np.argpartition(-c, strongest - 1, axis=1)[:, :strongest], 1.0, axis=1)
    return np.array([used[labels == name].mean(0) for name in np.unique(labels)]).reshape(-1, c.shape[1])


def preference(mode: str, contributions: Array, classes: Ints, included: Mask, seed: int = 0) -> Floats:
    """Rate how strongly each class prefers each channel, by one of the ranking modes.

    ``"difference"``: ``|D[k]|``, the paper's ``diff_top``; where there is one class only, as for regression, ``D`` is
    zero and ``|I|`` is taken. ``"top"``: ``I[k]``. ``"reverse"``: ``-|D[k]|``. ``"frequency"``: see ``frequency``.
    ``"random"``: the control.

    Args:
        mode: One of ``MODES``.
        contributions: Contributions, ``(n, c)``.
        classes: Class explained, ``(n,)``.
        included: Which samples count, ``(n,)``.
        seed: Seed of the random mode.

    Returns:
        Preferences, ``(k, c)``, larger is taken first; rows are the classes with an included sample, sorted.

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


def order(preferences: Floats, row: int | None = None) -> Ints:
    """Put the channels in the order in which they are taken, ``(c,)``.

    Args:
        preferences: Result of ``preference``, ``(k, c)``.
        row: Row of one class; None for all jointly, each channel by the class that prefers it most.
    """
    return np.argsort(-(preferences.max(0) if row is None else preferences[row]), kind="stable")
