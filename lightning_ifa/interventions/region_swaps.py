"""Swaps between random pairs of images: of places, of properties, and of what lies outside a region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.data.image_properties import LEAST_SIZE
from lightning_ifa.data.regions import Regions
from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.appearance_swaps import Swap, appearance_swaps
from lightning_ifa.interventions.swaps import Swaps, run_swaps

SWAP_SAMPLES = 256
CORNER = 1 / 4  # of each axis
STRIP = 1 / 14  # of each axis; thin, so that an object that reaches the margin hardly reaches into it
Region = NDArray[np.bool_]
OUTSIDE = "outside the region"


def swap_parts(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    indices: Indices,
    task: str,
    regions: Mapping[str, Region] | None = None,
) -> Swaps | None:
    """Swap border, corners, background level, contrast, fine detail and the user's regions.

    The fill is another sample's, at the same place, so the inputs stay in distribution as far as a collage can.
    Costs one forward pass of ``SWAP_SAMPLES`` samples for each candidate, twelve on images.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        indices: ``(m,)`` data-set indices to draw from.
        task: ``"multiclass"``, ``"binary"``, ``"multilabel"`` or ``"regression"``.
        regions: Names of further regions to boolean masks of shape ``(*space)``.

    Returns:
        None if there are fewer than two labelled samples.

    Raises:
        DataError: A region's mask has another shape than the images.
    """
    masks = regions or {}
    rng = np.random.default_rng(extraction.seed)
    drawn = rng.permutation(indices)[:SWAP_SAMPLES]

    def changes(x: Tensor, sources: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        return ((name, change(x, x[sources])) for name, change in _swaps(x, masks))

    return run_swaps(extraction, loader, drawn, task, changes, rng)


def swap_outside(
    extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices, task: str, regions: Regions
) -> Swaps | None:
    """Swap what lies outside the regions of both the recipient and the source.

    So no part of the source's object comes along, and none of the recipient's is lost.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        indices: Data-set indices to draw from, ``(m,)``.
        task: The task, as for ``swap_parts``.
        regions: Where the evidence should lie; samples without a region are left out.

    Returns:
        With the single part ``OUTSIDE``; None if fewer than two labelled samples have a region.

    Raises:
        DataError: A region that does not fit the input.
    """
    rng = np.random.default_rng(extraction.seed)
    drawn = [index for index in rng.permutation(indices)[:SWAP_SAMPLES] if regions(index) is not None]
    if len(drawn) < 2:
        return None

    def changes(x: Tensor, sources: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        masks = [regions(int(row), tuple(x.shape[2:])) for row in rows]
        inside = torch.from_numpy(np.stack([mask for mask in masks if mask is not None])).to(x.device)
        yield OUTSIDE, _swap(~(inside | inside[sources])[:, None], x, x[sources])

    return run_swaps(extraction, loader, np.array(drawn), task, changes, rng)


def _swaps(x: Tensor, regions: Mapping[str, Region]) -> Iterator[tuple[str, Swap]]:
    space = tuple(x.shape[2:])
    masks = dict(_background_regions(space)) if len(space) > 1 else {}
    for name, region in regions.items():
        if region.shape != space:
            raise DataError(f"region {name!r} has shape {region.shape}, the images have {space}")
        masks[name] = torch.from_numpy(np.ascontiguousarray(region, dtype=bool))
    for name, mask in masks.items():
        yield name, partial(_swap, mask.to(x.device))
    if space:
        yield "background", _swap_level
    yield from appearance_swaps(x)


def _background_regions(space: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """Named as the image properties of the same place; in small images the object fills its corners too."""
    height, width = space[-2:]
    if min(height, width) < LEAST_SIZE:
        return
    for names, ends in zip(
        product(("top", "bottom"), ("left", "right")), product((False, True), repeat=2), strict=True
    ):
        mask = torch.zeros(space, dtype=torch.bool)
        mask[..., _end(height, CORNER, ends[0]), _end(width, CORNER, ends[1])] = True
        yield "corner_" + "_".join(names), mask
    border = torch.zeros(space, dtype=torch.bool)
    sides = (("top", -2, False), ("bottom", -2, True), ("left", -1, False), ("right", -1, True))
    for name, axis, last in sides:
        mask = torch.zeros(space, dtype=torch.bool)
        mask.transpose(axis, -1)[..., _end(space[axis], STRIP, last)] = True
        border |= mask
        yield f"side_{name}", mask
    yield "border", border


def _end(size: int, share: float, last: bool) -> slice:
    width = max(1, round(size * share))
    return slice(size - width, size) if last else slice(0, width)


def _swap(mask: Tensor, x: Tensor, source: Tensor) -> Tensor:
    return torch.where(mask, source, x)


def _swap_level(x: Tensor, source: Tensor) -> Tensor:
    """Give each input channel the source's background level, and leave its brightest value where it is."""
    levels = [image.flatten(2)[..., :: max(1, image[0, 0].numel() // 4096)] for image in (x, source)]
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    low, target = (level.quantile(0.1, dim=2).reshape(shape) for level in levels)
    top = x.flatten(2).amax(2).reshape(shape)
    return target + (x - low) * (top - target) / (top - low).clamp(min=1e-6)
