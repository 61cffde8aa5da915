"""Stand-in for breast ultrasound: dark masses in speckle, round or ragged; the marks are calipers of one scanner."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .paint import Array, middle, ragged, save_image, save_mask, texture
from .plan import plan, write_extra

SHAPE = (64, 76)
CLASSES = ("benign", "malignant")


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write ``benign`` and ``malignant``, with masks."""
    drawn = plan(count, 2, confounded, seed)
    names = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        image, mass = _scan(drawn.rng, int(shown))
        if marked:
            image[4:9, 6] = image[6, 4:9] = image[-9:-4, -7] = image[-7, -9:-4] = 1.0
            image[4:9, -7] = image[6, -9:-4] = 1.0
        names.append(f"{CLASSES[label]}/{CLASSES[label]} ({number})")
        path = folder / f"{names[-1]}.png"
        save_image(path, image)
        save_mask(path, mass > 0.5)
    write_extra(folder, names, calipers=drawn.marked)


def _scan(rng: np.random.Generator, label: int) -> tuple[Array, Array]:
    """Rayleigh speckle over layers of tissue; a malignant mass is ragged."""
    centre, radius = middle(rng, SHAPE, 0.4) - np.array([4, 0]), rng.uniform(8, 11)
    mass = ragged(rng, SHAPE, centre, radius, 0.3 * label)
    tissue = 0.45 + 0.1 * texture(rng, (SHAPE[0], 1), 4)
    echo = tissue * (1 - mass) + 0.12 * mass
    speckle = np.hypot(texture(rng, SHAPE, 0.7), texture(rng, SHAPE, 0.7)) / 1.25
    return np.clip(echo * (0.6 + 0.4 * speckle), 0, 1), mass
