"""Properties of the input images, measured without knowing what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

BACKGROUND = ("border", "corner", "background")
"""First words of the properties that lie outside the usual place of an object."""

EDGE = 1 / 7  # strip and corner width as a share of each axis: 4 of 28 pixels, 32 of 224


def image_properties(x: Tensor) -> dict[str, Tensor]:
    """Measure each input, channels averaged, in one vectorised pass.

    Args:
        x: Shape ``(n, channels, *space)`` with one to three spatial axes; fewer axes give only level and contrast.

    Returns:
        float32 tensors of shape ``(n,)`` in units of the input: ``brightness`` (mean), ``contrast`` (standard
        deviation), ``sharpness`` (mean absolute difference of neighbours), ``border`` (mean of the outer strip),
        ``corner_...`` (mean of each corner over the last two axes, named by position), ``background`` (10th
        percentile).
    """
    x = x.detach().float()
    flat = x.flatten(1)
    found = {"brightness": flat.mean(1), "contrast": flat.std(1, unbiased=False)}
    if x.dim() < 3:
        return found
    gray = x.mean(1)
    found["sharpness"] = _mean_step(gray)
    found["background"] = gray.flatten(1).quantile(0.1, dim=1) if gray[0].numel() < 2**24 else gray.flatten(1).amin(1)
    found["border"] = _border_mean(gray)
    found.update((f"corner_{name}", part.flatten(1).mean(1)) for name, part in _corners(gray))
    return found


def _low_level(gray: Tensor, pixels: int = 4096) -> Tensor:
    flat = gray.flatten(1)
    evenly = flat[:, :: max(1, flat.shape[1] // pixels)]  # a quantile of a few thousand pixels is exact enough
    return evenly.quantile(0.1, dim=1)


def _mean_step(gray: Tensor) -> Tensor:
    steps = [gray.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(1, gray.dim()) if gray.shape[axis] > 1]
    return torch.stack(steps).mean(0) if steps else gray.flatten(1).mean(1) * 0


def _edge_width(size: int) -> int:
    return max(1, round(size * EDGE))


def _border_mean(gray: Tensor) -> Tensor:
    outside = torch.ones(gray.shape[1:], dtype=torch.bool, device=gray.device)
    inner = tuple(slice(_edge_width(size), size - _edge_width(size)) for size in gray.shape[1:])
    outside[inner] = False
    return gray[:, outside].mean(1)


def _corners(gray: Tensor) -> Iterator[tuple[str, Tensor]]:
    names = (("start", "end"),) if gray.dim() == 2 else (("top", "bottom"), ("left", "right"))
    axes = range(gray.dim() - len(names), gray.dim())
    for ends in product((0, 1), repeat=len(names)):
        part = gray
        for axis, end in zip(axes, ends, strict=True):
            width = _edge_width(gray.shape[axis])
            part = part.narrow(axis, gray.shape[axis] - width if end else 0, width)
        yield "_".join(pair[end] for pair, end in zip(names, ends, strict=True)), part
