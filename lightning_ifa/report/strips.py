"""Rows of samples: inputs, or their maps where no pixel may be shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.overlay import input_panel, map_panel
from lightning_ifa.report.planes import Pixels
from lightning_ifa.report.style import FAMILY, QUIET, bare

SIDE, SPACE = 96, 6

Place = tuple[str, int]
"""Split and row of a sample."""


def sample_panels(report: FeatureReport, place: Place, side: int = SIDE) -> list[Pixels]:
    """A sample's input, if it may be shown, and its map on the common scale, ``(side, side, 3)`` each."""
    split, row = place
    image, cam = report.gallery.get(place), report.tables[split].cams[row]
    shown = map_panel(image, cam, report.scale, side, side)
    return [shown] if image is None else [input_panel(image, cam, side, side), shown]


def strip(panels: Sequence[Pixels], space: int = SPACE) -> Pixels:
    """Put panels of one height beside each other, with white between them."""
    gap = np.full((panels[0].shape[0], space, 3), 255, dtype=np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(joined, axis=1)


def draw_panels(axes: Axes, panels: Sequence[Pixels]) -> None:
    """Draw panels in a row from the left."""
    bare(axes)
    if panels:
        axes.imshow(strip(panels), aspect="equal")
        axes.set_anchor("NW")


def draw_strip(axes: Axes, report: FeatureReport, places: Sequence[Place], label: str = "") -> None:
    """Draw samples' inputs in a row; their maps where inputs may not be shown."""
    draw_panels(axes, [sample_panels(report, place)[0] for place in places])
    axes.set_title(label, fontsize=8, color=QUIET, loc="left", pad=2, family=FAMILY, parse_math=False)
