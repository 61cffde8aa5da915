"""Evidence by place: how much each cell of the target layer's grid adds to the score of each class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

MOST_CELLS = {1: 64, 2: 8, 3: 4}
"""Cells along an axis, by the number of axes; finer grids are averaged."""

MOST_VALUES = 2**15
"""Numbers held of a sample: of very wide layers the grid is coarser."""

MOST_CLASSES = 20
MOST_BYTES = 2**28

_POOLS = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


class PlaceEvidence:
    """Gathers activations by cell, and each class's mean gradient, from the passes that are made anyway.

    Each sample's gradient is that of one class, its own. Behind pooling and one linear layer it is the same for all
    samples, and the evidence is exact; behind other heads their mean stands for the head's average slope.
    """

    def __init__(self) -> None:
        self._activations: list[NDArray[np.float16]] = []
        self._gradient: Tensor | None = None
        self._count: Tensor | None = None
        self._bytes = 0
        self._space: tuple[int, ...] = ()
        self.unit = 1.0  # of the evidence that was given

    def add(self, A: Tensor, G: Tensor, explained: Tensor, classes: int) -> None:
        """Add a batch.

        Args:
            A: Activation, ``(n, c, *space)``.
            G: Gradient of the explained class's logit, the same shape.
            explained: ``(n,)``.
            classes: Number of classes.
        """
        few = _coarsen(A).half()
        few = few.clamp(-6e4, 6e4) if bool(few.isinf().any()) else few
        self._bytes += few.numel() * 2
        if classes * few[0].numel() * 4 > MOST_BYTES:  # the gradients, which lie on the device
            self._bytes = MOST_BYTES + 1
        if self._gradient is not None and self._space != tuple(few.shape[2:]):  # inputs of several sizes
            self._bytes = MOST_BYTES + 1
        if self._bytes > MOST_BYTES or classes < 2:
            self._activations.clear()
            return
        self._activations.append(np.array(few.numpy(force=True)))  # a copy that holds no tensor
        self._space = tuple(few.shape[2:])
        if self._gradient is None or self._count is None:
            self._gradient = torch.zeros(classes, few[0].numel(), device=A.device)
            self._count = torch.zeros(classes, device=A.device)
        self._gradient.index_add_(0, explained, _coarsen(G).flatten(1) * (A[0, 0].numel() / few[0, 0].numel()))
        self._count += torch.bincount(explained, minlength=classes)

    def evidence(self, rows: int) -> NDArray[np.float16]:
        """Give ``(n, k, *cells)``, or ``(n, 0, 1)`` where there is too much to hold or nothing to tell.

        Of more than 20 classes as many fixed random sums are given, which keep their distances.
        """
        if not self._activations or self._gradient is None or self._count is None:
            return np.zeros((rows, 0, 1), dtype=np.float16)
        weights = (self._gradient / self._count.clamp(min=1)[:, None]).cpu()
        weights = weights - weights.mean(0)
        if len(weights) > MOST_CLASSES:
            rng = torch.Generator().manual_seed(0)
            mix = torch.randn(MOST_CLASSES, len(weights), generator=rng) / MOST_CLASSES**0.5
            weights = mix @ weights
        weights = weights.reshape(len(weights), -1, *self._space)
        parts = [
            torch.einsum("nc...,kc...->nk...", torch.from_numpy(part).float(), weights) for part in self._activations
        ]
        found = torch.cat(parts)
        self.unit = float(found.abs().max()) or 1.0  # half precision holds neither 1e5 nor 1e-8
        return np.array((found / self.unit).half().numpy())  # a copy: a view would keep the tensor


def _coarsen(maps: Tensor) -> Tensor:
    space = tuple(maps.shape[2:])
    if len(space) not in _POOLS:
        return maps
    most = min(MOST_CELLS[len(space)], max(1, int((MOST_VALUES / maps.shape[1]) ** (1 / len(space)) + 1e-9)))
    wanted = [min(size, most) for size in space]
    if wanted == list(space):
        return maps
    pool: Callable[[Tensor, list[int]], Tensor] = _POOLS[len(space)]  # type: ignore[assignment]
    return pool(maps, wanted)
