"""Loaders with ``batch_size=None``, whose data set gives batches, or samples that nobody joins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from lightning_ifa.data.batches import BatchFunction, read_with
from lightning_ifa.data.sampling import BATCH_SIZE, is_stream


def split_batches(loader: Any, batch_fn: BatchFunction | None = None) -> Any:
    """Give a loader whose data set holds single samples, where the user's holds batches; any other as it is.

    Sample ``j`` of batch ``i`` has index ``i * size + j``, ``size`` being that of the first batch. Where an item is one
    sample without a batch axis, which its scalar target shows, items are joined to batches.

    Args:
        loader: The user's loader.
        batch_fn: The user's function from a batch to ``(x, y)``, or None.
    """
    if not isinstance(loader, DataLoader) or is_stream(loader) or loader.batch_sampler is not None:
        return loader
    ways = {name: getattr(loader, name) for name in ("num_workers", "worker_init_fn", "pin_memory")}
    first = loader.collate_fn(loader.dataset[0])
    if _is_one_sample(first):
        return DataLoader(loader.dataset, BATCH_SIZE, sampler=loader.sampler, **ways)
    size = len(read_with(batch_fn, first, raw=True)[0])
    rows = _Rows(loader.dataset, loader.collate_fn, size, batch_fn)
    if type(loader.sampler).__iter__ is SequentialSampler.__iter__:
        return DataLoader(rows, size, **ways)
    if type(loader.sampler).__iter__ is RandomSampler.__iter__:
        return DataLoader(rows, size, shuffle=True, **ways)
    return DataLoader(rows, size, sampler=_RowsOfBatches(loader.sampler, size, len(rows)), **ways)


def _is_one_sample(item: Any) -> bool:
    target = item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None
    return target is not None and getattr(target, "ndim", 0) == 0


class _RowsOfBatches(Sampler[int]):
    """The samples of those batches that the user's sampler chooses."""

    def __init__(self, sampler: Any, size: int, length: int) -> None:
        self.sampler, self._size, self._length = sampler, size, length

    def __iter__(self) -> Iterator[int]:
        for number in self.sampler:
            start = int(number) * self._size
            yield from range(start, min(start + self._size, self._length))


class _Rows(Dataset[Any]):
    """The samples of a data set that gives batches of one size, but for a smaller last one."""

    def __init__(self, dataset: Any, collate: Any, size: int, batch_fn: BatchFunction | None) -> None:
        self._dataset, self._collate, self._size, self._batch_fn = dataset, collate, size, batch_fn
        last = self._batch(len(dataset) - 1)
        self._length = (len(dataset) - 1) * size + len(read_with(batch_fn, last, raw=True)[0])
        self._held: tuple[int, Any] = (len(dataset) - 1, last)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        number, row = divmod(index, self._size)
        if self._held[0] != number:
            self._held = number, self._batch(number)
        count = len(read_with(self._batch_fn, self._held[1], raw=True)[0])
        return tree_map_only(Tensor, lambda t: t[row] if t.dim() and len(t) == count else t, self._held[1])

    def _batch(self, number: int) -> Any:
        return self._collate(self._dataset[number])
