"""Which samples are looked at: the same ones in every epoch, run and world size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_ifa.data.preserved_state import find_generators, preserve_generators, seed_generator
from lightning_ifa.data.reach import Indices as Indices
from lightning_ifa.data.reach import Reach, find_reach
from lightning_ifa.data.seeding import seed_host
from lightning_ifa.errors import DataError, IFAWarning

DRAWS = 8
STRIDE = 1_000_003  # between the states of two seeds: a prime beyond most data sets
BATCH_SIZE = 32  # where the user's loader has none of its own


def reference_indices(
    loader: DataLoader[Any], max_samples: int, seed: int, split: str, batches: int | None = None
) -> Indices:
    """Draw the fixed reference subset of a loader's data set.

    Args:
        loader: The user's loader. It is never iterated; only the samples that it can reach are drawn.
        max_samples: Most samples that are drawn.
        seed: Seed of the draw.
        split: Name of the split, for messages.
        batches: Number of batches that are ever taken from the loader, if not all.

    Returns:
        Sorted data-set indices, shape ``(m,)``, int64.

    Raises:
        DataError: The data set cannot be indexed, has no length, or is empty; or a sampler names what it does not have.
    """
    reach = reach_of(loader, split, batches)
    if reach.doubt:
        warnings.warn(reach.doubt, IFAWarning, stacklevel=2)
    return draw_from(reach.indices, max_samples, seed)


def reach_of(loader: DataLoader[Any], split: str, batches: int | None = None) -> Reach:
    """Find the samples that a loader can yield; arguments as for ``reference_indices``.

    Raises:
        DataError: The data set cannot be indexed, has no length, or is empty; or a sampler names what it does not have.
    """
    if is_stream(loader):
        raise DataError(
            f"the {split} loader runs over {type(loader.dataset).__name__}, which cannot be indexed, so the same "
            "samples cannot be looked at in every epoch; pass a loader over a map-style data set"
        )
    reach = find_reach(loader, split, batches)
    if not len(reach.indices):
        raise DataError(f"the {split} loader has no samples")
    return reach


def draw_from(reachable: Indices, max_samples: int, seed: int) -> Indices:
    """Draw at most ``max_samples`` of some sorted data-set indices; sorted again, ``(m,)``."""
    if len(reachable) <= max_samples:
        return reachable
    return np.sort(np.random.default_rng(seed).choice(reachable, size=max_samples, replace=False))


def reference_loader(
    loader: DataLoader[Any], indices: Indices, seed: int, apart: int = 0, ask: Callable[[], None] | None = None
) -> DataLoader[Any]:
    """Make a loader of our own over fixed indices of the user's data set.

    It yields ``(indices, batch)``. Each sample is drawn under a seed of its own, of the global generators and of those
    that the data set or the collation holds, so that random augmentation gives the same input in every epoch, batch
    size, worker count and world size. Without workers the data set's own generators move: ``preserve_generators``.

    Args:
        loader: The user's loader: its data set, collation, batch size and workers are taken over.
        indices: Data-set indices, shape ``(m,)``.
        seed: Seed of the samples' random states.
        apart: How many of the first samples share no batch with the others.
        ask: Function to call before each sample that this process reads; what it raises ends the reading.
    """
    workers, size, n = loader.num_workers, batch_size(loader), len(indices)
    parts = ((0, apart), (apart, n))
    return DataLoader(
        _Indexed(loader.dataset, indices, seed, loader.collate_fn, None if workers else ask),
        batch_sampler=[[*range(i, min(i + size, end))] for start, end in parts for i in range(start, end, size)],
        collate_fn=_KeepIndices(loader.collate_fn),
        num_workers=workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context if workers else None,
        pin_memory=loader.pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )


def draw_twice(
    loader: DataLoader[Any], indices: Indices, seed: int, ask: Callable[[], None] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Collate a few samples twice, under different random states; they differ where the data set augments.

    Args:
        loader: The user's loader.
        indices: Data-set indices; up to eight of them are drawn, since an augmentation may leave some alone.
        seed: Seed of the draws.
        ask: Function to call before each sample; what it raises ends the reading.

    Yields:
        Two batches of the same samples, no larger than the loader's own: its samples may be of several sizes.
    """
    few, size = indices[:DRAWS], batch_size(loader)
    draws = [_Indexed(loader.dataset, few, state, loader.collate_fn, ask) for state in (seed, seed + 1)]
    for start in range(0, len(few), size):
        rows = range(start, min(start + size, len(few)))
        with preserve_generators(loader.dataset, loader.collate_fn), _explain_sizes():
            first, second = (loader.collate_fn([draw[row][1] for row in rows]) for draw in draws)
        yield first, second


