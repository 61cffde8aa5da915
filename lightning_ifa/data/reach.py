"""Which samples of its data set a loader can yield: its samplers are asked, whatever class they have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_ifa.data.preserved_state import find_generators, preserve, seed_generator
from lightning_ifa.data.seeding import isolate_host, seed_host
from lightning_ifa.errors import DataError

Indices = NDArray[np.int64]

PASSES = 4
"""How often a sampler is asked whose samples differ from one time to the next."""

STRIDE = 1_009
"""Between the seeds of two runs: more than a sampler has generators."""

MOST_ROUNDS = 4
"""How many times the data set's length is read of a sampler that does not end."""


@dataclass(frozen=True)
class Reach:
    """The samples that a loader can yield.

    Attributes:
        indices: Sorted data-set indices, ``(n,)``.
        doubt: Why there may be others, a sentence; empty if these are all.
        asked: Whether a sampler was run to find out, which may differ from rank to rank.
    """

    indices: Indices
    doubt: str = ""
    asked: bool = False


def find_reach(loader: DataLoader[Any], split: str, batches: int | None = None) -> Reach:
    """Find the samples that a loader can yield, over all epochs and ranks; nothing is disturbed by asking.

    Args:
        loader: A loader over a data set that can be indexed.
        split: Name of the split, for messages.
        batches: Number of batches that are ever taken from the loader, if not all. In a fixed order, later samples are
            out of reach; where samples are shuffled, none is.

    Raises:
        DataError: A sampler or ``Subset`` names a sample that the data set does not have, or cannot be asked.
    """
    dataset = loader.dataset
    _require_whole_subsets(dataset, split)
    groups: Any = loader.batch_sampler
    sampling = _Sampling(len(dataset), split)  # type: ignore[arg-type]  # it is no stream
    if groups is None or type(groups).__iter__ is BatchSampler.__iter__:
        size, drops = (1, False) if groups is None else (groups.batch_size, groups.drop_last)
        found = sampling.of(loader.sampler if groups is None else groups.sampler)
        most = None if batches is None else batches * size
    else:
        found, size, drops, most = sampling.ask(groups), 1, False, batches
    kept = [part.cut(most, size, drops, found.is_fixed) for part in found.parts]
    return Reach(_distinct(kept, sampling.length), found.doubt, found.asked)


@dataclass(frozen=True)
class _Part:
    """What a sampler yields on one rank in one epoch.

    Attributes:
        ids: Data-set indices, ``(n,)``.
        ends: For a batch sampler, how many of them there are up to the end of each batch.
    """

    ids: Indices
    ends: Indices | None = None

    def cut(self, most: int | None, size: int, drops: bool, is_fixed: bool) -> Indices:
        """Leave out what no batch is made of; of shuffled samples, each is in a batch now and then."""
        full = len(self.ids) // size * size if drops else len(self.ids)
        if not is_fixed:
            return self.ids if full else self.ids[:0]
        if most is not None and self.ends is not None:
            most = int(self.ends[min(most, len(self.ends)) - 1]) if most and len(self.ends) else 0
        return self.ids[: full if most is None else min(most, full)]


@dataclass(frozen=True)
class _Found:
    """What a sampler yields on all ranks, and in some epochs if these differ; further fields as in ``Reach``."""

    parts: list[_Part]
    is_fixed: bool
    doubt: str = ""
    asked: bool = False


