"""Store a split's activations and gradients, and run the head on reduced versions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.head import Head
from lightning_ifa.model.outputs import ScoreFunction, read_output
from lightning_ifa.model.target_layer import TargetLayer

Reduction = Callable[[Tensor], Iterator[Tensor]]
"""From activations ``(b, c, s)`` to one reduced version after the other, same shape."""

CHUNK = 2**23
"""Entries of activations that pass through the head at once."""


@dataclass(frozen=True, eq=False)
class StoredActivations:
    """Activations of some rows of a table, on the CPU.

    Attributes:
        A: ``(n, c, *space)`` float32.
        G: ``(n, c, *space)`` float32 gradient of the explained logit.
        x: ``(n, ...)`` inputs.
        y: ``(n, ...)`` targets as the loader gives them, or None.
        indices: ``(n,)`` data-set indices.
        task: The model's task.
        layer: The target layer.
    """

    A: Tensor
    G: Tensor
    x: Tensor
    y: Tensor | None
    indices: NDArray[np.int64]
    task: str | ScoreFunction
    layer: TargetLayer

    def take(self, rows: slice) -> StoredActivations:
        """Select rows."""
        y = None if self.y is None else self.y[rows]
        return StoredActivations(self.A[rows], self.G[rows], self.x[rows], y, self.indices[rows], self.task, self.layer)


def store_activations(extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable) -> StoredActivations:
    """Run the model once over a table's samples and keep activations and gradients.

    Raises:
        DataError: The loader's samples are not the table's, by their logits.
    """
    parts: dict[str, list[Tensor]] = {"A": [], "G": [], "x": [], "y": [], "logits": []}
    batch = None
    for batch in extraction.batches(loader, table.indices):
        A, G = batch.gradient(table.explained[batch.rows])
        found = {"A": A, "G": G, "x": batch.x, "logits": batch.readout.logits}
        found |= {"y": batch.samples.y} if torch.is_tensor(batch.samples.y) else {}
        for name, values in found.items():
            parts[name].append(values.detach().cpu())
    if batch is None:
        raise DataError("there are no samples to decompose")
    _check_same(torch.cat(parts["logits"]).numpy(), table)
    y = torch.cat(parts["y"]) if parts["y"] else None
    A, G, x = (torch.cat(parts[name]) for name in ("A", "G", "x"))
    return StoredActivations(A, G, x, y, table.indices, batch.run.task, batch.run.targets[0])


def run_reduced(head: Head, stored: StoredActivations, reduce: Reduction) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Run the head on every reduced version of the stored activations, several versions a pass.

    Args:
        head: The head, entered.
        stored: The samples, n.
        reduce: Gives r versions; of spatial means, ``s = 1``, if that is all the head sees.

    Returns:
        Logits ``(r, n, k)`` and predictions ``(r, n)``.
    """
    seen, space = head_input(head, stored)
    step = max(1, min(len(seen), CHUNK // max(seen[0].numel(), 1)))
    together = max(1, CHUNK // max(step * seen[0].numel(), 1))
    logits, predictions = [], []
    for begin in range(0, len(seen), step):
        rows = slice(begin, begin + step)
        read = [_read(head, stored.take(rows), group, space) for group in _group(reduce(seen[rows]), together)]
        logits.append(np.concatenate([part[0] for part in read]))
        predictions.append(np.concatenate([part[1] for part in read]))
    return np.concatenate(logits, axis=1), np.concatenate(predictions, axis=1)


def head_input(head: Head, stored: StoredActivations) -> tuple[Tensor, tuple[int, ...]]:
    """What the head looks at: positions ``(n, c, s)``, or means ``(n, c, 1)``; and the space to restore, if any."""
    flat = stored.A.flatten(2)
    return (flat.mean(2, keepdim=True), ()) if head.scope == "pooled" else (flat, tuple(stored.A.shape[2:]))


def _read(
    head: Head, stored: StoredActivations, versions: list[Tensor], space: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
    r, n = len(versions), len(stored.A)
    stacked = torch.cat(versions)
    x = torch.cat([stored.x] * r).to(head.device) if head.scope == "network" else None
    output = head(stacked.reshape(*stacked.shape[:2], *space), x)
    y = None if stored.y is None else torch.cat([stored.y] * r).to(head.device)
    readout = read_output(output, y, stored.task, torch.from_numpy(np.tile(stored.indices, r)))
    logits, predictions = (t.detach().numpy(force=True) for t in (readout.logits, readout.predictions))
    return logits.reshape(r, n, -1), predictions.reshape(r, n)


def _group(versions: Iterator[Tensor], size: int) -> Iterator[list[Tensor]]:
    group: list[Tensor] = []
    for version in versions:
        group.append(version)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _check_same(logits: NDArray[Any], table: FeatureTable) -> None:
    spread = max(float(np.abs(table.logits).max()), 1e-12)
    if logits.shape != table.logits.shape or float(np.abs(logits - table.logits).max()) > 0.05 * spread:
        raise DataError(
            "model and loader do not give the logits that the report holds for these samples; "
            "pass the model and the validation loader that the report was made from"
        )


def keep_channels(masks: NDArray[np.bool_], fill: NDArray[Any]) -> Reduction:
    """Keep some channels as they are; masks ``(r, c)``, fill ``(c,)`` for the others."""
    kept, value = torch.from_numpy(masks)[:, :, None], torch.from_numpy(fill).float()[:, None]
    return lambda seen: (torch.where(one, seen, value) for one in kept)


def mix_channels(matrices: Sequence[NDArray[Any]], offsets: Sequence[NDArray[Any]]) -> Reduction:
    """Mix the channels at each position: ``matrix.T @ a + offset``, matrices ``(c, c)``, offsets ``(c,)``."""

    def reduce(seen: Tensor) -> Iterator[Tensor]:
        for matrix, offset in zip(matrices, offsets, strict=True):
            yield _mix(torch.from_numpy(matrix).float(), seen) + torch.from_numpy(offset).float()[:, None]

    return reduce


def keep_components(mean: NDArray[Any], axes: NDArray[Any], counts: Sequence[int]) -> Reduction:
    """Keep the first components, for rising counts; what a smaller count has summed up is not computed again."""
    centre, directions = torch.from_numpy(mean).float()[:, None], torch.from_numpy(axes).float()

    def reduce(seen: Tensor) -> Iterator[Tensor]:
        scores = _mix(directions, seen - centre)
        total, done = centre.expand_as(seen).clone(), 0
        for count in counts:
            total += _mix(directions[:, done:count].T, scores[:, done:count])
            done = count
            yield total.clone()

    return reduce


def _mix(matrix: Tensor, values: Tensor) -> Tensor:
    """Mix channels at each position, ``(c, q)`` and ``(n, c, s)`` to ``(n, q, s)``; means as one matrix product."""
    if values.shape[2] == 1:
        return (values[:, :, 0] @ matrix)[:, :, None]
    return torch.matmul(matrix.T, values)
