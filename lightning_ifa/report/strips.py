"""Rows of samples: inputs, or their maps where no pixel may be shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.overlay import input_panel, map_panel
from lightning_ifa.report.planes import Pixels
from lightning_ifa.report.style import FAMILY, QUIET, bare, place

SIDE, SPACE = 96, 6

Place = tuple[str, int]
"""Split and row of a sample."""


def sample_panels(report: FeatureReport, found: Place, side: int = SIDE) -> list[Pixels]:
    """A sample's input, if it may be shown, and its map on the common scale, ``(side, side, 3)`` each."""
    split, row = found
    image, cam = report.gallery.get(found), report.tables[split].cams[row]
    shown = map_panel(image, cam, report.scale, side, side)
    return [shown] if image is None else [input_panel(image, cam, side, side), shown]


def strip(panels: Sequence[Pixels], space: int = SPACE) -> Pixels:
    """Put panels of one height beside each other, with white between them."""
    gap = np.full((panels[0].shape[0], space, 3), 255, dtype=np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(joined, axis=1)


def picture_layer(figure: Figure) -> Axes:
    """Axes over a whole sheet, in inches from its top left corner: dozens of axes would cost more than the pictures."""
    across, down = figure.get_size_inches()
    axes = place(figure, 0, 0, across, down)
    bare(axes)
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    return axes


def draw_panels(layer: Axes, panels: Sequence[Pixels], left: float, top: float, height: float) -> None:
    """Draw panels in a row onto a picture layer, in inches."""
    if panels:
        pixels = strip(panels)
        width = height * pixels.shape[1] / pixels.shape[0]
        layer.imshow(pixels, extent=(left, left + width, top + height, top), aspect="auto", origin="upper")


def draw_strip(axes: Axes, report: FeatureReport, places: Sequence[Place], label: str = "") -> None:
    """Draw samples' inputs in a row; their maps where inputs may not be shown."""
    bare(axes)
    if places:
        axes.imshow(strip([sample_panels(report, found)[0] for found in places]), aspect="equal")
        axes.set_anchor("NW")
    axes.set_title(label, fontsize=8, color=QUIET, loc="left", pad=4, family=FAMILY, parse_math=False)
