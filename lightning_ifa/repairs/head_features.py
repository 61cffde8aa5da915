"""What a network's last linear layer is given for some samples, and that layer as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import ONE_LABEL
from lightning_ifa.data.sampling import Indices
from lightning_ifa.errors import DataError, OutputError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.last_linear import find_last_linear, watch_linear
from lightning_ifa.statistics.linear_head import LinearHead

FEW = 8


class HeadFeatures(NamedTuple):
    """What the last linear layer is given.

    Attributes:
        features: ``(n, d)`` float32.
        labels: Class, ``(n,)``, -1 where unlabelled.
        indices: Data-set indices, ``(n,)``.
        fingerprints: Checksums of the inputs, ``(n,)``.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    fingerprints: NDArray[np.int64]


def last_linear(extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices) -> str:
    """Name the last linear layer.

    Raises:
        LayerError: There is none that makes the scores and has weights of its own.
        OutputError: Classes do not compete.
    """
    with extraction.session(), watch_linear(extraction.model) as calls:
        for batch in extraction.batches(loader, indices[:FEW]):
            calls.clear()
            logits = batch.readout.logits
            if str(batch.run.task) not in ONE_LABEL:
                raise OutputError(
                    f"a repair needs classes that compete; the task is {batch.run.task!r}. Balance the suspect over "
                    "the targets and train again (report.sample_weights)"
                )
            return find_last_linear(extraction.model, calls, logits)
    raise DataError("there is no sample to repair with")


def head_features(extraction: FeatureExtractor, loader: DataLoader[Any], indices: Indices, name: str) -> HeadFeatures:
    """Run the network on samples and note what the named layer is given; one forward pass a batch."""
    parts = []
    with extraction.session(), watch_linear(extraction.model, lambda other: other == name) as calls:
        for batch in extraction.batches(loader, indices, may_drop=True):
            calls.clear()
            readout = batch.readout
            seen = batch.samples
            given = calls[-1].given.float(), readout.targets, seen.positions, seen.fingerprints
            parts.append([part.numpy(force=True) for part in given])
    return HeadFeatures(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def read_head(model: nn.Module, name: str) -> LinearHead:
    """Give a linear layer as the head it is; of one logit z, the scores are ``(-z / 2, z / 2)``."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach().double().numpy(force=True)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy(force=True)
    if len(weight) == 1:
        return LinearHead(np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2]))
    return LinearHead(weight, bias)


@torch.no_grad()
def write_head(model: nn.Module, name: str, head: LinearHead) -> None:
    """Put a head into a linear layer; the layer of one logit takes the difference of both classes."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    weight, bias = head
    if layer.out_features == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    layer.weight.copy_(torch.from_numpy(weight))
    if layer.bias is not None:
        layer.bias.copy_(torch.from_numpy(bias))
