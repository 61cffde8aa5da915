"""Maps of reduced activations, and their similarity to the full ones.

The map is HiResCAM's, ``sum_c G * A``, with the gradient of the full network and the reduced activation in A's place:
dropping channels then leaves their maps out of the sum, and dropping components theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_ifa.statistics.channel_selection import Refill, similarity


class ReducedMaps:
    """Compares reduced maps of some samples with the full ones.

    Args:
        A: Activations, ``(n, c, *space)``.
        G: Gradients of the explained logits, of the same shape.
    """

    def __init__(self, A: Tensor, G: Tensor) -> None:
        self._A, self._G = A.flatten(2), G.flatten(2)
        self._P = self._A * self._G
        self._full = self._P.sum(1).numpy()

    def mask_similarity(self, masks: NDArray[np.bool_], fill: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the similarity, ``(r, n)``, if some channels are kept and the others constant.

        Args:
            masks: Masks of the channels to keep, ``(r, c)``, or ``(r, n, c)`` if each sample keeps its own.
            fill: Constants in place of the others, ``(c,)``.
        """
        kept = torch.from_numpy(masks).to(self._P)
        axes = "rc" if kept.dim() == 2 else "rnc"
        maps = torch.einsum(f"{axes},ncs->rns", kept, self._P)
        if fill.any():
            constant = self._G * torch.from_numpy(fill).to(self._G)[:, None]
            maps += torch.einsum(f"{axes},ncs->rns", 1 - kept, constant)
        return similarity(maps.numpy(), self._full)

    def refill_similarity(self, refills: Sequence[Refill]) -> NDArray[np.float64]:
        """Compute the similarity, ``(r, n)``, if every channel is predicted from few numbers."""
        return np.stack([similarity(self._refilled_maps(refill).numpy(), self._full) for refill in refills])

    def _refilled_maps(self, refill: Refill) -> Tensor:
        into, out, offset = (torch.from_numpy(np.ascontiguousarray(part)).to(self._A) for part in refill)
        inside = torch.matmul(into.T, self._A) * torch.matmul(out, self._G)
        return inside.sum(1) + torch.einsum("c,ncs->ns", offset, self._G)

    def component_similarity(
        self, mean: NDArray[np.float64], axes: NDArray[np.float64], counts: Sequence[int]
    ) -> NDArray[np.float64]:
        """Compute the similarity, ``(r, n)``, if the first components are kept.

        Args:
            mean: Mean activations, ``(c,)``.
            axes: Components as columns, ``(c, c)``.
            counts: Numbers of components to keep, rising, r of them.
        """
        centre, directions = (torch.from_numpy(np.ascontiguousarray(part)).to(self._A) for part in (mean, axes))
        parts = torch.matmul(directions.T, self._A - centre[:, None]) * torch.matmul(directions.T, self._G)
        base = torch.einsum("c,ncs->ns", centre, self._G)
        first = torch.arange(len(mean))[None, :] < torch.tensor(list(counts))[:, None]
        return similarity((base + torch.einsum("rc,ncs->rns", first.to(parts), parts)).numpy(), self._full)
