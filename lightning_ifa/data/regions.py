"""Regions: where in each image the evidence should lie, as a lesion's mask or a rasterised box."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torch.utils.data import ConcatDataset, Subset

from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import DataError
from lightning_ifa.options import SPLITS

RegionSource = Sequence[Any] | Callable[[int], Any]

MOST_HELD = 2**26
"""Bytes of masks, packed to bits, that are remembered so that later epochs need not read them again."""


@dataclass(frozen=True)
class Regions:
    """The regions of one split.

    Attributes:
        of: Function from a data-set index to a mask, or to None where nothing is known.
        split: Name of the split, for messages.
    """

    of: Callable[[int], Any]
    split: str
    _held: dict[int, tuple[tuple[int, ...], NDArray[np.uint8]] | None] = field(default_factory=dict, repr=False)

    def __call__(self, index: int, space: tuple[int, ...] | None = None) -> NDArray[np.bool_] | None:
        """Read one sample's region.

        Args:
            index: Data-set index of the sample.
            space: Spatial shape of the input, if it is known.

        Returns:
            Mask ``(*space)``, True where the evidence should lie, or None where nothing is known.

        Raises:
            DataError: The region is no array of booleans or whole numbers, or of another shape.
        """
        region = self._recall(int(index))
        if region is not None and space is not None and region.shape != space:
            raise DataError(
                f"region of {self.split} index {index} has shape {region.shape}, the model's input {space}; give it "
                "at the input's resolution, without channels"
            )
        return region

    def coverage(self, indices: Indices, space: tuple[int, ...]) -> NDArray[np.float32]:
        """Bring regions to a map's resolution.

        Args:
            indices: Data-set indices, ``(n,)``.
            space: Shape of a map.

        Returns:
            Share of each cell's area inside the region, ``(n, *space)``; NaN where nothing is known, or where maps have
            other axes than the input.
        """
        found = np.full((len(indices), *space), np.nan, dtype=np.float32)
        for row, index in enumerate(indices):
            region = self(int(index))
            if region is not None and region.ndim == len(space):
                found[row] = interpolate(torch.from_numpy(region).float()[None, None], space, mode="area")[0, 0]
        return found

    def _recall(self, index: int) -> NDArray[np.bool_] | None:
        if index in self._held:
            held = self._held[index]
            return held and np.unpackbits(held[1], count=int(np.prod(held[0]))).reshape(held[0]).astype(bool)
        region = self._read(index)
        packed = None if region is None else (region.shape, np.packbits(region))
        if packed is None or len(self._held) * packed[1].nbytes <= MOST_HELD:
            self._held[index] = packed
        return region

    def _read(self, index: int) -> NDArray[np.bool_] | None:
        given = self.of(index)
        if given is None:
            return None
        region = np.asarray(given)
        if region.dtype.kind not in "bui":
            raise DataError(
                f"region of {self.split} index {index} has dtype {region.dtype}; expected booleans, True where the "
                "evidence should lie"
            )
        return np.asarray(region != 0)


def find_regions(
    given: Mapping[str, RegionSource] | None, split: str, dataset: Any, ask: Callable[[], None] = lambda: None
) -> Regions | None:
    """Take a split's regions from the user, or else from the data set itself.

    Args:
        given: Masks by split name: one a data-set index, or a function from the index to the mask.
        split: Name of the split.
        dataset: Data set whose method ``region(index)`` is used if the user gave nothing; also inside ``Subset`` and
            ``ConcatDataset``.
        ask: Function to call before a region is read; what it raises ends the reading.

    Raises:
        DataError: The split is unknown, or a sequence has another length than the data set.
    """
    given = given or {}
    unknown = sorted(set(given) - set(SPLITS))
    if unknown:
        raise DataError(f"regions names the split {unknown[0]!r}; splits are called {' and '.join(SPLITS)}")
    if split in given:
        source = given[split]
        if callable(source):
            return Regions(source, split)
        if len(source) != len(dataset):
            raise DataError(f"regions of the {split} split: {len(source)} for a data set of {len(dataset)} samples")
        return Regions(source.__getitem__, split)
    if not _any_has_regions(dataset):
        return None

    def of(index: int) -> Any:
        ask()
        return _dataset_region(dataset, index)

    return Regions(of, split)


def _dataset_region(dataset: Any, index: int) -> Any:
    """Ask the outermost data set on the way to a sample that has regions; None if there is none."""
    while not _has_regions(dataset):
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        elif isinstance(dataset, ConcatDataset):
            part = bisect_right(dataset.cumulative_sizes, index)
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        else:
            return None
    return dataset.region(index)


def _any_has_regions(dataset: Any) -> bool:
    if isinstance(dataset, Subset) and not _has_regions(dataset):
        return _any_has_regions(dataset.dataset)
    return _has_regions(dataset) or (
        isinstance(dataset, ConcatDataset) and any(_any_has_regions(part) for part in dataset.datasets)
    )


def _has_regions(dataset: Any) -> bool:
    return callable(getattr(dataset, "region", None))
