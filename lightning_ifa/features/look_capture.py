"""Looks: what each channel on the way to the target layer sees on average, over the image and along its rim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_ifa.model.forward import run_forward
from lightning_ifa.model.target_layer import TargetLayer
from lightning_ifa.model.tracing import LayerShape, trace_layers, watch_outputs

MOST_BLOCKS = 5
MOST_CHANNELS = 64  # of a block, evenly chosen: what the whole image shows is in many
RIM = 1 / 7  # of each axis

REPLAYED: ContextVar[Tensor | None] = ContextVar("replayed", default=None)
"""The looks of a batch whose blocks are skipped, as they were noted when they ran; see ``ActivationCache``."""


FUSED = (nn.TransformerEncoderLayer, nn.MultiheadAttention)
"""Modules that compute in another way, to other bits, while anything in them is hooked."""


def choose_blocks(model: nn.Module, layers: Sequence[LayerShape], target: nn.Module) -> list[LayerShape]:
    """Choose the modules whose outputs are looked at: the last of each width and resolution, a few of them.

    Args:
        model: The network.
        layers: Its modules in the order in which they returned.
        target: The target layer; what returned after it is left out.
    """
    order = [layer.module for layer in layers]
    before = layers[: order.index(target) + 1] if target in order else layers
    fused = {inner for module in model.modules() if isinstance(module, FUSED) for inner in module.modules()}
    free = [layer for layer in before if len(layer.shape) > 2 and layer.calls == 1 and layer.module not in fused]
    last = {layer.shape[1:]: layer for layer in free}
    blocks = sorted(last.values(), key=lambda layer: order.index(layer.module))
    if len(blocks) > MOST_BLOCKS:
        blocks = [blocks[i] for i in np.linspace(0, len(blocks) - 1, MOST_BLOCKS).round().astype(int)]
    return blocks


def look(output: Tensor) -> Tensor:
    """Average each channel over space, and over the outer rim, ``(n, 2 c)`` float32.

    Args:
        output: ``(n, c, *space)``; of tokens ``(n, tokens, c)`` the mean over tokens stands for both.
    """
    maps = output.detach()
    if _is_tokens(maps.shape):  # tokens have no rim that is known here
        means = _few_channels(maps, 2).float().mean(1)
        return torch.cat([means, means], 1)
    maps = _few_channels(maps, 1)
    inside = tuple(slice(width, size - width) for size in maps.shape[2:] if (width := max(1, round(size * RIM))))
    total = maps.flatten(2).sum(2, dtype=torch.float32)
    core = maps[(slice(None), slice(None), *inside)].flatten(2)
    positions, within = maps[0, 0].numel(), core.shape[2]
    rim = (total - core.sum(2, dtype=torch.float32)) / max(positions - within, 1)
    return torch.cat([total / positions, rim], 1)


def _few_channels(maps: Tensor, axis: int) -> Tensor:
    return maps[(slice(None),) * axis + (_every(maps.shape[axis]),)]


def _every(channels: int) -> slice:
    return slice(0, channels, -(-channels // MOST_CHANNELS))


class LookCapture:
    """Notes the looks of every batch while the network runs; what fails here costs only the looks."""

    def __init__(self) -> None:
        self._blocks: list[nn.Module] | None = None
        self._names: list[str] = []
        self._widths: list[int] = []
        self._now: dict[int, Tensor] = {}
        self._rows: list[NDArray[np.float32]] = []
        self._complete = True

    def choose(self, model: nn.Module, target: TargetLayer, x: Tensor, state: Mapping[str, Tensor] | None) -> None:
        """See on two samples which blocks lie before the layer; once for all."""
        if self._blocks is None:
            self._blocks = []
            with suppress(Exception):
                few = x[:2]
                _, layers = trace_layers(model, lambda: run_forward(model, few, state))
                by_sample = [layer for layer in layers if layer.shape[0] == len(few)]  # no tokens or frames come first
                blocks = choose_blocks(model, by_sample, target.module)
                self._blocks, self._names = [block.module for block in blocks], [block.name for block in blocks]
                channels = [block.shape[2 if _is_tokens(block.shape) else 1] for block in blocks]
                self._widths = [2 * len(range(count)[_every(count)]) for count in channels]

    def watch(self) -> AbstractContextManager[None]:
        """Note the first output of each block inside a ``with`` block."""
        self._now = {}
        return watch_outputs(self._blocks or (), self._note)

    @torch.no_grad()
    def _note(self, number: int, output: Any) -> None:
        if number not in self._now and torch.is_tensor(output):
            self._now[number] = look(output)

    def keep(self) -> None:
        """Keep the looks of the batch that has just been run."""
        found = self.take() if REPLAYED.get() is None else REPLAYED.get()
        if found is None:
            self._complete = False
        else:
            self._rows.append(found.numpy(force=True))

    def take(self) -> Tensor | None:
        """Give the looks of the batch that has just been run, ``(n, m)``; None unless each block ran on all of it."""
        parts = [self._now[number] for number in sorted(self._now)]
        self._now = {}
        is_whole = len(parts) == len(self._blocks or ()) and len({len(part) for part in parts}) == 1
        return torch.cat(parts, 1) if is_whole else None

    def looks(self, rows: int) -> NDArray[np.float32]:
        """Give ``(n, m)`` looks, or ``(n, 0)`` where they could not be taken."""
        none = np.zeros((rows, 0), dtype=np.float32)
        if not self._complete or sum(map(len, self._rows)) != rows:
            return none
        found = np.concatenate(self._rows)
        return found if np.isfinite(found).all() else none

    @property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """Name and number of looks of each block."""
        return tuple(zip(self._names, self._widths, strict=False))


def _is_tokens(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[1] > 1
