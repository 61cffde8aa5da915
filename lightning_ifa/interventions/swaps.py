"""Exchange: give inputs something of random other samples' inputs, and see where the evidence goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ifa.data.sampling import Indices
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.features.feature_batch import FeatureBatch
from lightning_ifa.model.outputs import UNLABELLED

SOURCES = 32
"""Samples of a group, within which sources are drawn, so that the user's batch size does not choose them."""

Changes = Callable[[Tensor, Tensor, Tensor], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Swaps:
    """Logits before and after a part of each input was replaced by that of another sample, the source.

    Attributes:
        labels: Classes of the recipients, ``(n,)`` int64; for multilabel their labels, ``(n, k)`` of 0 and 1; for
            regression their targets, ``(n,)`` float32.
        source_labels: The same of their sources.
        logits: ``(n, k)`` of the recipients as they are.
        source_logits: ``(n, k)`` of the sources as they are: what a swap of the whole image would give.
        swapped: Name of what was swapped to the logits after it, ``(n, k)``.
        sources: ``(n,)`` data-set index of each source, where it is known.
    """

    labels: NDArray[Any]
    source_labels: NDArray[Any]
    logits: NDArray[np.float32]
    source_logits: NDArray[np.float32]
    swapped: Mapping[str, NDArray[np.float32]]
    sources: Indices | None = None


def run_swaps(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    drawn: Indices,
    task: str,
    changes: Changes,
    rng: np.random.Generator,
) -> Swaps | None:
    """Run a model on samples that got something of random others; nothing is disturbed.

    Args:
        extraction: How the model is called.
        loader: Loader of the samples.
        drawn: ``(n,)`` data-set indices.
        task: The table's task.
        changes: Takes a group of inputs, the positions of their sources in it and their data-set indices; gives
            each change's name and the changed inputs.
        rng: Draws the sources.

    Returns:
        None if there are fewer than two labelled pairs.
    """
    own = replace(extraction, task=task)
    with own.session():
        groups = own.batches(loader, drawn, size=SOURCES)
        parts = [_swap_group(group, changes, rng) for group in groups if len(group) > 1]
    if not parts:
        return None
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = _labelled(joined["labels"]) & _labelled(joined["source_labels"])
    if known.sum() < 2:
        return None
    columns = {name: values[known] for name, values in joined.items()}
    labels, source_labels, logits, source_logits, sources = (columns.pop(name) for name in _PLAIN)
    return Swaps(labels, source_labels, logits, source_logits, columns, sources)


_PLAIN = ("labels", "source_labels", "logits", "source_logits", "sources")


def _labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    if labels.dtype.kind == "f":
        return np.asarray(~np.isnan(labels))
    return np.ones(len(labels), dtype=bool) if labels.ndim > 1 else np.asarray(labels != UNLABELLED)


def _swap_group(batch: FeatureBatch, changes: Changes, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    x, positions = batch.pictures, batch.samples.positions
    sources = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    before = batch.rerun()
    labels = batch.samples.y.long() if batch.run.task == "multilabel" else before.targets
    given = positions[sources.to(positions.device)]
    plain = (labels, labels[sources], before.logits, before.logits[sources], given)
    found = dict(zip(_PLAIN, plain, strict=True))
    found |= {name: batch.rerun(changed).logits for name, changed in changes(x, sources, positions)}
    return {name: values.numpy(force=True) for name, values in found.items()}
