"""Reference samples as the model gets them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from lightning_ifa.data.batches import BatchFunction, read_with, replace_input, unwrap
from lightning_ifa.data.volume_grid import Affine, tensor_grids
from lightning_ifa.errors import DataError
from lightning_ifa.model.forward import as_ordinary_tensor


class Samples(NamedTuple):
    """Some samples of a data set.

    Attributes:
        positions: Data-set indices, ``(n,)`` int64.
        fingerprints: Checksums of the inputs as the loader gives them, ``(n,)`` int64.
        x: Inputs on the model's device, ``(n, ...)``.
        y: Targets in the loader's own form, or None.
        batch: The batch on the model's device with ``x`` in it, for a network that is called with it; else None.
        grids: Affine and file of each input, where the tensor tells them; else None.
    """

    positions: Tensor
    fingerprints: Tensor
    x: Tensor
    y: Any
    batch: Any = None
    grids: list[tuple[Affine | None, str]] | None = None


@dataclass(frozen=True)
class SampleReader:
    """Reads what a reference loader yields.

    Attributes:
        batch_fn: The user's function from a batch to ``(x, y)``, or None.
        prepare: Makes a batch ready for the model, as the user's training loop does, or None.
        device: The model's device.
        keeps_batch: Whether the network is called with the whole batch.
        alone: Collates the sample of one data-set index alone.
        may_drop: Whether samples that the user's collation drops are left out; if not, they are collated alone.
    """

    batch_fn: BatchFunction | None
    prepare: Callable[[Any], Any] | None
    device: torch.device
    keeps_batch: bool
    alone: Callable[[int], Any]
    may_drop: bool

    def read(self, batches: Iterable[tuple[list[int], Any]]) -> Iterator[Samples]:
        """Read batches with their data-set indices.

        Raises:
            DataError: The user's collation does not keep one input a sample.
        """
        for rows, batch in batches:
            count = self._count(batch)
            if count == len(rows):
                yield self._samples(rows, batch)
            elif count > len(rows):
                raise DataError(f"the collated batch holds {count} inputs for {len(rows)} samples of the data set")
            elif not self.may_drop:
                yield from self._one_by_one(rows)
            elif count:
                kept = self._find_kept(rows, batch, count)
                yield from self._one_by_one(rows) if kept is None else [self._samples(kept, batch)]

    def input_of(self, batch: Any) -> tuple[Tensor, Any]:
        """Read input and target as the loader gives them, or made ready for the model where they cannot be read yet."""
        if self.prepare is None:
            return read_with(self.batch_fn, batch)
        try:
            return read_with(self.batch_fn, batch, raw=True)
        except Exception:  # the user's own batch_fn expects what the transfer hooks make
            return read_with(self.batch_fn, self.prepare(batch))

    def _count(self, batch: Any) -> int:
        return 0 if batch is None else len(self.input_of(batch)[0])

    def _samples(self, rows: list[int], batch: Any) -> Samples:
        loaded = self.input_of(batch)[0]
        raw = loaded.float()
        sums = [zlib.crc32(np.ascontiguousarray(one.numpy(force=True)).data) for one in raw]
        grids = tensor_grids(loaded, len(rows))
        ready = self.prepare(batch) if self.prepare else batch
        given, y = read_with(self.batch_fn, ready)
        if len(given) != len(rows):
            raise DataError(f"the batch made ready for the model holds {len(given)} inputs for {len(rows)} samples")
        x = as_ordinary_tensor(unwrap(given)).to(self.device)
        y = as_ordinary_tensor(unwrap(y)).to(self.device) if torch.is_tensor(y) else y
        if not self.keeps_batch:
            return Samples(torch.tensor(rows), torch.tensor(sums), x, y, grids=grids)
        whole = replace_input(ready, given, x)
        if whole is ready and x is not given:
            whole = (x, y)  # batch_fn has made the input
        moved = tree_map_only(Tensor, lambda t: t if t is x else t.to(self.device), whole)
        return Samples(torch.tensor(rows), torch.tensor(sums), x, y, moved, grids)

    def _find_kept(self, rows: list[int], batch: Any, count: int) -> list[int] | None:
        """Which samples are left in a batch: those whose inputs, collated alone, are in it, in its order."""
        inputs = self.input_of(batch)[0]
        kept: list[int] = []
        for row in rows:
            batch_alone = self._collate_alone(row)
            if len(kept) == count or batch_alone is None:
                continue
            one = self.input_of(batch_alone)[0]
            if len(one) == 1 and one[0].shape == inputs[len(kept)].shape and torch.equal(one[0], inputs[len(kept)]):
                kept.append(row)
        return kept if len(kept) == count else None

    def _one_by_one(self, rows: list[int]) -> Iterator[Samples]:
        for row in rows:
            batch = self._collate_alone(row)
            if self._count(batch) == 1:
                yield self._samples([row], batch)
            elif not self.may_drop:
                raise DataError(f"the loader's collate_fn gives no input any more for the sample of index {row}")

    def _collate_alone(self, row: int) -> Any:
        try:
            return self.alone(row)
        except Exception:  # a collation that drops every sample it was given may fail on an empty list
            return None


def regroup(batches: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Give the same samples in groups of ``size``; smaller where the inputs' shape changes, and at the end.

    Targets are tensors.
    """
    stored: list[Samples] = []
    for batch in batches:
        if stored and stored[-1].x.shape[1:] != batch.x.shape[1:]:
            yield _join(stored)
            stored = []
        stored.append(batch)
        while sum(len(part.x) for part in stored) >= size:
            joined = _join(stored)
            yield _take(joined, slice(size))
            stored = [_take(joined, slice(size, None))]
    if sum(len(part.x) for part in stored):
        yield _join(stored)


def _join(parts: list[Samples]) -> Samples:
    positions, fingerprints, x, y = (torch.cat(columns) for columns in zip(*(part[:4] for part in parts), strict=True))
    first = parts[0]
    if first.batch is None:
        return Samples(positions, fingerprints, x, y)

    def cat(*values: Any) -> Any:
        if not torch.is_tensor(values[0]) or not values[0].dim():
            return values[0]
        return x if values[0] is first.x else torch.cat(values)

    return Samples(positions, fingerprints, x, y, tree_map(cat, first.batch, *(part.batch for part in parts[1:])))


def _take(samples: Samples, rows: slice) -> Samples:
    x = samples.x[rows]

    def take(value: Tensor) -> Tensor:
        if value is samples.x:
            return x
        return value[rows] if value.dim() and len(value) == len(samples.x) else value

    batch = tree_map_only(Tensor, take, samples.batch)
    return Samples(samples.positions[rows], samples.fingerprints[rows], x, samples.y[rows], batch)
