"""Draw a probe as one square picture for MLflow's image cards, readable as their thumbnail of 256 pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_ifa.report.figures.cam_overlay import input_panel, map_panel, own_scale, probe_image
from lightning_ifa.report.figures.images import Pixels, fit_pixels, plane
from lightning_ifa.report.labels import is_misclassified, probe_lines
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import FAINT, QUIET, heat, typeface
from lightning_ifa.statistics.intensity_scale import IntensityScale

CELL, GAP = 192, 6
EDGE = 2 * CELL + GAP
THIRD = (EDGE - 2 * GAP) // 3
STRIP = 118  # height of a signal
BAR = 14


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int


Placed = list[tuple[Box, Pixels]]


def probe_picture(report: AnalysisResult, row: int, stretched: bool = False) -> Image.Image:
    """Draw a probe: its input and the map of its label, label and prediction, the colour bar of the scale.

    The fourth quarter shows the prediction's map, or the bare map where the prediction is right. A volume shows its
    three slices through the map's maximum, a signal its curves.

    Args:
        report: The report.
        row: Row of ``report.probes.table``.
        stretched: Whether to stretch each map over its own range instead of the common scale. Such maps do not
            compare: one without evidence looks as strong as any other.
    """
    cam = report.probes.table.cams[row]
    scale = own_scale(cam) if stretched else report.scale
    layout = {1: _signal, 3: _volume}.get(cam.ndim, _image)
    panels, box = layout(report, row, scale)
    picture = Image.new("RGB", (EDGE, EDGE), "white")
    for place, pixels in panels:
        picture.paste(Image.fromarray(pixels), place[:2])
    _write(picture, box, probe_lines(report, row), scale)
    return picture


def _image(report: AnalysisResult, row: int, scale: IntensityScale) -> tuple[Placed, Box]:
    far, cam = CELL + GAP, report.probes.table.cams[row]
    return [
        *_pair(probe_image(report, row), cam, scale, Box(0, 0, CELL, CELL), Box(far, 0, CELL, CELL)),
        (Box(far, far, CELL, CELL), _second_map(report, row, scale, CELL, CELL)),
    ], Box(0, far, CELL, CELL)


def _signal(report: AnalysisResult, row: int, scale: IntensityScale) -> tuple[Placed, Box]:
    top = 2 * (STRIP + GAP)
    boxes = Box(0, 0, EDGE, STRIP), Box(0, STRIP + GAP, EDGE, STRIP)
    panels = _pair(probe_image(report, row), report.probes.table.cams[row], scale, *boxes)
    if is_misclassified(report, row):
        panels.append((Box(CELL + GAP, top, CELL, STRIP), _second_map(report, row, scale, STRIP, CELL)))
    return panels, Box(0, top, CELL, EDGE - top)


def _volume(report: AnalysisResult, row: int, scale: IntensityScale) -> tuple[Placed, Box]:
    step, volume = THIRD + GAP, probe_image(report, row)
    panels: Placed = []
    for axis in range(3):
        cam = np.moveaxis(report.probes.table.cams[row], axis, 0)
        image = None if volume is None else np.moveaxis(volume, axis + 1, 1)
        panels += _pair(image, cam, scale, Box(axis * step, 0, THIRD, THIRD), Box(axis * step, step, THIRD, THIRD))
    if is_misclassified(report, row):
        panels.append((Box(2 * step, 2 * step, THIRD, THIRD), _second_map(report, row, scale, THIRD, THIRD)))
    return panels, Box(0, 2 * step, 2 * THIRD, THIRD)


def _pair(image: NDArray[Any] | None, cam: NDArray[Any], scale: IntensityScale, first: Box, second: Box) -> Placed:
    """Draw the input, if it may be shown, and the map over it."""
    shown = map_panel(image, cam, scale, second.height, second.width)
    plain_input = [] if image is None else [(first, input_panel(image, cam, first.height, first.width))]
    return [*plain_input, (second, shown)]


def _second_map(report: AnalysisResult, row: int, scale: IntensityScale, height: int, width: int) -> Pixels:
    """Draw the prediction's map over the input; the label's bare map if that is the same."""
    if is_misclassified(report, row):
        return map_panel(probe_image(report, row), report.probes.predicted.cams[row], scale, height, width)
    cam = report.probes.table.cams[row]
    return fit_pixels(heat(scale.apply(plane(cam, cam))), height, width)


def _write(picture: Image.Image, box: Box, lines: list[tuple[str, str]], scale: IntensityScale) -> None:
    """Write the lines, and below them the colour bar with its ends in the units of the score."""
    draw = ImageDraw.Draw(picture)
    size = min(25, (box.height - 40) // max(len(lines), 1) - 3)
    for number, (text, colour) in enumerate(lines):
        font = typeface(size if number % 2 == 0 else size - 3, bold=number % 2 == 0)
        draw.text((box.left + 4, box.top + 4 + number * (size + 5)), text, fill=colour, font=font)
    below = box.top + box.height - 20
    ramp = heat(np.tile(np.linspace(0, 1, box.width - 8, dtype=np.float32), (BAR, 1)))
    picture.paste(Image.fromarray(ramp), (box.left + 4, below - BAR - 2))
    draw.rectangle((box.left + 3, below - BAR - 3, box.left + box.width - 4, below - 2), outline=FAINT)
    font = typeface(15)
    draw.text((box.left + 4, below), f"{scale.low:.2g}", fill=QUIET, font=font)
    high = f"{scale.high:.2g}"
    draw.text((box.left + box.width - 4 - draw.textlength(high, font), below), high, fill=QUIET, font=font)


SHEET_GAP = 6


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay pictures, at least one, out in rows, about as wide as high, so that a thumbnail stays readable."""
    width, height = (max(picture.size[axis] for picture in pictures) + SHEET_GAP for axis in (0, 1))
    columns = min(len(pictures), max(1, round(math.sqrt(len(pictures) * height / width))))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width - SHEET_GAP, rows * height - SHEET_GAP), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet


def add_heading(picture: Image.Image, text: str) -> Image.Image:
    """Put a line of text above a picture, large enough for its thumbnail; a square one stays square."""
    size = max(18, max(picture.size) // 20)
    headed = Image.new("RGB", (picture.width + 2 * size, picture.height + 2 * size), "white")
    headed.paste(picture, (0, 2 * size))
    ImageDraw.Draw(headed).text((size // 2, size // 3), text, fill=QUIET, font=typeface(size))
    return headed
