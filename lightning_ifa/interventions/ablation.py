"""Ablation: put channels of the target layer at their mean, and see what becomes of the decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.extractor import FeatureExtractor


def ablate_channels(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, channels: NDArray[np.int64]
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

    def ablate(maps: Tensor) -> Tensor:
        changed = maps.clone()
        fill = means.to(maps).reshape(1, -1, *[1] * (maps.dim() - 2))
        changed[:, chosen.to(maps.device)] = fill.expand(len(maps), -1, *maps.shape[2:])
        return changed

    own = replace(extraction, layer=table.layer, task=table.task)
    with own.session():
        batches = own.batches(loader, table.indices)
        return np.concatenate([batch.rerun(activations=ablate).logits.numpy(force=True) for batch in batches])
