"""Recognise outputs that are maps in another form: tokens of a transformer, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from lightning_ifa.features.observe import LayerShape
from lightning_ifa.features.place import Reshape

MOST_PREFIX_TOKENS = 8
"""Class, distillation and register tokens, which stand before those of the image."""

Shape = tuple[int, ...]


def find_layouts(layers: Sequence[LayerShape], x: Shape) -> dict[str, Reshape]:
    """Find the layers of a dry pass whose output is maps in another form, and how to take the maps.

    Tokens are ``(n, t, c)`` outputs on an image or a volume, of a shape that a ``Linear`` or ``LayerNorm`` returned,
    which work on the last axis. Their grid is that of the last feature map before them,
    the patch embedding, that has at most ``MOST_PREFIX_TOKENS`` positions fewer; without one it is the largest with
    the input's proportions. Positions run along the last axis first; what is left over stands before them and is
    dropped. Channels are last where a ``LayerNorm`` over the last axis returned the same shape.

    Args:
        layers: In order of completion.
        x: The input's shape, ``(n, channels, *space)``.

    Returns:
        Layer name to reshape; layers that return ``(n, c, *space)`` are left out.
    """
    found: dict[str, Reshape] = {}
    normed = {layer.shape for layer in layers if _normalises_last_axis(layer)}
    by_token = {layer.shape for layer in layers if isinstance(layer.module, (nn.Linear, nn.LayerNorm))}
    grids: list[Shape] = []
    for layer in layers:
        if len(layer.shape) == len(x) and layer.shape in normed:
            found[layer.name] = channels_first
        elif len(layer.shape) == len(x):
            grids.append(layer.shape[2:])
        elif len(x) > 3 and len(layer.shape) == 3 and layer.shape[0] == x[0] and layer.shape in by_token:
            grid = _grid(layer.shape[1], grids, x[2:])
            if grid is not None:
                found[layer.name] = partial(tokens_to_maps, grid=grid)
    return found


def tokens_to_maps(tokens: Tensor, grid: Shape) -> Tensor:
    """Tokens ``(n, prefix + positions, c)`` to maps ``(n, c, *grid)``, without the prefix."""
    n, count, channels = tokens.shape
    positions = tokens[:, count - math.prod(grid) :]
    return positions.transpose(1, 2).reshape(n, channels, *grid)


def channels_first(output: Tensor) -> Tensor:
    """``(n, *space, c)`` to ``(n, c, *space)``."""
    return output.movedim(-1, 1)


def _normalises_last_axis(layer: LayerShape) -> bool:
    module = layer.module
    return (
        isinstance(module, nn.LayerNorm)
        and len(module.normalized_shape) == 1
        and len(layer.shape) > 3
        and layer.shape[-1] == module.normalized_shape[0]
    )


def _grid(tokens: int, seen: Sequence[Shape], space: Shape) -> Shape | None:
    for grid in reversed(seen):
        if _fits(grid, tokens):
            return grid
    base = [size // math.gcd(*space) for size in space]
    scale = int((tokens / math.prod(base)) ** (1 / len(base)) + 1e-6)
    grid = tuple(scale * size for size in base)
    return grid if _fits(grid, tokens) else None


def _fits(grid: Shape, tokens: int) -> bool:
    return math.prod(grid) > 1 and 0 <= tokens - math.prod(grid) <= MOST_PREFIX_TOKENS
