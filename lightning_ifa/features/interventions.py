"""Interventions: change the input as other samples' inputs differ from it, and see where the evidence goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.errors import DataError
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.layers import find_layer
from lightning_ifa.features.passes import gradients_allowed
from lightning_ifa.features.place import Place
from lightning_ifa.features.properties import LEAST_SIZE
from lightning_ifa.features.regions import Regions
from lightning_ifa.features.sampling import Indices, reference_loader
from lightning_ifa.features.splice import replaced
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.targets import Readout, read_output

TRANSPLANT_SAMPLES = 256
CORNER = 1 / 4  # of each axis
STRIP = 1 / 14  # of each axis; thin, so that an object that reaches the margin hardly reaches into it
DONORS = 32  # images held in memory, from which donors are drawn

Region = NDArray[np.bool_]
Transplant = Callable[[Tensor, Tensor], Tensor]
Changes = Callable[[Tensor, Tensor, Tensor], Iterator[tuple[str, Tensor]]]

OUTSIDE = "outside the region"


@dataclass(frozen=True, eq=False)
class Transplants:
    """Logits before and after a part of each input was replaced by that of another sample, the donor.

    Attributes:
        labels: ``(n,)`` class of each recipient.
        donor_labels: ``(n,)`` class of its donor.
        logits: ``(n, k)`` of the recipients as they are.
        donor_logits: ``(n, k)`` of the donors as they are: what a transplant of the whole image would give.
        moved: What was transplanted, to the logits after it, ``(n, k)``.
        donors: ``(n,)`` data-set index of each donor, where it is known.
    """

    labels: NDArray[np.int64]
    donor_labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    donor_logits: NDArray[np.float32]
    moved: Mapping[str, NDArray[np.float32]]
    donors: Indices | None = None


def transplant_backgrounds(
    extraction: Extraction,
    loader: DataLoader[Any],
    indices: Indices,
    task: str,
    regions: Mapping[str, Region] | None = None,
) -> Transplants:
    """Transplant border, corners, background level and the user's regions between random pairs of samples.

    The fill is another sample's, at the same place, so the inputs stay in distribution as far as a collage can.
    Costs one forward pass of ``TRANSPLANT_SAMPLES`` samples for each candidate, ten on images.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        indices: ``(m,)`` data-set indices to draw from.
        task: ``"multiclass"`` or ``"binary"``.
        regions: Names of further regions to boolean masks of shape ``(*space)``.

    Raises:
        DataError: A region's mask has another shape than the images.
    """
    masks = regions or {}
    rng = np.random.default_rng(extraction.seed)
    drawn = rng.permutation(indices)[:TRANSPLANT_SAMPLES]

    def changes(x: Tensor, donors: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        return ((name, change(x, x[donors])) for name, change in _transplants(x, masks))

    return exchanged(extraction, loader, drawn, task, changes, rng)


def transplant_outside(
    extraction: Extraction, loader: DataLoader[Any], indices: Indices, task: str, regions: Regions
) -> Transplants | None:
    """Transplant what lies outside the regions of both the recipient and the donor.

    So no part of the donor's object comes along, and none of the recipient's is lost.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        indices: ``(m,)`` data-set indices to draw from.
        task: ``"multiclass"`` or ``"binary"``.
        regions: Where the evidence should lie; samples without a region are left out.

    Returns:
        With the single part ``OUTSIDE``; None if fewer than two samples have a region.

    Raises:
        DataError: A region that does not fit the input.
    """
    rng = np.random.default_rng(extraction.seed)
    drawn = [index for index in rng.permutation(indices)[:TRANSPLANT_SAMPLES] if regions(index) is not None]
    if len(drawn) < 2:
        return None

    def changes(x: Tensor, donors: Tensor, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        masks = [regions(int(row), tuple(x.shape[2:])) for row in rows]
        inside = torch.from_numpy(np.stack([mask for mask in masks if mask is not None])).to(x.device)
        yield OUTSIDE, _exchange(~(inside | inside[donors])[:, None], x, x[donors])

    return exchanged(extraction, loader, np.array(drawn), task, changes, rng)


def exchanged(
    extraction: Extraction,
    loader: DataLoader[Any],
    drawn: Indices,
    task: str,
    changes: Changes,
    rng: np.random.Generator,
) -> Transplants:
    """Run a model on samples that got something of random others; nothing is disturbed.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        drawn: ``(n,)`` data-set indices.
        task: As the table's.
        changes: Takes a group of inputs, the positions of their donors in it and their data-set indices; gives
            each change's name and the changed inputs.
        rng: Draws the donors.
    """
    parts: list[dict[str, NDArray[Any]]] = []
    with undisturbed(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for x, y, rows in _groups(extraction, loader, drawn):
            parts.append(_group(extraction, x, y, rows, task, changes, rng))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = (joined["labels"] >= 0) & (joined["donor_labels"] >= 0)
    columns = {name: values[known] for name, values in joined.items()}
    labels, donor_labels, logits, donor_logits, donors = (columns.pop(name) for name in _PLAIN)
    return Transplants(labels, donor_labels, logits, donor_logits, columns, donors)


_PLAIN = ("labels", "donor_labels", "logits", "donor_logits", "donors")


def ablate_channels(
    extraction: Extraction, loader: DataLoader[Any], table: FeatureTable, channels: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Put channels of the target layer at their mean, everywhere and for every sample, and read the logits.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The table; its rows are run again, its activations give the means.
        channels: Numbers of the channels.

    Returns:
        ``(n, k)`` logits in the order of the table's rows.
    """
    chosen = torch.from_numpy(channels)
    means = torch.from_numpy(table.activations[:, channels].mean(0))

    def ablated(output: Tensor) -> Tensor:
        changed = output.clone()
        fill = means.to(output).reshape(1, -1, *[1] * (output.dim() - 2))
        changed[:, chosen.to(output.device)] = fill.expand(len(output), -1, *output.shape[2:])
        return changed

    found = []
    with undisturbed(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        place: Place | None = None
        for rows, _, x, y in extraction.batches(reference_loader(loader, table.indices, extraction.seed)):
            with extraction.forward_context(), gradients_allowed():
                place = place or find_layer(extraction.model, x, table.layer, extraction.reshape).place
                with replaced(place, ablated):
                    readout = read_output(extraction.model(x), y, table.task, torch.tensor(rows))
            found.append(readout.logits.numpy(force=True))
    return np.concatenate(found)


def _group(
    extraction: Extraction,
    x: Tensor,
    y: Any,
    rows: Tensor,
    task: str,
    changes: Changes,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    def read(inputs: Tensor) -> Readout:
        with extraction.forward_context(), gradients_allowed():
            return read_output(extraction.model(inputs), y, task, rows)

    donors = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    before = read(x)
    given = rows[donors.to(rows.device)]
    plain = (before.targets, before.targets[donors], before.logits, before.logits[donors], given)
    found = dict(zip(_PLAIN, plain, strict=True))
    found |= {name: read(changed).logits for name, changed in changes(x, donors, rows)}
    return {name: values.numpy(force=True) for name, values in found.items()}


def _groups(extraction: Extraction, loader: DataLoader[Any], indices: Indices) -> Iterator[tuple[Tensor, Any, Tensor]]:
    """Samples in groups of ``DONORS``, whatever the user's batch size, so that it does not choose the donors."""
    held: list[tuple[Tensor, Any, Tensor]] = []
    for rows, _, x, y in extraction.batches(reference_loader(loader, indices, extraction.seed)):
        held.append((x, y, torch.tensor(rows)))
        while sum(len(part[2]) for part in held) >= DONORS:
            x, y, numbers = _joined(held)
            yield x[:DONORS], y[:DONORS], numbers[:DONORS]
            held = [(x[DONORS:], y[DONORS:], numbers[DONORS:])]
    if sum(len(part[2]) for part in held) > 1:
        yield _joined(held)


def _joined(held: list[tuple[Tensor, Any, Tensor]]) -> tuple[Tensor, Any, Tensor]:
    xs, ys, rows = zip(*held, strict=True)
    return torch.cat(xs), torch.cat(ys), torch.cat(rows)


def _transplants(x: Tensor, regions: Mapping[str, Region]) -> Iterator[tuple[str, Transplant]]:
    space = tuple(x.shape[2:])
    masks = dict(_background_regions(space)) if len(space) > 1 else {}
    for name, region in regions.items():
        if region.shape != space:
            raise DataError(f"region {name!r} has shape {region.shape}, the images have {space}")
        masks[name] = torch.from_numpy(np.ascontiguousarray(region, dtype=bool))
    for name, mask in masks.items():
        yield name, partial(_exchange, mask.to(x.device))
    if space:
        yield "background", _exchange_level


def _background_regions(space: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """Named as the image properties of the same place."""
    height, width = space[-2:]
    for names, ends in zip(
        product(("top", "bottom"), ("left", "right")), product((False, True), repeat=2), strict=True
    ):
        mask = torch.zeros(space, dtype=torch.bool)
        mask[..., _end(height, CORNER, ends[0]), _end(width, CORNER, ends[1])] = True
        yield "corner_" + "_".join(names), mask
    if min(height, width) < LEAST_SIZE:
        return
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


def _exchange(mask: Tensor, x: Tensor, donor: Tensor) -> Tensor:
    return torch.where(mask, donor, x)


def _exchange_level(x: Tensor, donor: Tensor) -> Tensor:
    """Give each input channel the donor's background level, and leave its brightest value where it is."""
    levels = [image.flatten(2)[..., :: max(1, image[0, 0].numel() // 4096)] for image in (x, donor)]
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    low, target = (level.quantile(0.1, dim=2).reshape(shape) for level in levels)
    top = x.flatten(2).amax(2).reshape(shape)
    return target + (x - low) * (top - target) / (top - low).clamp(min=1e-6)
