"""Pictured samples: the probes, which are the same in every run and epoch, and the examples that a report speaks of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.several_sizes import median_size, resize
from lightning_ifa.data.volume_grid import VolumeGrid, grid_of
from lightning_ifa.features.channel_maps import ChannelMapBuilder
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.feature_batch import FeatureBatch
from lightning_ifa.features.table_builder import TableBuilder
from lightning_ifa.statistics.localization import depth_of

LONGEST_EDGE = 160
"""Pixels of an example's longer edge at most."""

Rows = NDArray[np.int64]
Images = dict[int, NDArray[np.float32]]
"""Row number to input: ``(channels, length)`` of a signal, ``(channels, h, w)`` of an image, reduced to
``LONGEST_EDGE``, and of a volume the slice through its map's maximum, reduced alike."""

NO_ROWS: Rows = np.array([], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Probes:
    """Pictured samples.

    Attributes:
        table: p rows, explained for the label where there is one.
        predicted: The same rows explained for the prediction.
        images: ``(p, channels, *space)`` float32 inputs as the model got them; None if no pixel may be kept.
        grids: The grid of each input volume; None where they were not asked for, or inputs are no volumes.
    """

    table: FeatureTable
    predicted: FeatureTable
    images: NDArray[np.float32] | None
    grids: tuple[VolumeGrid, ...] | None = None


def take_probes(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    table: FeatureTable,
    rows: Rows,
    examples: Rows = NO_ROWS,
    keep_images: bool = True,
    keep_grids: bool = False,
    channels: ChannelMapBuilder | None = None,
) -> tuple[Probes, Images]:
    """Picture some rows of a table, and read the inputs of further ones, in one pass over the data.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The table.
        rows: Row numbers of the probes, ``(p,)``; the network runs on them once more where it predicts another class.
        examples: Row numbers of the examples, ``(m,)``, of which only an image is needed.
        keep_images: Whether inputs may be kept.
        keep_grids: Whether the grids of input volumes are noted.
        channels: Gathers the maps of single channels in the same pass; the network runs on its rows as well.
    """
    probes = table.take(rows)
    explains_label = table.targets.dtype.kind != "f" and not np.array_equal(probes.explained, probes.predictions)
    keep_grids = keep_grids and table.cams.ndim == 4
    looked_at = NO_ROWS if channels is None else channels.rows
    if not (explains_label or keep_images or keep_grids or len(looked_at)):
        return Probes(probes, probes, None), {}
    first = np.concatenate([rows, np.setdiff1d(looked_at, rows)])
    wanted = np.concatenate([first, np.setdiff1d(examples, first)])
    task = table.task if isinstance(extraction.task, str) else extraction.task  # told from all targets, not from these
    own = replace(extraction, layer=table.layer, task=task)
    builder = TableBuilder("prediction", extraction.cam, table.cams.shape[1:])
    inputs: list[NDArray[np.float32]] = []
    grids: list[VolumeGrid] = []
    images: Images = {}
    with extraction.session():
        for batch in own.batches(loader, table.indices[wanted], apart=len(rows)):
            images |= _reduced(batch, table, wanted)
            is_probe = batch.rows.start < len(rows)
            if is_probe:
                grids += _grids(batch, probes) if keep_grids else []
                inputs.append(_pixels(batch).copy())  # before the network runs, which may change it in place
            if channels is not None:
                channels.add(batch, wanted[batch.rows])
            if is_probe and explains_label:
                builder.add(batch)
            if channels is not None:
                channels.measure(batch)
    predicted = builder.tables(len(rows), lambda indices: probes.sample_ids)[0] if explains_label else probes
    pictured = Probes(probes, predicted, _join(inputs) if keep_images else None, tuple(grids) if keep_grids else None)
    return pictured, {int(row): images[int(row)] for row in examples}


def _join(inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    size = median_size(inputs, lead=2)
    return np.concatenate([resize(part, size, lead=2) for part in inputs] if size else inputs)


def take_images(extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, rows: Rows) -> Images:
    """Read the inputs of some of a table's rows again, and reduce them."""
    images: Images = {}
    with extraction.session():
        for batch in extraction.batches(loader, table.indices[rows]):
            images |= _reduced(batch, table, rows)
    return images


def _grids(batch: FeatureBatch, probes: FeatureTable) -> list[VolumeGrid]:
    shape, told = batch.pictures.shape[2:], batch.samples.grids
    rows = probes.metadata.iloc[batch.rows]
    return [grid_of(shape, told[i] if told else None, rows.iloc[i]) for i in range(len(batch))]


def _pixels(batch: FeatureBatch) -> NDArray[np.float32]:
    return np.asarray(batch.pictures.float().numpy(force=True))


def _reduced(batch: FeatureBatch, table: FeatureTable, rows: Rows) -> Images:
    pairs = zip(rows[batch.rows], _pixels(batch), strict=True)
    return {int(row): _reduce(image, table.cams[row]) for row, image in pairs}


def _reduce(image: NDArray[np.float32], cam: NDArray[np.float32]) -> NDArray[np.float32]:
    if image.ndim == 4:
        image = image[:, depth_of(cam, image.shape[1])]
    longest = max(image.shape[1:], default=0)
    if image.ndim != 3 or longest <= LONGEST_EDGE:
        return image.copy()  # not a view, which would hold its whole batch
    size = [max(1, round(edge * LONGEST_EDGE / longest)) for edge in image.shape[1:]]
    small = interpolate(torch.from_numpy(image)[None], size, mode="bilinear", antialias=True)[0]
    return np.asarray(small.numpy())
