"""One map for each group of channels, where grouped convolutions keep several input stacks apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import cam_weights, group_cams
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import LayerError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.activation_capture import pause_captures
from lightning_ifa.model.forward import as_ordinary_tensor, run_with_state
from lightning_ifa.model.target_layer import TargetLayer
from lightning_ifa.model.tracing import trace_layers

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def group_maps(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, groups: int | None = None
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
    own = replace(extraction, layer=table.layer)
    with own.session():
        for batch in own.batches(loader, table.indices):
            explained = table.explained[batch.rows]
            A, G = batch.gradient(explained)
            target = batch.run.targets[0]
            if groups is None:
                with pause_captures(batch.run.captures), own.forward_context():
                    groups = convolution_groups(own.model, target, batch.x)
            _require_divisible(A.shape[1], groups, target.name)
            parts.append(group_cams(A, G, groups, method, batch.rescore(explained)).numpy(force=True))
    return np.concatenate(parts)


def convolution_groups(model: nn.Module, target: TargetLayer, x: Tensor) -> int:
    """In how many groups a layer's channels are kept apart: by the last convolution up to it, or the next one.

    Depthwise convolutions, which have a group for each channel, are not counted: they filter, but keep no input
    stacks apart.

    Args:
        model: The network, already in evaluation mode.
        target: The layer.
        x: Inputs, ``(n, ...)``; two are used.

    Returns:
        The number of groups, 1 where nothing is kept apart.
    """
    _, layers = trace_layers(model, lambda: run_with_state(model, as_ordinary_tensor(x[:2])))
    last = len(layers) - 1  # of a function in the model's own forward
    end = next((i for i, layer in enumerate(layers) if layer.module is target.module), last)
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
