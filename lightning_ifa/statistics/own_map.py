"""The map of a confounder candidate: where in the image does it act on the decision?

A class's map hides what moves the class only a little. Here the scores are projected on the direction in which the
candidate moves them within classes, and what remains on the map is the candidate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Ints, Mask, centre_rows
from lightning_ifa.statistics.hidden_variables import cut_in_two
from lightning_ifa.statistics.strata import centre_within

GLOBAL_LIMIT = 0.5
"""Share of the cells above which a difference has no place."""

VISIBLE = 3.0
"""Standard deviations of the other side from which on a cell of a sample's map stands out."""

LEAST_SAMPLES = 4  # two on each side


class OwnMap(NamedTuple):
    """Where a candidate acts.

    Attributes:
        maps: Each sample's own map, in standard deviations of the same cell among samples without it, ``(n, *cells)``.
        carries: Which samples lie on the side that shows it, ``(n,)``.
        difference: What the side adds to the map within classes, in the unit of the evidence, ``(*cells,)``.
    """

    maps: Floats
    carries: Mask
    difference: Floats

    @property
    def spread(self) -> float:
        """Share of the cells that hold four fifths of what the side adds, in [0, 1]."""
        gain = np.sort(np.maximum(self.difference, 0).ravel())[::-1]
        held = np.cumsum(gain) / max(float(gain.sum()), 1e-300)
        return float((held < 0.8).sum() + 1) / len(held)

    @property
    def peak(self) -> tuple[int, ...]:
        """The cell to which the side adds most."""
        cell = np.unravel_index(int(self.difference.argmax()), self.difference.shape)
        return tuple(int(place) for place in cell)

    @property
    def has_place(self) -> bool:
        """Whether the difference lies in few cells; a look of the whole image has no place."""
        return self.spread < GLOBAL_LIMIT

    @property
    def peaks(self) -> Ints:
        """Flat number of the cell where each sample's map peaks, -1 where none stands out, ``(n,)``."""
        flat = self.maps.reshape(len(self.maps), -1)
        return np.where(flat.max(1) > VISIBLE, flat.argmax(1), -1)


def project_maps(evidence: Array, logits: Array, labels: Ints, values: Floats) -> Floats:
    """Project each sample's class maps on the direction in which a variable moves the logits within classes.

    ``sum_k beta_k / |beta| M_k`` with ``beta_k`` the within-class slope of the centred logit k on the variable.

    Args:
        evidence: Each cell's contribution to the score of each class, ``(n, k, *cells)``.
        logits: ``(n, k)``.
        labels: Class of each sample, ``(n,)``.
        values: The variable, ``(n,)``.

    Returns:
        ``(n, *cells)``, positive where a cell moves the decision as larger values do.
    """
    inside = centre_within(values.astype(np.float64)[:, None], labels)[:, 0]
    beta = inside @ centre_within(centre_rows(logits), labels)
    beta = beta / max(float(np.linalg.norm(beta)), 1e-300)
    return np.asarray(np.einsum("nk...,k->n...", evidence.astype(np.float64), beta))


def own_map(
    evidence: Array, logits: Array, labels: Ints, values: Floats, pictures: Array | None = None
) -> OwnMap | None:
    """Compare the projected maps on both sides of a variable; None where it has one side only.

    Which side carries what acts is not known: it is taken to be the one whose mean picture shows more where the maps of
    the two sides differ. Without pictures it is the ones of zeros and ones, and of other variables the side
    whose maps lie further from each sample's usual cell there.

    Args:
        evidence: As for ``project_maps``, like ``logits``, ``labels`` and ``values``.
        logits: See there.
        labels: See there.
        values: See there.
        pictures: The inputs in little, ``(n, height, width)``, or None.
    """
    if len(values) < LEAST_SAMPLES:
        return None
    middle = (values.min() + values.max()) / 2 if len(np.unique(values)) == 2 else cut_in_two(values[:, None])[1][0]
    upper = values > middle
    if min(int(upper.sum()), int((~upper).sum())) < 2 or not centre_within(upper[:, None], labels).any():
        return None
    maps = project_maps(evidence, logits, labels, values)
    if pictures is not None and maps.ndim == 3:
        carries = _shows_more(maps, upper, labels, pictures)
    else:
        carries = set(np.unique(values)) == {0.0, 1.0} or _stands_out(maps, upper)
    if carries:
        return _standardise(maps, upper, labels)
    return _standardise(-maps, ~upper, labels)


def _stands_out(maps: Floats, side: Mask) -> bool:
    flat = maps.reshape(len(maps), -1)
    differs = np.abs(flat[side].mean(0) - flat[~side].mean(0))
    away = np.abs(flat - np.median(flat, axis=1, keepdims=True))
    return float(differs @ (away[side].mean(0) - away[~side].mean(0))) > 0


def _shows_more(maps: Floats, side: Mask, labels: Ints, pictures: Array) -> bool:
    """Whether there is more to see in a side's mean picture than in the other's where the maps differ.

    That is: edges, and departures from the picture's usual level, each relative to both sides' sum.
    """
    rows, columns = (np.arange(n) * m // n for n, m in zip(pictures.shape[1:], maps.shape[1:], strict=True))
    weight = (_differ(maps, side, labels) ** 2)[np.ix_(rows, columns)]
    seen = []
    for one in (side, ~side):
        mean = _class_mean(pictures, one, labels)
        edges = sum(step**2 for step in np.gradient(mean))
        seen.append([float((weight * each).sum()) for each in (edges, np.abs(mean - np.median(mean)))])
    return bool(sum((a - b) / max(a + b, 1e-300) for a, b in zip(*seen, strict=True)) > 0)


def _class_mean(values: Array, side: Mask, labels: Ints) -> Floats:
    """Mean of the classes' means on a side, of the classes that lie on both."""
    both = [label for label in np.unique(labels) if side[labels == label].any() and not side[labels == label].all()]
    return np.asarray(np.mean([values[side & (labels == label)].mean(0) for label in both], 0), dtype=np.float64)


def _differ(maps: Floats, side: Mask, labels: Ints) -> Floats:
    """What a side adds within classes, ``(*cells,)``."""
    inside = centre_within(side.astype(np.float64)[:, None], labels)[:, 0]
    return np.asarray(np.einsum("n,n...->...", inside, maps) / max(float(inside @ inside), 1e-300))


def _standardise(maps: Floats, carries: Mask, labels: Ints) -> OwnMap:
    others = maps[~carries]
    spread = others.std(0)
    standard = (maps - others.mean(0)) / np.maximum(spread + 0.1 * spread.max(), 1e-300)
    return OwnMap(standard, carries, _differ(maps, carries, labels))
