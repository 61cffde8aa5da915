"""Reference samples as the model gets them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_ifa.data.batches import BatchFunction, read_with
from lightning_ifa.errors import DataError
from lightning_ifa.model.forward import as_ordinary_tensor


class Samples(NamedTuple):
    """Some samples of a data set.

    Attributes:
        positions: Data-set indices, ``(n,)`` int64.
        fingerprints: Checksums of the inputs as the loader gives them, ``(n,)`` int64.
        x: Inputs on the model's device, ``(n, ...)``.
        y: Targets in the loader's own form, or None.
    """

    positions: Tensor
    fingerprints: Tensor
    x: Tensor
    y: Any


def read_samples(
    batches: Iterable[tuple[list[int], Any]],
    batch_fn: BatchFunction | None,
    prepare: Callable[[Any], Any] | None,
    device: torch.device,
) -> Iterator[Samples]:
    """Read what a reference loader yields.

    Args:
        batches: Data-set indices and the user's batch.
        batch_fn: The user's function from a batch to ``(x, y)``, or None.
        prepare: The user's function that takes a batch to the device, or None.
        device: The model's device.

    Raises:
        DataError: The user's collation does not keep one input a sample.
    """
    for rows, batch in batches:
        raw, _ = read_with(batch_fn, batch)
        sums = [zlib.crc32(np.ascontiguousarray(one.numpy(force=True)).data) for one in raw.float()]
        x, y = (as_ordinary_tensor(value) for value in read_with(batch_fn, prepare(batch) if prepare else batch))
        if len(x) != len(rows):
            raise DataError(f"the collated batch holds {len(x)} inputs for {len(rows)} samples of the data set")
        y = y.to(device) if torch.is_tensor(y) else y
        yield Samples(torch.tensor(rows), torch.tensor(sums), x.to(device), y)


def regroup(batches: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Give the same samples, whose targets are tensors, in groups of ``size``; the last one may be smaller."""
    stored: list[Samples] = []
    for batch in batches:
        stored.append(batch)
        while sum(len(part.x) for part in stored) >= size:
            joined = _join(stored)
            yield Samples(*(column[:size] for column in joined))
            stored = [Samples(*(column[size:] for column in joined))]
    if sum(len(part.x) for part in stored):
        yield _join(stored)


def _join(parts: list[Samples]) -> Samples:
    return Samples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
