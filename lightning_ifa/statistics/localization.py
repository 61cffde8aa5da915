"""Localization: how much of each map lies outside the region where the evidence should be?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightning_ifa.statistics.arrays import Array, Floats, Mask


class Localization(NamedTuple):
    """Per sample, shape ``(n,)``, each in [0, 1]; NaN where no region is known, where it is empty, or the map is 0.

    Attributes:
        share: Share of the map's absolute values that lies outside.
        positive: Share of its positive values that lies outside.
        area: Share of the image that lies outside: what a map that knows nothing of the region would show.
    """

    share: Floats
    positive: Floats
    area: Floats

    @property
    def means(self) -> dict[str, float]:
        """Means over the samples that have a value, as ``outside_share``, ``outside_positive`` and ``outside_area``."""
        found = {f"outside_{name}": v[np.isfinite(v)] for name, v in self._asdict().items()}
        return {name: float(values.mean()) for name, values in found.items() if len(values)}


def localize(cams: Array, coverage: Array) -> Localization:
    """Measure how much of each map lies outside its region.

    A map's cells depend on more of the image than they cover, so even a network that looks at the object only shows
    some evidence outside; less than the area is what to expect, not 0.

    Args:
        cams: Maps, ``(n, *space)``.
        coverage: Share of each cell's area inside the region, ``(n, *space)``, NaN where none is known.

    >>> map, inside = np.array([[3.0, 0.0, -1.0, 0.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])
    >>> [values.round(2).tolist() for values in localize(map, inside)]
    [[0.25], [0.0], [0.75]]
    """
    maps, inside = (v.reshape(len(v), -1).astype(np.float64) for v in (cams, coverage))
    known = inside.max(1) > 0  # False for NaN as well
    area = np.where(known, 1 - inside.mean(1), np.nan)
    share, positive = (_share(v, 1 - inside, known) for v in (np.abs(maps), np.maximum(maps, 0)))
    return Localization(share, positive, area)


def _share(energy: Floats, beyond: Floats, known: Mask) -> Floats:
    total = energy.sum(1)
    measured = known & (total > 0)
    away = (energy * np.where(measured[:, None], beyond, 0.0)).sum(1)
    return np.where(measured, away / np.where(measured, total, 1.0), np.nan)


def depth_of(cam: Array, length: int) -> int:
    """Give the index, among ``length`` slices along the first axis, of that through a volume map's maximum."""
    depth = int(np.unravel_index(int(cam.argmax()), cam.shape)[0])
    return max(0, int((depth + 0.5) * length / len(cam) - 0.5))
