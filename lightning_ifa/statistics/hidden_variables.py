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

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask
from lightning_ifa.statistics.reliance import reliance
from lightning_ifa.statistics.significance import Z_LIMIT, correct_for_count
from lightning_ifa.statistics.strata import centre_within

CONTINUUM = 8 / np.pi**2
"""Otsu's share of variance for the arcsine law, the most two-sided of the usual continua (normal .64, uniform .75)."""

MODES_LIMIT, SHARED_LIMIT = 0.88, 0.7
"""Shares of all variance, and of that within classes, which two modes at common positions must explain."""

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
    ordered = np.sort(values, 0)
    below = np.cumsum(ordered - ordered.mean(0), 0)[:-1]
    count = np.arange(1, n)[:, None]
    between = below**2 / count + below**2 / (n - count)
    least = max(int(np.ceil(LEAST_SIDE * n)), 2)
    between[: least - 1] = between[n - least :] = -1.0
    row, column = between.argmax(0), np.arange(values.shape[1])
    total = np.maximum(((ordered - ordered.mean(0)) ** 2).sum(0), 1e-300)
    return between[row, column] / total, (ordered[row, column] + ordered[row + 1, column]) / 2


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
    refine = _refiner(
        np.concatenate([s.values for s in signals if s.kind == "look"] or [np.empty((len(labels), 0))], 1), labels
    )
    found = []
    for signal in signals:
        modes, cuts = cut_in_two(signal.values)
        for number in _used_signals(logits, labels, signal.values, modes, cuts):
            ways = [signal.values[:, number], *refine(signal.values[:, number] > cuts[number])]
            described = [_describe(signal.kind, number, values, labels, tests) for values in ways]
            found.append(max(described, key=lambda way: (way.shared > SHARED_LIMIT, way.modes)))
    sure = [h for h in found if h.modes > MODES_LIMIT and h.shared > SHARED_LIMIT and h.z > Z_LIMIT]
    return _drop_repeats(sorted(sure, key=lambda h: -h.modes), labels)


def _used_signals(logits: Array, labels: Ints, values: Floats, modes: Floats, cuts: Floats) -> list[int]:
    """The most two-sided signals whose cut the network uses."""
    spread = centre_within(values, labels).std(0)
    modes = np.where(spread > 1e-6 * np.maximum(np.abs(values).max(0), 1e-30), modes, -1.0)
    chosen: list[int] = []
    for number in np.argsort(-modes, kind="stable")[:INSPECTED]:
        upper = (values[:, number] > cuts[number]).astype(np.float64)[:, None]
        if modes[number] < 0 or not centre_within(upper, labels).any():
            continue
        used = reliance(logits, labels, upper)
        share, z = max(used.share, used.class_shares.max() / 5), max(used.z, used.class_z.max())
        if share > LEAST_RELIANCE and z > LEAST_Z:
            chosen.append(int(number))
        if len(chosen) == REFINED:
            break
    return chosen


def _refiner(looks: Floats, labels: Ints) -> Callable[[Mask], list[Floats]]:
    """Give what predicts sides from looks, each sample by a fit without it, twice over."""
    inside = centre_within(looks, labels)
    spread = inside.std(0)
    varies = spread > 1e-6 * np.maximum(np.abs(looks).max(0, initial=0.0), 1e-30)
    if not varies.any():
        return lambda upper: []
    X, W = (v[:, varies] / spread[varies] for v in (looks - looks.mean(0), inside))
    K = W @ W.T
    inverse = np.linalg.inv(K + RIDGE * np.trace(K) / len(K) * np.eye(len(K)))
    hat, across = K @ inverse, X @ W.T @ inverse
    own = np.minimum(np.diag(hat), 0.95)

    def predict(upper: Mask) -> Floats:
        side = centre_within(upper.astype(np.float64)[:, None], labels)[:, 0]
        inside_fit = hat @ side
        return np.asarray(across @ side - own * (side - inside_fit) / (1 - own))  # what the sample adds to its own

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


def _drop_repeats(found: list[HiddenVariable], labels: Ints) -> list[HiddenVariable]:
    """Keep the strongest of those that cut alike."""
    kept: list[tuple[HiddenVariable, Floats]] = []
    for hidden in found:
        side = centre_within(hidden.upper.astype(np.float64)[:, None], labels)[:, 0]
        side = side / max(float(np.linalg.norm(side)), 1e-300)
        if all(abs(float(side @ other)) < SAME for _, other in kept):
            kept.append((hidden, side))
    return [hidden for hidden, _ in kept[:MOST_FOUND]]
