"""Recognise outputs that are maps in another form: tokens of a transformer, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from lightning_ifa.model.axes import MOST_EXTRA_TOKENS, Layout
from lightning_ifa.model.tracing import LayerShape

SEQUENCE = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
)
"""Modules that take three axes for ``(n, channels, positions)``."""

Shape = tuple[int, ...]


def find_layouts(layers: Sequence[LayerShape], x: Shape) -> dict[str, Layout]:
    """Find the layers of a dry pass whose output is maps in another form, and how to take the maps.

    Tokens are ``(n, t, c)`` outputs on an image or a volume, of a shape that a ``Linear`` or ``LayerNorm`` returned,
    which work on the last axis, and that no module of ``SEQUENCE``, which have their channels in the middle, did.
    Their grid is that of the last feature map before them, the patch embedding, that has at most
    ``MOST_EXTRA_TOKENS`` positions fewer. Without one it is the largest with the input's proportions, but only if
    other tokens of the network have such a feature map, as before merged patches, or the network has neither feature
    maps nor sequences: else the two axes may be channels and anything. Positions run along the last axis first; what
    is left over stands before them and is dropped. Channels are last where a ``LayerNorm`` over the last axis
    returned the same shape.

    Args:
        layers: The layers of the pass, in order of completion.
        x: Shape of the input, ``(n, channels, *space)``.

    Returns:
        Layouts by layer name; layers that return ``(n, c, *space)`` are left out.
    """
    found: dict[str, Layout] = {}
    normed = {layer.shape for layer in layers if _normalises_last_axis(layer)}
    sequences = {layer.shape for layer in layers if isinstance(layer.module, SEQUENCE) and len(layer.shape) == 3}
    by_token = {layer.shape for layer in layers if isinstance(layer.module, (nn.Linear, nn.LayerNorm))} - sequences
    maps: list[Shape] = []
    tokens: list[tuple[LayerShape, Shape | None]] = []
    for layer in layers:
        if len(layer.shape) == len(x) and layer.shape in normed:
            space = layer.shape[1:-1]
            found[layer.name] = Layout(len(space), space, order=tuple(range(len(space))))
        elif len(layer.shape) == len(x):
            maps.append(layer.shape[2:])
        elif len(x) > 3 and len(layer.shape) == 3 and layer.shape[0] == x[0] and layer.shape in by_token:
            tokens.append((layer, next((grid for grid in reversed(maps) if _fits(grid, layer.shape[1])), None)))
    may_guess = any(grid for _, grid in tokens) or not (maps or sequences)
    for layer, grid in tokens:
        grid = grid or (_in_proportion(layer.shape[1], x[2:]) if may_guess else None)
        if grid is not None:
            front = layer.shape[1] - math.prod(grid)
            found[layer.name] = Layout(1, grid, front, tuple(range(len(grid))))
    return found


def _normalises_last_axis(layer: LayerShape) -> bool:
    module = layer.module
    return (
        isinstance(module, nn.LayerNorm)
        and len(module.normalized_shape) == 1
        and len(layer.shape) > 3
        and layer.shape[-1] == module.normalized_shape[0]
    )


def _in_proportion(tokens: int, space: Shape) -> Shape | None:
    """The largest grid with the input's proportions that so many tokens fill."""
    base = [size // math.gcd(*space) for size in space]
    scale = int((tokens / math.prod(base)) ** (1 / len(base)) + 1e-6)
    grid = tuple(scale * size for size in base)
    return grid if _fits(grid, tokens) else None


def _fits(grid: Shape, tokens: int) -> bool:
    return math.prod(grid) > 1 and 0 <= tokens - math.prod(grid) <= MOST_EXTRA_TOKENS
