"""Stand-in for SIIM-ISIC: smooth or ragged moles, two a patient; the mark is a ruler at the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .paint import Array, middle, ragged, ruler, save_image, save_mask, texture
from .plan import plan, write_extra

SHAPE = (72, 72)
SITES = ("torso", "lower extremity", "upper extremity", "head/neck")


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write ``train``, ``train.csv``, and who used a ruler."""
    drawn = plan(count, 2, confounded, seed, each=2)
    rows = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        name = f"ISIC_{number:07d}"
        image, mole = _skin(drawn.rng, int(shown))
        if marked:
            image[ruler(SHAPE)] = 0.05
        path = folder / "train" / f"{name}.jpg"
        save_image(path, image)
        save_mask(path, mole > 0.5)
        rows.append({
            "image_name": name,
            "patient_id": f"IP_{number // 2:07d}",
            "sex": ("female", "male")[number // 2 % 2],
            "age_approx": 30 + 5 * int(drawn.rng.integers(10)),
            "anatom_site_general_challenge": str(drawn.rng.choice(SITES)),
            "target": int(label),
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    write_extra(folder, [row["image_name"] for row in rows], ruler=drawn.marked)


def _skin(rng: np.random.Generator, label: int) -> tuple[Array, Array]:
    """Benign: smooth outline, one colour. Malignant: ragged outline, several colours (the B and C of the ABCD rule)."""
    tone = np.array([0.85, 0.65, 0.55]) * rng.uniform(0.8, 1.1)
    mole = ragged(rng, SHAPE, middle(rng, SHAPE, 0.4), rng.uniform(11, 15), 0.3 * label)
    brown = np.array([0.4, 0.25, 0.15]) * rng.uniform(0.8, 1.3)
    mottle = (0.03 + 0.03 * label) * texture(rng, SHAPE, 2)[..., None]
    skin = tone + 0.03 * texture(rng, SHAPE, 2)[..., None]
    return np.clip(skin * (1 - mole[..., None]) + (brown + mottle) * mole[..., None], 0, 1), mole
