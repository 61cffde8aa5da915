"""Hidden variables: what nobody named, found by its modes and recovered as a column.

What a confounder adds to the evidence is the same whatever the class and comes in modes: a tag is there or not, an
image is from one camera or the other. Content comes in a continuum, and differs by class. So signals of many places and
looks are cut in two (Otsu 1979), and kept where the two modes explain more of the spread than a continuum can, at
positions that the classes share. The cut is then a column like any other, to be tested for reliance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.lapack import strtri

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.reliance import reliance
from lightning_ifa.statistics.significance import Z_LIMIT, correct_for_count
from lightning_ifa.statistics.strata import centre_within, group_means

CONTINUUM = 8 / np.pi**2
"""Otsu's share of variance for the arcsine law, the most two-sided of the usual continua (normal .64, uniform .75)."""

MODES_LIMIT, SHARED_LIMIT = 0.88, 0.7
"""Shares of all variance, and of that within classes, which two modes at common positions must explain."""

CLASSES_TO_SPARE = 5
"""Among as many classes or more, both modes must be seen without the class that most of the smaller side comes from:
else the side is little but that class, and what looks like it."""

LEAST_SIDE = 0.02  # share of the samples that lies on the smaller side
LEAST_RELIANCE, LEAST_Z = 0.01, 2.0  # of a cut that is worth refining: what is not used confounds nothing
LEAST_SAMPLES = 30
REFINED = 4  # signals of each kind that are refined
INSPECTED = 20  # signals of each kind whose use is looked at
RIDGE = 0.3
SAME = 0.6  # correlation within classes from which on two columns are one
MOST_FOUND = 3


class Signal(NamedTuple):
    """Many numbers a sample, of which some may show modes.

    Attributes:
        kind: ``"place"`` or ``"look"``.
        values: ``(n, m)``.
    """

    kind: str
    values: Floats


class HiddenVariable(NamedTuple):
    """A column that was recovered.

    Attributes:
        kind: Of the signal in which it was seen first.
        number: Of the signal, a column of its values.
        values: Position of each sample along the direction that parts the modes; larger on the upper side, ``(n,)``.
        upper: Which samples lie on the upper side, ``(n,)``.
        modes: Share of the variance that the two modes explain, in [0, 1].
        shared: Share of the variance within classes that modes at common positions explain.
        z: How sure it is that these are modes and no continuum, corrected for the number of signals.
        tests: Number of signals among which it was found.
    """

    kind: str
    number: int
    values: Floats
    upper: Mask
    modes: float
    shared: float
    z: float
    tests: int


def place_signals(evidence: Array, labels: Ints) -> Floats:
    """Project each cell's evidence on its first direction within classes.

    Args:
        evidence: Each cell's contribution to the score of each class, ``(n, k, cells)``.
        labels: Class of each sample, ``(n,)``.

    Returns:
        ``(n, cells)``, not centred: what the classes share keeps its place.
    """
    e = evidence.astype(np.float64)
    e = e - e.mean(1, keepdims=True)
    inside = centre_within(e.reshape(len(e), -1), labels).reshape(e.shape)
    covariance = np.einsum("nkp,nlp->pkl", inside, inside, optimize=True)
    direction = np.linalg.eigh(covariance)[1][:, :, -1]
    return np.asarray(np.einsum("nkp,pk->np", e, direction, optimize=True))


def cut_in_two(values: Floats) -> tuple[Floats, Floats]:
    """Cut every column where the halves differ most (Otsu 1979).

    Args:
        values: ``(n, m)``.

    Returns:
        The share of variance that lies between the halves, and the cut, both ``(m,)``.

    >>> cut_in_two(np.array([[0.0], [1.0], [10.0], [11.0]]))
    (array([0.99009901]), array([5.5]))
    """
    n = len(values)
    ordered = np.sort(values.T)  # along the rows, which lie together in memory
    centred = ordered - ordered.mean(1, keepdims=True)
    total = np.maximum(np.einsum("mn,mn->m", centred, centred), 1e-300)
    least = max(int(np.ceil(LEAST_SIDE * n)), 2)
    below = np.cumsum(centred, 1)[:, least - 1 : n - least]
    count = np.arange(least, n - least + 1)
    between = below * below * (1 / count + 1 / (n - count))
    column, signal = between.argmax(1), np.arange(values.shape[1])
    cut = column + least - 1
    return between[signal, column] / total, (ordered[signal, cut] + ordered[signal, cut + 1]) / 2


def find_hidden(logits: Array, labels: Ints, signals: list[Signal]) -> list[HiddenVariable]:
    """Look for modes that the classes share and the network uses, strongest first.

    The most two-sided signals whose cut the network uses are refined: the side is predicted from all looks (ridge
    regression within classes), each sample by a fit that leaves it out, and cut again. A signal counts only if its two
    modes explain significantly more than those of the arcsine law, a continuum with a rim on both sides, after
    correction for the number of signals, and if positions common to all classes explain the spread within them.

    Args:
        logits: Logits of n samples for k classes, ``(n, k)``.
        labels: Class of each sample, a column of ``logits``, ``(n,)``.
        signals: Places and looks.
    """
    tests = sum(signal.values.shape[1] for signal in signals)
    if not tests or len(np.unique(labels)) < 2 or len(labels) < LEAST_SAMPLES:
        return []
    looks = [signal.values for signal in signals if signal.kind == "look"]
    refine = _refiner(np.concatenate(looks or [np.empty((len(labels), 0))], 1), labels)
    found = []
    for signal in signals:
        modes, cuts = cut_in_two(signal.values)
        for number in _used_signals(logits, labels, signal.values, modes, cuts):
            ways = [signal.values[:, number], *refine(signal.values[:, number] > cuts[number])]
            described = [_describe(signal.kind, number, values, labels, tests) for values in ways]
            found.append(max(described, key=lambda way: (way.shared > SHARED_LIMIT, way.modes)))
    sure = [h for h in found if h.modes > MODES_LIMIT and h.shared > SHARED_LIMIT and h.z > Z_LIMIT]
    sure = [h for h in sure if _modes_elsewhere(h, labels) > MODES_LIMIT]
    return _drop_repeats(sorted(sure, key=lambda h: -h.modes), labels)


