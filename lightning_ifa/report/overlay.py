"""Probe pictures: the input, and the map over it on the common intensity scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.style import heat

SIDE = 192
CAPTION = 22
GROUND = 96  # gray under a map whose input may not be shown


def probe_panels(report: FeatureReport, row: int) -> list[NDArray[np.uint8]]:
    """Draw one probe: its input if it may be shown, the label's map and, if misclassified, the prediction's map.

    Args:
        report: The report.
        row: Row of ``report.probes.table``.

    Returns:
        RGB panels of one size, ``(SIDE, width, 3)``.
    """
    probes = report.probes
    panels = []
    if probes.images is not None:
        panels.append(_fit(gray_plane(probes.images[row], probes.table.cams[row])))
    panels.append(overlay(report, row, probes.table.cams[row]))
    if probes.predicted.explained[row] != probes.table.explained[row]:
        panels.append(overlay(report, row, probes.predicted.cams[row]))
    return panels


def probe_picture(report: FeatureReport, row: int) -> Image.Image:
    """Join a probe's panels below a caption, for MLflow's image cards."""
    panels = probe_panels(report, row)
    width = sum(panel.shape[1] for panel in panels)
    picture = Image.new("RGB", (width, panels[0].shape[0] + CAPTION), "white")
    picture.paste(Image.fromarray(np.concatenate(panels, axis=1)), (0, CAPTION))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(picture).text((4, 3), probe_caption(report, row), fill="black", font=font)
    return picture


def probe_caption(report: FeatureReport, row: int) -> str:
    """Say what a probe is, what it was taken for, and how strong the evidence is."""
    table, predicted = report.probes.table, report.probes.predicted
    if table.targets.dtype.kind == "f":
        return f"true {table.targets[row]:.3g}, predicted {table.predictions[row]:.3g}"
    names = report.class_names
    explained, guess = int(table.explained[row]), int(predicted.explained[row])
    if explained == guess:
        return f"{names[explained]}: {table.intensity[row]:.1f}"
    return f"{names[explained]}: {table.intensity[row]:.1f}, taken for {names[guess]}: {predicted.intensity[row]:.1f}"


def overlay(report: FeatureReport, row: int, cam: NDArray[Any]) -> NDArray[np.uint8]:
    """Lay a map over its input, ``(SIDE, ...)`` RGB: nothing where there is no evidence, hot where there is much."""
    images = report.probes.images
    if images is None:
        ground = _fit(np.full(_plane(cam, cam).shape, GROUND, dtype=np.uint8))
    else:
        ground = _fit(gray_plane(images[row], cam))
    height, width = ground.shape[:2]
    level = Image.fromarray(_plane(cam, cam).astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    shown = report.scale.apply(np.asarray(level))
    weight = 0.75 * shown[..., None] ** 0.7
    blend: NDArray[np.uint8] = np.clip(ground * (1 - weight) + heat(shown) * weight, 0, 255).astype(np.uint8)
    return blend


def gray_plane(image: NDArray[Any], cam: NDArray[Any]) -> NDArray[np.uint8]:
    """Give a displayable plane of an input ``(channels, *space)``: RGB as such, else the channels' mean.

    Of a volume, the slice through the map's maximum; of a signal, a strip.
    """
    colour = image.shape[0] == 3 and image.ndim == 3
    plane = np.moveaxis(image, 0, -1) if colour else _plane(image.mean(0), cam)
    low, high = np.percentile(plane, (0.5, 99.5))
    shown: NDArray[np.uint8] = (np.clip((plane - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    return shown


def _plane(values: NDArray[Any], cam: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 1:
        return np.tile(values, (max(1, len(values) // 4), 1))
    if values.ndim == 2:
        return values
    depth = int(np.unravel_index(int(cam.argmax()), cam.shape)[0])
    return np.asarray(values[min(len(values) - 1, depth * len(values) // len(cam))])


def _fit(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a plane to the panel's height as RGB, keeping its proportions within reason."""
    height, width = plane.shape[:2]
    shape = (int(SIDE * min(max(width / height, 0.5), 2.0)), SIDE)
    smooth = Image.Resampling.NEAREST if max(height, width) < SIDE // 2 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(plane).convert("RGB").resize(shape, smooth))
