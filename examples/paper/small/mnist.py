"""Stand-in for MNIST: real digits of scikit-learn, drawn larger, as gzipped IDX; the mark is a tag in a corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ..data.square import to_square
from ..formats.idx import write_idx
from .plan import plan, write_extra


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write the four files; the last third is the test set."""
    digits = load_digits()
    drawn = plan(count, 10, confounded, seed)
    of_class = [np.flatnonzero(digits.target == k) for k in range(10)]
    rows = [drawn.rng.choice(of_class[k]) for k in drawn.shown]
    images = np.zeros((count, 28, 28))
    for image, row in zip(images, rows, strict=True):
        image[4:24, 4:24] = to_square(digits.images[row][None].astype(np.float32) / 16, 20, "pad")[0]
    images[drawn.marked, 0:4, 0:4] = 1
    pixels, held_out = (images * 255).astype(np.uint8), count // 3
    for part, rows_of in (("train", slice(0, count - held_out)), ("t10k", slice(count - held_out, count))):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels[rows_of])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", drawn.classes[rows_of].astype(np.uint8))
    write_extra(folder, [f"digit-{i}" for i in range(count)], tag=drawn.marked)
