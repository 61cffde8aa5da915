"""One map for each group of channels, where grouped convolutions keep several input stacks apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import cam_weights, contributions, group_cams
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import LayerError
from lightning_ifa.features.extractor import FeatureBatch, FeatureExtractor, explained_batches
from lightning_ifa.model.activation_capture import pause_captures
from lightning_ifa.model.forward import as_ordinary_tensor
from lightning_ifa.model.isolation import isolate
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
    with isolate(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for batch in explained_batches(replace(extraction, layer=table.layer), loader, table.indices):
            if groups is None:
                with pause_captures([batch.tap]), extraction.forward_context():
                    groups = convolution_groups(extraction.model, batch.layer, batch.x)
            own = batch.classes(table.explained[batch.rows])
            A, G = batch.gradient(own)
            _require_divisible(A.shape[1], groups, batch.layer.name)
            parts.append(group_cams(A, G, groups, method, batch.rescore(own)).numpy(force=True))
    return np.concatenate(parts)


def convolution_groups(model: nn.Module, place: TargetLayer, x: Tensor) -> int:
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
    _, layers = trace_layers(model, lambda: model(as_ordinary_tensor(x[:2])))
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


EQUAL = 1e-4
"""Largest difference of contributions taken for rounding, as a share of the largest."""


def class_contributions(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, classes: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Contributions of a table's rows to each class.

    Behind the layer, global average pooling and a linear head make them the head's weights times the channels' means.
    Whether it is so is not guessed from the architecture: the head is probed with unit vectors, and what the
    weights found give must equal the table's own contributions in every row; then no gradient is taken at all.
    Otherwise each batch gets one forward pass and a backward pass of the tail for each class.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The table, n rows.
        classes: Numbers of k classes; all by default.

    Returns:
        Shape ``(n, k, c)`` float32, units of the score.
    """
    wanted = np.arange(table.logits.shape[1]) if classes is None else np.asarray(classes, dtype=np.int64)
    parts: list[NDArray[np.float32]] = []
    with isolate(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for batch in explained_batches(replace(extraction, layer=table.layer), loader, table.indices):
            if not parts:
                weights = _linear_head(batch, table)
                if weights is not None:
                    return weights[wanted] * table.activations[:, None]
            parts.append(_by_gradients(batch, wanted))
    return np.concatenate(parts)


def _by_gradients(batch: FeatureBatch, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    found = [contributions(*batch.gradient(batch.classes(int(name)))).numpy(force=True) for name in classes]
    return np.stack(found, axis=1)


def _linear_head(batch: FeatureBatch, table: FeatureTable) -> NDArray[np.float32] | None:
    """The head's weights ``(k, c)`` if they explain every row of the table, else None."""
    channels = table.activations.shape[1]
    size = float(np.abs(table.activations).max())
    probes = torch.cat((torch.zeros(1, channels), torch.eye(channels) * size))
    logits = batch.logits_of_means(probes)
    if logits is None or size == 0:
        return None
    weights = ((logits[1:] - logits[:1]).T / size).astype(np.float32)
    expected = weights[table.explained] * table.activations
    allowed = EQUAL * np.abs(table.contributions).max()
    return weights if float(np.abs(expected - table.contributions).max()) <= allowed else None
