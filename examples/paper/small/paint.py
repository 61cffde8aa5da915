"""Brushes: textures, soft ellipses in any dimension, patterns, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]


def texture(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> Array:
    """Smooth noise with mean 0 and deviation 1; ``grain`` is the size of its spots in pixels."""
    noise = gaussian_filter(rng.standard_normal(shape), grain, mode="wrap")
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9))


def ellipse(shape: tuple[int, ...], centre: Array, radii: Array, soft: float = 1.0) -> Array:
    """Ellipse (ellipsoid), 1 inside and 0 outside; the edge is about ``soft`` pixels wide."""
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    distance = np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)))
    return np.asarray(1 / (1 + np.exp(np.clip((distance - 1) * float(np.mean(radii)) / soft * 4, -50, 50))))


def ragged(rng: np.random.Generator, shape: tuple[int, int], centre: Array, radius: float, depth: float) -> Array:
    """Disc whose outline wanders by a share ``depth`` of its radius; 0 is a circle."""
    y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    angle, distance = np.arctan2(y - centre[0], x - centre[1]), np.hypot(y - centre[0], x - centre[1])
    waves = sum(np.cos(k * angle + rng.uniform(0, 2 * np.pi)) * rng.uniform(0.5, 1) for k in (3, 5, 7))
    return np.asarray(1 / (1 + np.exp(np.clip((distance - radius * (1 + depth * waves / 2)) * 2, -50, 50))))


def stripes(shape: tuple[int, int], width: float, angle: float) -> Array:
    """Wave in [0, 1] of a given width in pixels and angle in radians."""
    y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.asarray(0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / width))


def letters_ap(shape: tuple[int, int], top: int = 3, left: int = 3) -> NDArray[np.bool_]:
    """The letters AP, as a lead marker shows them, 7 pixels high."""
    rows = (".###..####.", "#...#.#...#", "#...#.#...#", "#####.####.", "#...#.#....", "#...#.#....", "#...#.#....")
    mark = np.zeros(shape, dtype=bool)
    mark[top : top + 7, left : left + 11] = [[sign == "#" for sign in row] for row in rows]
    return mark


def ruler(shape: tuple[int, int], every: int = 4) -> NDArray[np.bool_]:
    """Ticks along the lower edge, every fifth one longer."""
    mark = np.zeros(shape, dtype=bool)
    for number, column in enumerate(range(2, shape[1], every)):
        mark[-(9 if number % 5 == 0 else 5) :, column] = True
    return mark


def middle(rng: np.random.Generator, shape: tuple[int, ...], margin: float) -> Array:
    """A position away from the border by a share of each axis."""
    return np.array([rng.uniform(margin * size, (1 - margin) * size) for size in shape])


def save_image(path: Path, image: Array) -> None:
    """Write ``(h, w)`` or ``(h, w, 3)`` in [0, 1]; the format follows the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(path, quality=95)


def save_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write the mask of an image beside it."""
    save_image(path.with_name(f"{path.stem}_mask.png"), mask.astype(np.float64))
