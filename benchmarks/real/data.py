"""Read the real sets from a folder that the user names."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from lightning_ifa.errors import FileError

SOURCES = {
    "mnist": "http://yann.lecun.com/exdb/mnist (commonly given as CC BY-SA 3.0)",
    "chestxray_pneumonia": "https://data.mendeley.com/datasets/rscbjbr9sj (CC BY 4.0)",
    "busi": "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset (CC BY)",
    "luna16_2d": "https://luna16.grand-challenge.org (CC BY 3.0)",
    "hippocampus_mri_3d": "http://medicaldecathlon.com (CC BY-SA 4.0)",
    "ham10000": "https://doi.org/10.7910/DVN/DBW86T (CC BY-NC 4.0)",
}
"""Where users get each set, with its licence."""


class RealSet(NamedTuple):
    """Images ``(n, h, w)``, ``(n, h, w, 3)`` or ``(n, d, h, w)``, uint8, and one row of the index for each."""

    images: np.ndarray
    index: pd.DataFrame


@lru_cache(maxsize=2)
def read_set(root: Path, name: str) -> RealSet:
    """Read ``root/name/data.npz`` (``images``, or ``jpeg`` bytes with ``offsets``) and ``root/name/index.csv``.

    Raises:
        FileError: The set is not there; the message says where it can be had.
    """
    folder = root / name
    if not (folder / "index.csv").exists():
        raise FileError(f"{folder} holds no set; get it from {SOURCES[name]} and store it as benchmarks/README.md says")
    index = pd.read_csv(folder / "index.csv", keep_default_na=False)
    with np.load(folder / "data.npz") as stored:
        if "images" in stored.files:
            return RealSet(stored["images"], index)
        content, offsets = stored["jpeg"].tobytes(), stored["offsets"]
    images = (Image.open(io.BytesIO(content[a:b])) for a, b in pairwise(offsets))
    return RealSet(np.stack([np.asarray(image) for image in images]), index)


def read_masks(root: Path, name: str) -> np.ndarray:
    """Read masks ``(n, *space)``: ``ham10000`` (the lesion), ``hippocampus_mri_3d`` (1 anterior, 2 posterior)."""
    with np.load(root / name / "data.npz") as stored:
        if "mask_shape" not in stored.files:
            return stored["masks"]
        shape = tuple(stored["mask_shape"])
        bits = np.unpackbits(stored["masks"], axis=1, count=int(np.prod(shape)))
        return bits.reshape(-1, *shape).astype(bool)
