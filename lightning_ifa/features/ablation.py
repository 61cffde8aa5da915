"""Ablation: put channels of the target layer at their mean, and see what becomes of the decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.layers import find_layer
from lightning_ifa.features.passes import gradients_allowed
from lightning_ifa.features.place import Place
from lightning_ifa.features.sampling import reference_loader
from lightning_ifa.features.splice import replaced
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.targets import read_output


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
