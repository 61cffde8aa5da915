"""The few samples whose maps are pictured, the same in every run and epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_ifa.data.batches import read_with
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import reference_loader
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.isolation import isolate


@dataclass(frozen=True, eq=False)
class Probes:
    """Pictured samples.

    Attributes:
        table: p rows, explained for the label where there is one.
        predicted: The same rows explained for the prediction.
        images: ``(p, channels, *space)`` float32 inputs as the model got them; None if no pixel may be kept.
    """

    table: FeatureTable
    predicted: FeatureTable
    images: NDArray[np.float32] | None


def take_probes(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    table: FeatureTable,
    rows: NDArray[np.int64],
    keep_images: bool = True,
) -> Probes:
    """Picture some rows of a table.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The table.
        rows: ``(p,)`` row numbers.
        keep_images: Whether the inputs may be kept.
    """
    chosen = table.take(rows)
    predicted = chosen
    if table.targets.dtype.kind != "f" and not np.array_equal(chosen.explained, chosen.predictions):
        predicted = replace(extraction, explain="prediction", layer=table.layer)(loader, chosen.indices)
    images = inputs(extraction, loader, chosen.indices) if keep_images else None
    return Probes(chosen, predicted, images)


def inputs(extraction: FeatureExtractor, loader: DataLoader[Any], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read samples as the model gets them, ``(m, channels, *space)``; every random state stays as it is."""
    found = []
    with isolate(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for _, batch in reference_loader(loader, indices, extraction.seed):
            prepared = extraction.prepare(batch) if extraction.prepare else batch
            found.append(read_with(extraction.batch_fn, prepared)[0].float().numpy(force=True))
    return np.concatenate(found)