def _used_signals(logits: Array, labels: Ints, values: Floats, modes: Floats, cuts: Floats) -> list[int]:
    """The most two-sided signals whose cut the network uses."""
    spread = centre_within(values, labels).std(0)
    varies = spread > 1e-6 * np.maximum(np.abs(values).max(0), 1e-30)
    numbers = [int(i) for i in np.argsort(-modes, kind="stable") if varies[i]][:INSPECTED]
    sides = (values[:, numbers] > cuts[numbers]).astype(np.float64)
    chosen: list[int] = []
    for number, side, inside in zip(numbers, sides.T, centre_within(sides, labels).T, strict=True):
        if not inside.any():
            continue
        used = reliance(logits, labels, side[:, None])
        share, z = max(used.share, used.class_shares.max() / 5), max(used.z, used.class_z.max())
        if share > LEAST_RELIANCE and z > LEAST_Z:
            chosen.append(number)
        if len(chosen) == REFINED:
            break
    return chosen


def _refiner(looks: Floats, labels: Ints) -> Callable[[Mask], list[Floats]]:
    """Give what predicts sides from looks (ridge regression within classes), each sample by a fit without it.

    With ``K = W W'`` of the looks W centred within classes and ``B = (K + a I)^-1``, the fit of a side s is
    ``K B s = s - a B s``, and the classes' own looks add ``(X - W) W' B s``. With ``K + a I = L L'`` and ``R = L^-1``,
    ``B = R' R``.
    """
    inside = centre_within(looks, labels)
    spread = inside.std(0)
    varies = spread > 1e-6 * np.maximum(np.abs(looks).max(0, initial=0.0), 1e-30)
    if not varies.any():
        return lambda upper: []
    W = (inside[:, varies] / spread[varies]).astype(np.float32)
    position, means = group_means(looks[:, varies], labels)
    offsets = (means - looks[:, varies].mean(0)) / spread[varies]
    K = W @ W.T
    ridge = RIDGE * np.trace(K) / len(K)  # large enough for single precision
    K[np.diag_indices_from(K)] += ridge
    root, _ = strtri(cholesky(K, lower=True, overwrite_a=True, check_finite=False), lower=1)
    own = np.minimum(1 - ridge * np.einsum("ij,ij->j", root, root), 0.95)

    def predict(upper: Mask) -> Floats:
        side = centre_within(upper.astype(np.float64)[:, None], labels)[:, 0]
        weights = root.T @ (root @ side.astype(np.float32))
        fit = side - ridge * weights
        across = offsets @ (W.T @ weights)
        return np.asarray(fit + across[position] - own * (side - fit) / (1 - own))  # what a sample adds to its own

    def refine(upper: Mask) -> list[Floats]:
        first = predict(upper)
        return [predict(first > cut_in_two(first[:, None])[1][0])]

    return refine


def _describe(kind: str, number: int, values: Floats, labels: Ints, tests: int) -> HiddenVariable:
    modes, cut = (float(found[0]) for found in cut_in_two(values[:, None]))
    upper = values > cut
    if upper.all() or not upper.any():  # one value only
        return HiddenVariable(kind, number, values, upper, 0.0, 0.0, 0.0, tests)
    sides = np.where(upper, values[upper].mean(), values[~upper].mean())
    left, total = (values - sides) ** 2, (values - values.mean()) ** 2
    influence = ((1 - modes) * total - left) / max(total.mean(), 1e-300)
    error = max(float(influence.std()) / np.sqrt(len(values)), 1e-9)
    within = float((centre_within(values[:, None], labels) ** 2).sum())
    shared = 1 - float(left.sum()) / max(within, 1e-300)
    z = correct_for_count((modes - CONTINUUM) / error, tests)
    return HiddenVariable(kind, number, values, upper, modes, shared, z, tests)


def _modes_elsewhere(hidden: HiddenVariable, labels: Ints) -> float:
    """Share of variance that the modes explain without the class that most of the smaller side comes from."""
    classes, position = np.unique(labels, return_inverse=True)
    if len(classes) < CLASSES_TO_SPARE:
        return hidden.modes
    smaller = hidden.upper if hidden.upper.mean() < 0.5 else ~hidden.upper
    others = position != np.bincount(position[smaller]).argmax()
    return float(cut_in_two(hidden.values[others, None])[0][0])


def _drop_repeats(found: list[HiddenVariable], labels: Ints) -> list[HiddenVariable]:
    """Keep the strongest of those that cut alike."""
    kept: list[tuple[HiddenVariable, Floats]] = []
    for hidden in found:
        side = centre_within(hidden.upper.astype(np.float64)[:, None], labels)[:, 0]
        side = side / max(float(np.linalg.norm(side)), 1e-300)
        if all(abs(float(side @ other)) < SAME for _, other in kept):
            kept.append((hidden, side))
    return [hidden for hidden, _ in kept[:MOST_FOUND]]
