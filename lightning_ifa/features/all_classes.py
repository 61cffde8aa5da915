"""Contributions to every class, not only to the explained one; costs nothing until it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_ifa.features.cam import contributions
from lightning_ifa.features.explained import ExplainedBatch, explained_batches
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.table import FeatureTable

EQUAL = 1e-4
"""Largest difference of contributions taken for rounding, as a share of the largest."""


def class_contributions(
    extraction: Extraction, loader: DataLoader[Any], table: FeatureTable, classes: Sequence[int] | None = None
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
    with undisturbed(extraction.model, extraction.seed), torch.inference_mode(False), torch.no_grad():
        for batch in explained_batches(replace(extraction, layer=table.layer), loader, table.indices):
            if not parts:
                weights = _linear_head(batch, table)
                if weights is not None:
                    return weights[wanted] * table.activations[:, None]
            parts.append(_by_gradients(batch, wanted))
    return np.concatenate(parts)


def _by_gradients(batch: ExplainedBatch, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    found = [contributions(*batch.gradient(batch.classes(int(name)))).numpy(force=True) for name in classes]
    return np.stack(found, axis=1)


def _linear_head(batch: ExplainedBatch, table: FeatureTable) -> NDArray[np.float32] | None:
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
