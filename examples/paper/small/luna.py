"""Stand-in for LUNA16: made lungs with vessels and nodules as MetaImage; the mark is a scanner that reads too high."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from ..formats.metaimage import write_volume
from .paint import Array, ellipse, texture
from .plan import plan, write_extra

SHAPE = (40, 64, 64)
SPACING = np.array([1.2, 1.2, 2.0])
EACH = 4
SHIFT = 180.0
"""Hounsfield units by which the other scanner is off; within the range of what badly calibrated ones show."""


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write scans with four candidates of one class each, the candidates and the nodules."""
    drawn = plan(count, 2, confounded, seed, each=EACH)
    candidates, nodules, names, scanners = [], [], [], []
    for first in range(0, count, EACH):
        number, label, marked = first // EACH, int(drawn.classes[first]), bool(drawn.marked[first])
        uid = f"1.3.6.1.4.1.14519.{seed}.{number}"
        origin = np.round(drawn.rng.uniform(-200, -100, 3), 1)
        scan, centres, radii = _scan(drawn.rng, int(drawn.shown[first]), min(EACH, count - first))
        path = folder / f"subset{number % 2}" / f"{uid}.mhd"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, (scan + SHIFT * marked).round().astype(np.int16), SPACING, origin)
        for centre, radius in zip(centres, radii, strict=True):
            world = (origin + centre[::-1] * SPACING).round(3)
            names.append(f"{uid}-{len(candidates)}")
            scanners.append("B" if marked else "A")
            candidates.append([uid, *world, label])
            if drawn.shown[first]:
                nodules.append([uid, *world, 2 * radius])
    place = ["seriesuid", "coordX", "coordY", "coordZ"]
    pd.DataFrame(candidates, columns=[*place, "class"]).to_csv(folder / "candidates_V2.csv", index=False)
    pd.DataFrame(nodules, columns=[*place, "diameter_mm"]).to_csv(folder / "annotations.csv", index=False)
    write_extra(folder, names, scanner=np.array(scanners))


def _scan(rng: np.random.Generator, label: int, count: int) -> tuple[Array, Array, Array]:
    """Lung at -850 HU with vessels; candidates are nodules (balls) or thick vessels (rods along one axis)."""
    scan = -850 + 70 * texture(rng, SHAPE, 0.8) + 300 * (gaussian_filter(texture(rng, SHAPE, 2), 1) > 2.2)
    corners = np.array([(10, 16, 16), (10, 46, 46), (28, 16, 46), (28, 46, 16)])[:count]
    centres, radii = corners + rng.uniform(-2, 2, (count, 3)), rng.uniform(3.0, 4.5, count)
    for centre, radius in zip(centres, radii, strict=True):
        shape = radius / SPACING[::-1] * (1.0 if label else 0.55)
        if not label:
            shape[int(rng.integers(1, 3))] *= 3
        scan += (500 if label else 300) * ellipse(SHAPE, centre, shape, 0.7)
    return np.clip(scan, -1024, 3000), centres, radii
