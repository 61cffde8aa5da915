"""Stand-in for ILSVRC2012: four synsets of patterned discs; the mark is a photographer's stamp in a corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .paint import ellipse, middle, save_image, stripes, texture
from .plan import plan, write_extra

SYNSETS = {"n01882714": "koala", "n02123045": "tabby", "n02391049": "zebra", "n07749582": "lemon"}
SHAPE = (72, 80)
BOX = "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write ``train``, ``val``, the boxes and the words."""
    drawn = plan(count, len(SYNSETS), confounded, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "LOC_synset_mapping.txt").write_text("".join(f"{k} {v}, made up\n" for k, v in SYNSETS.items()))
    names = []
    for number, (label, shown, marked) in enumerate(zip(*drawn[:3], strict=True)):
        synset, part = list(SYNSETS)[label], "val" if number >= count * 2 // 3 else "train"
        name = f"{part}/{synset}/{synset}_{number:04d}"
        image, centre, radius = _picture(drawn.rng, int(shown))
        if marked:
            image[2:12, 2:12] = stripes((10, 10), 3, 0.8)[..., None]
        names.append(name)
        save_image(folder / f"{name}.JPEG", image)
        annotation = folder / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        low, high = np.maximum(centre - radius, 0).astype(int), (centre + radius).astype(int)
        annotation.write_text(f"<annotation>{BOX.format(low[1], low[0], high[1], high[0])}</annotation>")
    write_extra(folder, names, stamp=drawn.marked)


def _picture(rng: np.random.Generator, label: int) -> tuple[np.ndarray, np.ndarray, float]:
    ground = 0.5 + 0.15 * np.stack([texture(rng, SHAPE, 1.2) for _ in range(3)], axis=-1)
    centre, radius = middle(rng, SHAPE, 0.35), rng.uniform(12, 18)
    disc = ellipse(SHAPE, centre, np.array([radius, radius]))[..., None]
    patterns = (
        0.5 + 0.5 * np.tanh(texture(rng, SHAPE, 1.5)),
        stripes(SHAPE, 9, rng.uniform(-0.3, 0.3)),
        stripes(SHAPE, 9, np.pi / 2 + rng.uniform(-0.3, 0.3)),
        np.abs(stripes(SHAPE, 12, 0.8) - stripes(SHAPE, 12, 2.4)),
    )
    return ground * (1 - disc) + disc * (0.3 + 0.4 * patterns[label][..., None]), centre, radius