def collate_alone(loader: DataLoader[Any], seed: int, index: int) -> Any:
    """Collate the sample of one data-set index alone, drawn as ``reference_loader`` draws it."""
    return loader.collate_fn([_Indexed(loader.dataset, np.array([index]), seed, loader.collate_fn, None)[0][1]])


def read_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """Go through a reference loader.

    Raises:
        DataError: The samples of a batch are of several sizes, and the user's collation cannot join them.
    """
    with _explain_sizes():
        yield from loader


@contextmanager
def _explain_sizes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _UNEQUAL):
            raise
        raise DataError(
            "the samples of a batch are of several sizes, which the loader's collate_fn cannot join; a loader with "
            "batch_size=1, or a collate_fn that pads or crops, can be analysed"
        ) from error


_UNEQUAL = ("stack expects each tensor to be equal size", "Trying to resize storage that is not resizable")


def sample_ids(dataset: Dataset[Any], indices: Indices) -> NDArray[np.str_]:
    """Name samples: by the data set's own ``sample_ids`` if it has them, else by index.

    Returns:
        Shape ``(m,)``, unicode strings.
    """
    own = getattr(dataset, "sample_ids", None)
    if own is None:
        return indices.astype(str)
    return np.array([str(own[int(i)]) for i in indices], dtype=str)


def choose_probes(labels: NDArray[Any], count: int) -> Indices:
    """Choose rows to picture: the first of each class, then the second of each, and so on.

    Args:
        labels: Class or stratum of each row, shape ``(n,)``.
        count: Most rows that are chosen.

    Returns:
        Row numbers, shape ``(min(n, count),)``; they depend on the data only, never on the model.
    """
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.sum(labels == label))
    return np.lexsort((labels, rank))[:count]


def is_stream(loader: Any) -> bool:
    """Whether a loader's samples come as they come and cannot be asked for by index."""
    dataset = getattr(loader, "dataset", None)
    return (
        not isinstance(loader, DataLoader)
        or isinstance(dataset, IterableDataset)
        or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"))
    )


def batch_size(loader: DataLoader[Any]) -> int:
    """The loader's batch size, or that of its own batch sampler."""
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or BATCH_SIZE


class _Indexed(Dataset[tuple[int, Any]]):
    """The user's samples at fixed indices, each under its own seed."""

    def __init__(self, dataset: Any, indices: Indices, seed: int, collate: Any, ask: Callable[[], None] | None) -> None:
        self._dataset, self._indices, self._seed = dataset, indices, seed
        self._collate, self._ask = collate, ask
        self._generators: list[Any] | None = None  # found where they are used: in the worker

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, row: int) -> tuple[int, Any]:
        if self._ask is not None:
            self._ask()
        if self._generators is None:
            self._generators = find_generators(self._dataset, self._collate)
        index = int(self._indices[row])
        seed = self._seed * STRIDE + index
        seed_host(seed % 2**32)  # the generators read 32 bits only
        for place, generator in enumerate(self._generators, 1):
            seed_generator(generator, seed + place * STRIDE)
        return index, self._dataset[index]


class _KeepIndices:
    """The user's collation, with the indices beside the batch; a class so that workers can unpickle it."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, rows: list[tuple[int, Any]]) -> tuple[list[int], Any]:
        indices, samples = zip(*rows, strict=True)
        return list(indices), self._collate(list(samples))
