"""Inputs of samples that a report speaks of, reduced to what a picture of them needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.probes import inputs
from lightning_ifa.statistics.localization import depth_of

LONGEST_EDGE = 160


def take_sample_images(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, rows: NDArray[np.int64]
) -> dict[int, NDArray[np.float32]]:
    """Read some of a table's samples again and reduce them.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The table.
        rows: ``(m,)`` row numbers.

    Returns:
        Row number to input, float32: ``(channels, length)`` of a signal, ``(channels, h, w)`` of an image, at most
        160 pixels high and wide, and of a volume the slice through its map's maximum, reduced alike.
    """
    images = inputs(extraction, loader, table.indices[rows])
    return {int(row): _reduce(image, table.cams[row]) for row, image in zip(rows, images, strict=True)}


def _reduce(image: NDArray[np.float32], cam: NDArray[np.float32]) -> NDArray[np.float32]:
    if image.ndim == 4:
        image = image[:, depth_of(cam, image.shape[1])]
    longest = max(image.shape[1:], default=0)
    if image.ndim != 3 or longest <= LONGEST_EDGE:
        return image
    size = [max(1, round(edge * LONGEST_EDGE / longest)) for edge in image.shape[1:]]
    small = interpolate(torch.from_numpy(image)[None], size, mode="bilinear", antialias=True)[0]
    return np.asarray(small.numpy())
