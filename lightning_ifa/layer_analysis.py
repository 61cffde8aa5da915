"""Several layers of a network looked at in one pass over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.analysis import examine, with_metadata
from lightning_ifa.cam.methods import Method
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.metadata import read_metadata
from lightning_ifa.data.sampling import reference_indices
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.report.feature_report import FeatureReport


def analyze_layers(
    model: nn.Module,
    val_loader: DataLoader[Any],
    train_loader: DataLoader[Any] | None = None,
    *,
    layers: Sequence[str],
    task: str | ScoreFunction = "auto",
    explain: str | int = "target",
    cam: str | Method = "hirescam",
    max_samples: int = 1024,
    probes: int = 8,
    metadata: Mapping[str, pd.DataFrame] | None = None,
    class_names: Sequence[str] | None = None,
    batch_fn: BatchFunction | None = None,
    seed: int = 0,
) -> dict[str, FeatureReport]:
    """Analyse several layers: where in the network does a finding arise?

    The same samples serve every layer, and a batch costs one forward pass and one backward pass, to the first of the
    layers. Each report equals that of ``analyze(layer=...)``, but for what ``analyze`` finds by changing the inputs
    (swaps, regions), which does not belong to a layer.

    Args:
        model: As for ``analyze``, and so are all arguments but ``layers``.
        val_loader: Validation loader.
        train_loader: Training loader.
        layers: Names as for ``analyze(layer=...)``; they may be nested in one another.
        task: The task.
        explain: The explained class.
        cam: CAM method.
        max_samples: At most that many samples a split.
        probes: How many samples are pictured.
        metadata: What is known of the samples.
        class_names: One a class.
        batch_fn: Reads a batch.
        seed: Of every random draw.

    Returns:
        Layer name to its report, in the order of ``layers``.

    Raises:
        IFAError: As ``analyze``.
    """
    extraction = FeatureExtractor(model, None, task, explain, cam, batch_fn, seed)
    known = read_metadata(metadata)
    loaders = {"train": train_loader, "validation": val_loader}
    present = {split: loader for split, loader in loaders.items() if loader is not None}
    tables: dict[str, dict[str, FeatureTable]] = {layer: {} for layer in layers}
    for split, loader in present.items():
        indices = reference_indices(loader, max_samples, seed, split)
        for layer, table in zip(tables, extraction.tables(loader, indices, list(tables)), strict=True):
            tables[layer][split] = with_metadata(table, loader, known.get(split), split)
    augmented = False
    if train_loader is not None:
        augmented = extraction.is_augmented(train_loader, reference_indices(train_loader, max_samples, seed, "train"))
    reports = {}
    for layer, found in tables.items():
        own = replace(extraction, layer=layer)
        sources = {split: (own, loader) for split, loader in present.items()}
        reports[layer] = examine(found, sources, probes=probes, class_names=class_names, augmented=augmented, seed=seed)
    return reports
