"""Inputs in little, by which copies are recognised."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from lightning_ifa.data.image_properties import LEAST_SIZE

EDGE = 24


def thumbnails(x: Tensor) -> Tensor | None:
    """Shrink images, or the mean of volumes along their first axis, to ``(n, 24, 24)`` float32, channels averaged.

    Args:
        x: Shape ``(n, channels, *space)``.

    Returns:
        None for inputs without two spatial axes, and for images of less than 14 pixels, which are too much alike.
    """
    if x.dim() not in (4, 5) or min(x.shape[-2:]) < LEAST_SIZE:
        return None
    gray = x.detach().float().mean(1)
    gray = gray if gray.dim() == 3 else gray.mean(1)
    return interpolate(gray[:, None], size=(EDGE, EDGE), mode="bilinear", antialias=True)[:, 0]
