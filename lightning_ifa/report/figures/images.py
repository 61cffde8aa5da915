"""Draw inputs and maps of any dimension as flat pictures: images as such, volumes as slices, signals as curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_ifa.report.style import HEAT, heat
from lightning_ifa.statistics.intensity_scale import IntensityScale
from lightning_ifa.statistics.localization import depth_of

Pixels = NDArray[np.uint8]
DIM = 0.62  # share of its brightness that an input below a map keeps, so that the map's colours stand out
OPACITY = 0.85
GROUND = 96  # gray under a map whose input may not be shown
FINER = 3  # curves are drawn so many times larger, then reduced: smooth lines without a plotting library
CURVES = ("#303030", "#7A7A7A", "#A8A8A8")
MOST_CURVES = 3


def gray_plane(image: NDArray[Any], cam: NDArray[Any]) -> Pixels:
    """Give a displayable plane of an input ``(channels, *space)``: RGB as it is, else the channels' mean.

    Of a volume, the slice through the map's maximum; of a signal, a strip.
    """
    colour = image.shape[0] == 3 and image.ndim == 3
    return _stretch(np.moveaxis(image, 0, -1) if colour else plane(image.mean(0), cam))


def plane(values: NDArray[Any], cam: NDArray[Any]) -> NDArray[Any]:
    """Flatten ``(*space)`` values to ``(h, w)``; of a volume, the slice through the map's maximum."""
    if values.ndim == 1:
        return np.tile(values, (max(1, len(values) // 4), 1))
    return values if values.ndim == 2 else np.asarray(values[depth_of(cam, len(values))])


def fit_pixels(pixels: Pixels, height: int, width: int) -> Pixels:
    """Enlarge a plane to fill a cell as RGB, keeping its proportions; what remains is white."""
    h, w = pixels.shape[:2]
    share = min(height / h, width / w)
    size = max(1, round(w * share)), max(1, round(h * share))
    smooth = Image.Resampling.NEAREST if share > 2 else Image.Resampling.BICUBIC
    cell = Image.new("RGB", (width, height), "white")
    image = Image.fromarray(pixels).convert("RGB").resize(size, smooth)
    cell.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(cell)


def overlay_pixels(ground: Pixels, level: NDArray[Any], scale: IntensityScale) -> Pixels:
    """Lay a map over its input: nothing where there is no evidence, hot where there is much.

    The input's colours are left out, since they would mix with those of the map.

    Args:
        ground: The input, ``(h, w)`` or ``(h, w, 3)``.
        level: The map's plane, of any size, unscaled.
        scale: The intensity scale.

    Returns:
        A picture as large as the ground, ``(h, w, 3)``.
    """
    gray = np.asarray(Image.fromarray(ground).convert("L"), dtype=np.float32)
    shown = scale.apply(stretch_pixels(level, *gray.shape))
    weight = OPACITY * shown[..., None] ** 0.6
    mixed = DIM * gray[..., None] * (1 - weight) + heat(shown) * weight
    pixels: Pixels = np.clip(mixed, 0, 255).astype(np.uint8)
    return pixels


def stretch_pixels(level: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Interpolate a map's plane to a picture's size."""
    image = Image.fromarray(np.ascontiguousarray(level, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def curve(signal: NDArray[Any] | None, height: int, width: int, cam: NDArray[Any] | None = None,
          scale: IntensityScale | None = None) -> Pixels:  # fmt: skip
    """Draw a signal's channels as curves, each on its own range, over the map's colours if there is one.

    Args:
        signal: Channels, ``(channels, length)``, of which the first three are drawn; None draws the map alone.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        cam: The map, ``(length of the map,)``, unscaled.
        scale: The intensity scale.
    """
    h, w = height * FINER, width * FINER
    picture = Image.new("RGB", (w, h), "white")
    if cam is not None and scale is not None:
        shown = scale.apply(stretch_pixels(cam[None], 1, w))
        weight = OPACITY * shown[..., None]
        band = np.clip(255 * (1 - weight) + colormaps[HEAT](shown)[..., :3] * 255 * weight, 0, 255).astype(np.uint8)
        picture.paste(Image.fromarray(np.repeat(band, h, axis=0)))
    draw = ImageDraw.Draw(picture)
    for colour, values in zip(CURVES, () if signal is None else signal[:MOST_CURVES], strict=False):
        low, high = float(values.min()), float(values.max())
        x = (np.arange(len(values)) + 0.5) / len(values) * w
        y = h * (0.92 - 0.84 * (values - low) / max(high - low, 1e-9))
        draw.line([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=colour, width=2 * FINER)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def _stretch(values: NDArray[Any]) -> Pixels:
    low, high = np.percentile(values, (0.5, 99.5))
    shown: Pixels = (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    return shown
