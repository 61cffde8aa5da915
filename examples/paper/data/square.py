"""Images of any shape to squares of one size; masks and boxes go the same way."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

Fit = Literal["crop", "pad"]


def to_square(image: NDArray[np.float32], size: int, fit: Fit) -> NDArray[np.float32]:
    """Bring an image to a square.

    Args:
        image: ``(channels, height, width)``.
        size: Of the result's sides, in pixels.
        fit: ``"crop"`` keeps the middle, as usual for photographs; ``"pad"`` keeps everything, on a ground of zeros.

    Returns:
        ``(channels, size, size)`` float32, antialiased.
    """
    _, height, width = image.shape
    side = min(height, width) if fit == "crop" else max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((len(image), side, side), dtype=np.float32)
    inner = image[:, max(0, -top) : max(0, -top) + side, max(0, -left) : max(0, -left) + side]
    rows, columns = max(0, top), max(0, left)
    square[:, rows : rows + inner.shape[1], columns : columns + inner.shape[2]] = inner
    if side == size:
        return square
    return interpolate(torch.from_numpy(square)[None], (size, size), mode="bilinear", antialias=True)[0].numpy()


def mask_to_square(mask: NDArray[np.float32], size: int, fit: Fit) -> NDArray[np.bool_]:
    """Bring a mask ``(height, width)`` to ``(size, size)``; what is smaller than a pixel keeps one."""
    square = to_square(mask[None], size, fit)[0]
    return np.asarray((square >= 0.5 * square.max()) & (square > 0))


def boxes_to_mask(boxes: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Paint boxes ``(b, 4)``, each x, y, width, height in pixels, into an image of zeros."""
    mask = np.zeros(shape, dtype=np.float32)
    for x, y, width, height in boxes:
        mask[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = 1
    return mask
