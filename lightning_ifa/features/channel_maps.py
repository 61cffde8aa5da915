"""What single channels see: their own maps on a few samples, and how much of the input one position looks at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.feature_batch import FeatureBatch

HELD = 0.9
"""Share of what a change of one spot moves in the maps that the receptive field is to hold."""

STRONG = 3.0
"""How far the spot is changed, in standard deviations of the inputs."""


@dataclass(frozen=True, eq=False)
class ChannelMaps:
    """The contributions of single channels, position by position.

    Attributes:
        maps: Channel and validation row to ``A * G`` of that channel, ``(*space)`` float32, units of the score.
        receptive_field: Share of the input's extent along each axis that a position sees, ``(space,)``: measured by
            changing one spot in the middle of a few inputs; the smallest box that holds 90 % of what that moves. By
            symmetry, what a spot reaches is what a position sees. None where nothing was measured.
    """

    maps: Mapping[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    receptive_field: tuple[float, ...] | None = None


class ChannelMapBuilder:
    """Gathers the maps of some channels, batch by batch, from a pass over some of a table's rows.

    Args:
        table: The table.
        wanted: Channel to the rows on which it is looked at.
    """

    def __init__(self, table: FeatureTable, wanted: Mapping[int, NDArray[np.int64]]) -> None:
        self._table, self._wanted = table, wanted
        self._maps: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._seen: tuple[float, ...] | None = None

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that are looked at, sorted, ``(m,)``."""
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *self._wanted.values()])).astype(np.int64)

    def add(self, batch: FeatureBatch, rows: NDArray[np.int64]) -> None:
        """Look at those of a batch's rows, ``(n,)``, that are wanted; the network runs only if there is one."""
        if not np.isin(rows, self.rows).any():
            return
        A, G = batch.gradient(self._table.explained[rows])
        for place, row in enumerate(rows):
            for channel in (channel for channel, chosen in self._wanted.items() if row in chosen):
                self._maps[channel, int(row)] = (A[place, channel] * G[place, channel]).numpy(force=True)

    def measure(self, batch: FeatureBatch) -> None:
        """Measure the receptive field, once; without it the pictures show a few positions, and say so."""
        if self._seen is None and self._maps:
            with suppress(Exception):  # the user's network on an input that is not theirs
                self._seen = receptive_field(batch)

    def maps(self) -> ChannelMaps:
        """Give what was gathered."""
        return ChannelMaps(self._maps, self._seen)


def receptive_field(batch: FeatureBatch) -> tuple[float, ...] | None:
    """Measure how much of the input one position of the target layer sees, as shares of its axes."""
    found: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        found.append(maps.detach().float().clone())
        return maps

    pictures = batch.pictures.clone()
    if not pictures.is_floating_point() or pictures.dim() < 3:
        return None
    spot: Any = (..., *(edge // 2 for edge in pictures.shape[2:]))
    changed = pictures.clone()
    changed[spot] += STRONG * pictures.std().clamp_min(1e-6)
    batch.rerun(pictures, keep)
    batch.rerun(changed, keep)
    moved = (found[1] - found[0]).abs().flatten(0, 1).sum(0).numpy(force=True)
    return _extent(moved) if np.isfinite(moved).all() and moved.sum() > 0 else None


def _extent(moved: NDArray[Any]) -> tuple[float, ...]:
    """Give the share of each axis that holds most of what was moved, on both sides of the middle alike."""
    shares = []
    for axis, size in enumerate(moved.shape):
        profile = moved.sum(tuple(other for other in range(moved.ndim) if other != axis))
        away = np.abs((np.arange(size) + 0.5) / size - 0.5)
        order = np.argsort(away, kind="stable")
        reached = order[np.searchsorted(np.cumsum(profile[order]), HELD * profile.sum())]
        shares.append(float(min(1.0, 2 * away[reached] + 1 / size)))
    return tuple(shares)
