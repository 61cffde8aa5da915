"""One map for each group of channels, where grouped convolutions keep several input stacks apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.errors import LayerError
from lightning_ifa.features.cam import cam_weights, group_cams
from lightning_ifa.features.explained import explained_batches
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.observe import observe_layers
from lightning_ifa.features.passes import normal
from lightning_ifa.features.place import Place
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.features.tap import paused

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def group_maps(
    extraction: Extraction, loader: DataLoader[Any], table: FeatureTable, groups: int | None = None
) -> NDArray[np.float32]:
    """Maps of a table's rows, one a group of neighbouring channels (the IFA paper's MRI model).

    They add up to the row's map, so that one intensity scale serves them all. A table holds the sum only; these are
    made for the few rows that are pictured.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: n rows, as of the probes.
        groups: How many; by default those of the grouped convolution that the layer comes from or feeds.

    Returns:
        Shape ``(n, groups, *space)`` float32, signed, unscaled.

    Raises:
        LayerError: There is no grouped convolution, or the channels do not divide into that many groups.
    """
    method = cam_weights(extraction.cam)
    parts: list[NDArray[np.float32]] = []
    with undisturbed(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for batch in explained_batches(replace(extraction, layer=table.layer), loader, table.indices):
            if groups is None:
                with paused([batch.tap]), extraction.forward_context():
                    groups = convolution_groups(extraction.model, batch.layer, batch.x)
            own = batch.classes(table.explained[batch.rows])
            A, G = batch.gradient(own)
            _require_divisible(A.shape[1], groups, batch.layer.name)
            parts.append(group_cams(A, G, groups, method, batch.rescore(own)).numpy(force=True))
    return np.concatenate(parts)


def convolution_groups(model: nn.Module, place: Place, x: Tensor) -> int:
    """In how many groups a layer's channels are kept apart: by the last convolution up to it, or the next one.

    Depthwise convolutions, which have a group for each channel, are not counted: they filter, but keep no input
    stacks apart.

    Args:
        model: The network, already in evaluation mode.
        place: The layer.
        x: Inputs, ``(n, ...)``; two are used.

    Returns:
        The number of groups, 1 where nothing is kept apart.
    """
    _, layers = observe_layers(model, lambda: model(normal(x[:2])))
    end = next(i for i, layer in enumerate(layers) if layer.module is place.module)
    before = [layer.module for layer in layers[: end + 1] if isinstance(layer.module, CONVOLUTIONS)]
    behind = [layer.module for layer in layers[end + 1 :] if isinstance(layer.module, CONVOLUTIONS)]
    nearest = [_groups(found) for found in (before[-1:], behind[:1])]
    return max(nearest)


def _groups(found: list[Any]) -> int:
    if not found or found[0].groups == found[0].in_channels:
        return 1
    return int(found[0].groups)


def _require_divisible(channels: int, groups: int, name: str) -> None:
    if groups < 2:
        raise LayerError(
            f'layer "{name}" neither comes from a grouped convolution nor feeds one, so its channels are not kept '
            "apart; pass groups="
        )
    if channels % groups:
        raise LayerError(f'the {channels} channels of layer "{name}" do not divide into {groups} groups')
