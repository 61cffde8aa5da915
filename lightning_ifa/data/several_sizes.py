"""Maps and images of several sizes, brought to one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def median_size(parts: Sequence[NDArray[Any]], lead: int = 1) -> tuple[int, ...] | None:
    """Give the median size of some arrays, each row counted once; None where there is but one size.

    Args:
        parts: Arrays ``(n, ..., *space)``.
        lead: Number of axes before the space.
    """
    sizes = np.repeat([part.shape[lead:] for part in parts], [len(part) for part in parts], axis=0)
    if not sizes.size or (sizes == sizes[0]).all():
        return None
    return tuple(int(edge) for edge in np.median(sizes, axis=0))


def resize(part: NDArray[Any], size: Sequence[int], lead: int = 1, keep_sum: bool = False) -> NDArray[Any]:
    """Resize an array ``(n, ..., *space)`` by linear interpolation; where it has the size already it stays as it is.

    Args:
        part: The array.
        size: The new space.
        lead: Number of axes before the space.
        keep_sum: Whether values are scaled so that the sum over the space, a map's evidence, stays the same.
    """
    space = part.shape[lead:]
    if space == tuple(size):
        return part
    flat = torch.from_numpy(part.reshape(-1, 1, *space))
    found = interpolate(flat, tuple(size), mode=_MODES[len(space)], align_corners=False)
    if keep_sum:
        found = found * (math.prod(space) / math.prod(size))
        lost = (flat.flatten(1).sum(1) - found.flatten(1).sum(1)) / math.prod(size)
        found = found + lost.reshape(-1, *[1] * (found.dim() - 1))
    return np.asarray(found.numpy().reshape(*part.shape[:lead], *size), dtype=part.dtype)
