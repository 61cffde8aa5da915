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


def own_map(evidence: Array, logits: Array, labels: Ints, values: Floats) -> OwnMap | None:
    """Compare the projected maps on both sides of a variable; None where it has one side only.

    Of zeros and ones, the ones carry what acts. Of other variables the side is not known: it is taken to be the one
    whose maps lie further from each sample's usual cell where the two sides differ. The arguments are those of
    ``project_maps``.
    """
    middle = (values.min() + values.max()) / 2 if len(np.unique(values)) == 2 else cut_in_two(values[:, None])[1][0]
    upper = values > middle
    if min(int(upper.sum()), int((~upper).sum())) < 2:
        return None
    maps = project_maps(evidence, logits, labels, values)
    if set(np.unique(values)) == {0.0, 1.0} or _stands_out(maps, upper):
        return _standardise(maps, upper, labels)
    return _standardise(-maps, ~upper, labels)


def _stands_out(maps: Floats, side: Mask) -> bool:
    flat = maps.reshape(len(maps), -1)
    differs = np.abs(flat[side].mean(0) - flat[~side].mean(0))
    away = np.abs(flat - np.median(flat, axis=1, keepdims=True))
    return float(differs @ (away[side].mean(0) - away[~side].mean(0))) > 0


def _standardise(maps: Floats, carries: Mask, labels: Ints) -> OwnMap:
    others = maps[~carries]
    spread = others.std(0)
    standard = (maps - others.mean(0)) / np.maximum(spread + 0.1 * spread.max(), 1e-300)
    side = centre_within(carries.astype(np.float64)[:, None], labels)[:, 0]
    difference = np.einsum("n,n...->...", side, maps) / max(float(side @ side), 1e-300)
    return OwnMap(standard, carries, difference)
