"""Ablation: put channels of the target layer at their mean, and see what becomes of the decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.sampling import reference_loader
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_patching import patch_output
from lightning_ifa.model.forward import allow_gradients
from lightning_ifa.model.isolation import isolate
from lightning_ifa.model.layer_search import find_layer
from lightning_ifa.model.outputs import read_output
from lightning_ifa.model.target_layer import TargetLayer


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

    def ablated(output: Tensor) -> Tensor:
        changed = output.clone()
        fill = means.to(output).reshape(1, -1, *[1] * (output.dim() - 2))
        changed[:, chosen.to(output.device)] = fill.expand(len(output), -1, *output.shape[2:])
        return changed

    found = []
    with isolate(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        place: TargetLayer | None = None
        for rows, _, x, y in extraction.batches(reference_loader(loader, table.indices, extraction.seed)):
            with extraction.forward_context(), allow_gradients():
                place = place or find_layer(extraction.model, x, table.layer, extraction.reshape).place
                with patch_output(place, ablated):
                    readout = read_output(extraction.model(x), y, table.task, torch.tensor(rows))
            found.append(readout.logits.numpy(force=True))
    return np.concatenate(found)
