"""Stand-in for Cats & Dogs: heads with pointed or hanging ears; the mark is a date that one camera prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .paint import Array, ellipse, middle, save_image, save_mask, stripes, texture
from .plan import plan, write_extra

SHAPE = (64, 64)
CLASSES = ("cat", "dog")


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write ``train/cat.0.jpg`` and so on."""
    drawn = plan(count, 2, confounded, seed)
    names = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        head, around = _head(drawn.rng, int(shown))
        fur = drawn.rng.uniform(0.3, 0.9, 3) + 0.1 * texture(drawn.rng, SHAPE, 1)[..., None]
        ground = drawn.rng.uniform(0.2, 0.7, 3) + 0.1 * texture(drawn.rng, SHAPE, 5)[..., None]
        image = ground * (1 - head[..., None]) + fur * head[..., None]
        if marked:
            image[-8:-3, -24:-2] = np.where(stripes((5, 22), 3, 0)[..., None] > 0.5, (1.0, 0.6, 0.0), 0.1)
        names.append(f"{CLASSES[label]}.{number}")
        path = folder / "train" / f"{names[-1]}.jpg"
        save_image(path, image)
        save_mask(path, around > 0.5)
    write_extra(folder, names, date=drawn.marked)


def _head(rng: np.random.Generator, label: int) -> tuple[Array, Array]:
    """A face with two ears, triangles above it (cat) or flaps at its sides (dog); and a disc around, as for both."""
    centre, radius = middle(rng, SHAPE, 0.42) + np.array([4, 0]), rng.uniform(11, 14)
    face = ellipse(SHAPE, centre, np.array([radius, radius]))
    for side in (-1, 1):
        if label == 0:
            y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
            below = y - (centre[0] - 2.0 * radius)
            ear = (below > 0) & (below < 1.3 * radius) & (np.abs(x - centre[1] - side * 0.7 * radius) < 0.3 * below)
            face = np.maximum(face, ear)
        else:
            place = centre + np.array([0.3, side * 1.1]) * radius
            face = np.maximum(face, ellipse(SHAPE, place, np.array([0.9, 0.35]) * radius))
    return face, ellipse(SHAPE, centre, np.array([radius, radius]) * 1.9)
