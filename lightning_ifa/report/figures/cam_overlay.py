"""Draw maps over their inputs, on the common intensity scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_ifa.report.examples import candidate_groups, own_maps
from lightning_ifa.report.figures.images import GROUND, Pixels, curve, fit_pixels, gray_plane, overlay_pixels, plane
from lightning_ifa.report.labels import is_misclassified
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import FAMILY, QUIET, bare, place
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.own_map import VISIBLE

SIDE = 192


def probe_panels(report: AnalysisResult, row: int) -> list[Pixels]:
    """Draw one probe: its input if it may be shown, the label's map and, if misclassified, the prediction's map.

    Returns:
        RGB panels of one size, ``(SIDE, SIDE, 3)``.
    """
    probes, image = report.probes, probe_image(report, row)
    panels = [] if image is None else [input_panel(image, probes.table.cams[row])]
    panels.append(overlay(report, row, probes.table.cams[row]))
    if is_misclassified(report, row):
        panels.append(overlay(report, row, probes.predicted.cams[row]))
    return panels


def overlay(report: AnalysisResult, row: int, cam: NDArray[Any]) -> Pixels:
    """Lay a map over the input of a probe, ``(SIDE, SIDE, 3)``."""
    return map_panel(probe_image(report, row), cam, report.scale)


def probe_image(report: AnalysisResult, row: int) -> NDArray[Any] | None:
    """Give the input of a probe, ``(channels, *space)``; None where it may not be shown."""
    return None if report.probes.images is None else np.asarray(report.probes.images[row])


def input_panel(image: NDArray[Any], cam: NDArray[Any], height: int = SIDE, width: int = SIDE) -> Pixels:
    """Draw an input ``(channels, *space)``, ``(height, width, 3)``; a volume's slice through its map's maximum."""
    if image.ndim == 2:
        return curve(image, height, width)
    return fit_pixels(gray_plane(image, cam), height, width)


def map_panel(
    image: NDArray[Any] | None, cam: NDArray[Any], scale: IntensityScale, height: int = SIDE, width: int = SIDE
) -> Pixels:
    """Draw a map over its input, ``(height, width, 3)``; over gray where the input may not be shown."""
    if cam.ndim == 1:
        return curve(image, height, width, cam, scale)
    level = plane(cam, cam)
    ground = np.full(level.shape, GROUND, dtype=np.uint8) if image is None else gray_plane(image, cam)
    h, w = ground.shape[:2]
    share = min(height / h, width / w)
    enlarged = fit_pixels(ground, max(1, round(h * share)), max(1, round(w * share)))
    return fit_pixels(overlay_pixels(enlarged, level, scale), height, width)


def own_scale(cam: NDArray[Any]) -> IntensityScale:
    """Make a scale of a map's own range; maps on such scales do not compare."""
    low, high = float(cam.min()), float(cam.max())
    return IntensityScale(low, high if high > low else low + 1e-6)


STRIP_SIDE, SPACE = 96, 6

Place = tuple[str, int]
"""Split and row of a sample."""


def sample_panels(report: AnalysisResult, found: Place, side: int = STRIP_SIDE) -> list[Pixels]:
    """Draw a sample's input, if it may be shown, and its map on the common scale, ``(side, side, 3)`` each."""
    split, row = found
    image, cam = report.gallery.get(found), report.tables[split].cams[row]
    shown = map_panel(image, cam, report.scale, side, side)
    return [shown] if image is None else [input_panel(image, cam, side, side), shown]


def own_map_panels(report: AnalysisResult, source: str, side: int = STRIP_SIDE) -> list[Pixels]:
    """Draw a candidate's own map: the mean of the samples that carry it, and examples of both sides over their inputs.

    Returns:
        Panels of one size, none where the candidate has no map; in standard deviations of the samples that do not
        carry it, from 3 on.
    """
    maps, carries, rows = own_maps(report, source)
    if not len(maps):
        return []
    number = {int(row): i for i, row in enumerate(rows)}
    shown = [number[int(row)] for group in candidate_groups(report, source) for row in group.rows if int(row) in number]
    shown = sorted(shown, key=lambda i: not carries[i])
    mean = maps[carries].mean(0) - maps[~carries].mean(0)
    scale = IntensityScale(VISIBLE, max(VISIBLE + 1e-6, float(np.abs(maps[shown]).max(initial=2 * VISIBLE))))
    panels = [map_panel(None, mean, own_scale(np.maximum(mean, 0)), side, side)]
    return panels + [
        map_panel(report.gallery.get(("validation", int(rows[i]))), maps[i], scale, side, side) for i in shown
    ]


def strip(panels: Sequence[Pixels], space: int = SPACE) -> Pixels:
    """Put panels of one height beside each other, with white between them."""
    gap = np.full((panels[0].shape[0], space, 3), 255, dtype=np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(joined, axis=1)


def picture_layer(figure: Figure) -> Axes:
    """Make axes over a whole sheet, in inches from its top left corner: one for each picture would be slow."""
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


def draw_strip(axes: Axes, report: AnalysisResult, places: Sequence[Place], label: str = "") -> None:
    """Draw samples' inputs in a row; their maps where inputs may not be shown."""
    bare(axes)
    if places:
        axes.imshow(strip([sample_panels(report, found)[0] for found in places]), aspect="equal")
        axes.set_anchor("NW")
    axes.set_title(label, fontsize=8, color=QUIET, loc="left", pad=4, family=FAMILY, parse_math=False)
