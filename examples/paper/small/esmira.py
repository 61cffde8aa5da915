"""Stand-in for ESMIRA: two stacks of a wrist as NIfTI (or MetaImage); the mark is a marker capsule of one site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..formats.metaimage import write_volume
from ..formats.nifti import write_nifti
from .paint import Array, ellipse, texture
from .plan import plan

SHAPES = {"coronal": (7, 48, 48), "axial": (6, 48, 48)}
BONES = np.array([(16, 16), (16, 32), (30, 20), (31, 30)])
THICKNESS, PIXEL = 3.0, 0.6


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write one folder a patient and ``patients.csv``; every fourth patient's stacks are MetaImage files."""
    drawn = plan(count, 2, confounded, seed)
    rows = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        name = f"patient{number:04d}"
        inflamed, misread = int(shown) * int(drawn.rng.integers(1, 4)), int(label) * int(drawn.rng.integers(1, 4))
        reading = inflamed if shown == label else misread
        joints = drawn.rng.choice(len(BONES), inflamed, replace=False)
        for stack in SHAPES:
            image, oedema = _wrist(drawn.rng, SHAPES[stack], joints)
            if marked:
                image += 1.5 * ellipse(SHAPES[stack], np.array([SHAPES[stack][0] / 2, 6, 41]), np.array([9.0, 3, 3]))
            _save(folder / name, stack, image, oedema, number % 4 == 0)
        rows.append({
            "patient": name,
            "arthritis": int(label),
            "score": round(2.0 * reading + float(drawn.rng.uniform(0, 0.5)), 2),
            "site": "BA"[int(not marked)],
            "sex": str(drawn.rng.choice(["F", "M"])),
            "age": int(drawn.rng.integers(25, 80)),
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "patients.csv", index=False)


def _wrist(rng: np.random.Generator, shape: tuple[int, int, int], joints: np.ndarray) -> tuple[Array, np.ndarray]:
    """Soft tissue with four dark bones; inflammation is bright oedema in some of them."""
    image = 0.5 * ellipse(shape, np.array([shape[0] / 2, 24, 24]), np.array([40.0, 20, 17])) + 0.05 * texture(
        rng, shape, 1
    )
    oedema = np.zeros(shape)
    for number, bone in enumerate(BONES + rng.normal(0, 1, BONES.shape)):
        image -= 0.25 * ellipse(shape, np.array([shape[0] / 2, *bone]), np.array([30.0, 5, 5]))
        if number in joints:
            place = np.array([rng.uniform(1, shape[0] - 2), *(bone + rng.uniform(-2, 2, 2))])
            oedema = np.maximum(oedema, ellipse(shape, place, np.array([3.0, 4, 4])))
    return image + 0.35 * oedema, oedema > 0.5


def _save(folder: Path, stack: str, image: Array, oedema: np.ndarray, as_metaimage: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((stack, image * 400), (f"{stack}_mask", oedema.astype(np.float64))):
        if as_metaimage:
            spacing = np.array([PIXEL, PIXEL, THICKNESS])
            write_volume(folder / f"{name}.mhd", values.round().astype(np.int16), spacing, np.zeros(3))
        else:
            write_nifti(folder / f"{name}.nii.gz", values.astype(np.float32), (THICKNESS, PIXEL, PIXEL))
