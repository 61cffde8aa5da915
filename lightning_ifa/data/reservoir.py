"""A uniform random sample of a stream, drawn while the stream is read, and offered as an ordinary loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from lightning_ifa.data.batches import BatchFunction, read_with
from lightning_ifa.errors import BatchError, DataError

MOST_BYTES = 2**29
"""Inputs held at most; a stream of large inputs gives fewer samples."""


class Reservoir:
    """Reservoir sampling (Vitter 1985, algorithm R): every sample of the stream is held with equal probability.

    The choice depends on the seed and the sample's position only, so that a stream that comes in the same order
    gives the same samples every time.

    Args:
        size: Most samples that are held.
        seed: Seed of the choice.
        batch_fn: Function that takes ``(x, y)`` from a batch of unusual form.
    """

    def __init__(self, size: int, seed: int, batch_fn: BatchFunction | None = None) -> None:
        self._size, self._batch_fn = size, batch_fn
        self._rng = np.random.default_rng(seed)
        self._held: list[tuple[int, Tensor, Tensor | None]] = []
        self._seen = 0

    def add(self, batch: Any) -> None:
        """Offer a batch of the stream; the samples that are kept are copied to the CPU.

        Raises:
            BatchError: No input and target can be read from it, or the target is no tensor.
        """
        x, y = read_with(self._batch_fn, batch)
        if y is not None and not torch.is_tensor(y):
            raise BatchError(f"a target of type {type(y).__name__} cannot be kept while streaming; a tensor can")
        if self._seen == 0:
            self._size = max(1, min(self._size, MOST_BYTES // max(x[0].numel() * x.element_size(), 1)))
        positions = self._seen + np.arange(len(x))
        drawn = (self._rng.random(len(x)) * (positions + 1)).astype(np.int64)
        slots = np.where(positions < self._size, positions, drawn)
        self._seen += len(x)
        for row in np.flatnonzero(slots < self._size):
            sample = (int(positions[row]), _copy_to_cpu(x[row]), None if y is None else _copy_to_cpu(y[row]))
            self._held[slots[row] : slots[row] + 1] = [sample]

    def loader(self, batch_size: int) -> DataLoader[Any]:
        """Give a loader over the held samples; the index of each is its position in the stream.

        Raises:
            DataError: No batch was offered yet.
        """
        if not self._held:
            raise DataError("no sample has come out of the stream yet")
        held = _HeldSamples(sorted(self._held, key=lambda sample: sample[0]), self._seen)
        return DataLoader(held, batch_size, sampler=SubsetRandomSampler(held.positions))


class _HeldSamples(Dataset[Any]):
    """The held samples by their positions in the stream."""

    def __init__(self, samples: list[tuple[int, Tensor, Tensor | None]], length: int) -> None:
        self._samples = {position: x if y is None else (x, y) for position, x, y in samples}
        self._length = length
        self.positions = list(self._samples)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Any:
        return self._samples[position]


def _copy_to_cpu(value: Tensor) -> Tensor:
    """Copy a tensor to the CPU, outside inference mode, so that the copy may be used anywhere."""
    with torch.inference_mode(False), torch.no_grad():
        return value.detach().cpu().clone()
