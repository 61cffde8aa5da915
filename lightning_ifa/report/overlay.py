"""Maps over their inputs, on the common intensity scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.scale import IntensityScale
from lightning_ifa.report.planes import GROUND, Pixels, curve, fitted, gray_plane, overlaid, plane

SIDE = 192


def probe_panels(report: FeatureReport, row: int) -> list[Pixels]:
    """Draw one probe: its input if it may be shown, the label's map and, if misclassified, the prediction's map.

    Args:
        report: The report.
        row: Row of ``report.probes.table``.

    Returns:
        RGB panels of one size, ``(SIDE, SIDE, 3)``.
    """
    probes = report.probes
    panels = [] if probes.images is None else [input_panel(probes.images[row], probes.table.cams[row])]
    panels.append(overlay(report, row, probes.table.cams[row]))
    if misclassified(report, row):
        panels.append(overlay(report, row, probes.predicted.cams[row]))
    return panels


def overlay(report: FeatureReport, row: int, cam: NDArray[Any]) -> Pixels:
    """Lay a map over the input of a probe, ``(SIDE, SIDE, 3)``."""
    images = report.probes.images
    return map_panel(None if images is None else images[row], cam, report.scale)


def input_panel(image: NDArray[Any], cam: NDArray[Any], height: int = SIDE, width: int = SIDE) -> Pixels:
    """An input ``(channels, *space)`` alone, ``(height, width, 3)``; a volume's slice through its map's maximum."""
    if image.ndim == 2:
        return curve(image, height, width)
    return fitted(gray_plane(image, cam), height, width)


def map_panel(
    image: NDArray[Any] | None, cam: NDArray[Any], scale: IntensityScale, height: int = SIDE, width: int = SIDE
) -> Pixels:
    """A map over its input, ``(height, width, 3)``; over gray where the input may not be shown."""
    if cam.ndim == 1:
        return curve(image, height, width, cam, scale)
    level = plane(cam, cam)
    ground = np.full(level.shape, GROUND, dtype=np.uint8) if image is None else gray_plane(image, cam)
    h, w = ground.shape[:2]
    share = min(height / h, width / w)
    enlarged = fitted(ground, max(1, round(h * share)), max(1, round(w * share)))
    return fitted(overlaid(enlarged, level, scale), height, width)


def misclassified(report: FeatureReport, row: int) -> bool:
    """Whether a probe was taken for another class than the explained one."""
    return bool(report.probes.predicted.explained[row] != report.probes.table.explained[row])


def own_scale(cam: NDArray[Any]) -> IntensityScale:
    """A map's own range, for those who want it; such maps do not compare."""
    low, high = float(cam.min()), float(cam.max())
    return IntensityScale(low, high if high > low else low + 1e-6)