@dataclass(frozen=True)
class _Sampling:
    """Asks the samplers of one loader.

    Attributes:
        length: Number of samples of the data set.
        split: Name of the split, for messages.
    """

    length: int
    split: str

    def of(self, sampler: Any) -> _Found:
        """Find what a sampler yields: from what torch's own classes hold, else by running it."""
        iterate = getattr(type(sampler), "__iter__", None)
        if isinstance(sampler, (list, tuple, range, np.ndarray, Tensor)):
            return self._held(sampler, is_fixed=True)
        if iterate is SequentialSampler.__iter__:
            return self._held(range(len(sampler)), is_fixed=True)
        if iterate is RandomSampler.__iter__:
            return self._held(range(len(sampler.data_source)), is_fixed=False)
        if iterate is SubsetRandomSampler.__iter__:
            return self._held(sampler.indices, is_fixed=False)
        if iterate is WeightedRandomSampler.__iter__:
            return self._held(sampler.weights.nonzero().flatten(), is_fixed=False)
        inner = getattr(getattr(sampler, "dataset", None), "_sampler", None)
        if isinstance(sampler, DistributedSampler) and inner is not None:
            return _spread(self.of(inner), sampler)  # Lightning spreads the places of the user's sampler over the ranks
        if iterate is DistributedSampler.__iter__:
            return _spread(self._held(range(len(sampler.dataset)), is_fixed=True), sampler)
        return self.ask(sampler)

    def ask(self, sampler: Any) -> _Found:
        """Run a sampler some times under fixed random states, each rank's part if it has ranks; then put it back.

        Raises:
            DataError: It can be run only once, so that asking would take its samples from the training.
        """
        name = type(sampler).__name__
        if _runs_once(sampler):
            raise DataError(
                f"the samples of the {self.split} loader are chosen by a {name} that can be run only once, so it "
                "cannot be told which samples they are; give a sampler, or a batch sampler, that starts anew with each "
                "iter()"
            )
        with preserve(sampler), isolate_host():
            first, second = self._run(sampler, 0), self._run(sampler, 1)
            if all(np.array_equal(a.ids, b.ids) for a, b in zip(first, second, strict=True)):
                return _Found(first, is_fixed=True, asked=True)
            once, twice = (_distinct([part.ids for part in parts], self.length) for parts in (first, first + second))
            again = _distinct([part.ids for part in second], self.length)
            if len(once) == len(again) == len(twice) or len(twice) == self.length:
                return _Found([*first, *second], is_fixed=False, asked=True)
            further = [part for number in range(2, PASSES) for part in self._run(sampler, number)]
        doubt = f"the {self.split} loader's {name} chooses other samples each time; those of {PASSES} runs are analysed"
        return _Found([*first, *second, *further], is_fixed=False, doubt=doubt, asked=True)

    def _held(self, ids: Any, is_fixed: bool) -> _Found:
        return _Found([_Part(self._indices(ids))], is_fixed)

    def _run(self, sampler: Any, number: int) -> list[_Part]:
        seed_host(number)
        for place, generator in enumerate(find_generators(sampler)):
            seed_generator(generator, number * STRIDE + place)
        owners = [each for each in (sampler, getattr(sampler, "sampler", None)) if each is not None]
        for owner in owners:
            if callable(getattr(owner, "set_epoch", None)):
                owner.set_epoch(number)
        spread = next((each for each in owners if {"rank", "num_replicas"} <= set(getattr(each, "__dict__", ()))), None)
        if spread is None:
            return [self._read(iter(sampler))]
        parts = []
        for rank in range(spread.num_replicas):
            spread.rank = rank
            parts.append(self._read(iter(sampler)))
        return parts

    def _read(self, items: Iterator[Any]) -> _Part:
        """Read what a sampler yields, and of one that does not end some rounds."""
        most = MOST_ROUNDS * self.length
        first = list(islice(items, 1))
        if not first or not _is_group(first[0]):
            return _Part(self._indices(first + list(islice(items, most))))
        groups = [list(group) for group in chain(first, islice(items, most // max(len(first[0]), 1)))]
        ends = np.cumsum([len(group) for group in groups], dtype=np.int64)
        return _Part(self._indices(list(chain.from_iterable(groups))), ends)

    def _indices(self, ids: Any) -> Indices:
        """Take ids for indices of the data set.

        Raises:
            DataError: One is no whole number, or names no sample; the first such id is told.
        """
        numbers = np.arange(ids.start, ids.stop, ids.step) if isinstance(ids, range) else _as_numbers(ids)
        if numbers is None:
            place, bad = next((place, one) for place, one in enumerate(ids) if not _is_whole(one))
            raise DataError(
                f"the sampler of the {self.split} loader yields {bad!r}, a {type(bad).__name__} (at its place {place})"
                "; a whole number is expected, the sample's index in the data set"
            )
        outside = np.flatnonzero((numbers >= self.length) | (numbers < -self.length))
        if len(outside):
            place = int(outside[0])
            raise DataError(
                f"the sampler of the {self.split} loader yields sample {numbers[place]} (at its place {place}), which "
                f"the data set of {self.length} samples does not have; indices go from 0 to {self.length - 1}"
            )
        return np.where(numbers < 0, numbers + self.length, numbers).astype(np.int64)


def _spread(found: _Found, sampler: DistributedSampler[Any]) -> _Found:
    """Spread the samples of one process over the ranks, as a DistributedSampler does."""
    ranks = sampler.num_replicas
    ids = [part.ids for part in found.parts]
    if sampler.drop_last and not sampler.shuffle:
        ids = [one[: len(one) // ranks * ranks] for one in ids]
    parts = [_Part(one[rank::ranks]) for one in ids for rank in range(ranks)]
    return replace(found, parts=parts, is_fixed=found.is_fixed and not sampler.shuffle)


def _as_numbers(ids: Any) -> Indices | None:
    """Give ids as whole numbers; None if one is none."""
    if not len(ids):
        return np.empty(0, np.int64)
    try:
        numbers = np.asarray(ids)
    except (ValueError, TypeError, RuntimeError):
        numbers = np.empty(0, object)
    if numbers.dtype.kind in "iu" and numbers.ndim == 1:
        return numbers
    return np.array([int(one) for one in ids]) if all(map(_is_whole, ids)) else None


def _distinct(parts: list[Indices], length: int) -> Indices:
    """Give each index that occurs once, sorted."""
    found = np.zeros(length, dtype=bool)
    for ids in parts:
        found[ids] = True
    return np.flatnonzero(found)


def _is_group(item: Any) -> bool:
    return isinstance(item, (list, tuple, range)) or getattr(item, "ndim", 0) > 0


def _is_whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point() and not value.is_complex()
    return isinstance(value, (int, np.integer))


def _runs_once(sampler: Any) -> bool:
    held = [sampler, *getattr(sampler, "__dict__", {}).values()]
    return any(isinstance(each, Iterator) and not hasattr(each, "__dict__") for each in held)


def _require_whole_subsets(dataset: Any, split: str) -> None:
    """See that every ``Subset`` names samples of the data set inside it.

    Raises:
        DataError: One does not; its first such index is told.
    """
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            _require_whole_subsets(part, split)
    if not isinstance(dataset, Subset):
        return
    inner, numbers = dataset.dataset, np.asarray(dataset.indices)
    if hasattr(inner, "__len__") and numbers.dtype.kind in "iu":
        outside = np.flatnonzero((numbers >= len(inner)) | (numbers < -len(inner)))
        if len(outside):
            place = int(outside[0])
            raise DataError(
                f"the {split} data set is a Subset that names sample {numbers[place]} (at its place {place}) of a data "
                f"set of {len(inner)} samples; indices go from 0 to {len(inner) - 1}"
            )
    _require_whole_subsets(inner, split)
