"""Cascading weight randomisation: the maps of a network whose weights are made random from the last layer on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import Method, cam, cam_weights
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import OutputError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.forward import run_forward
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.model.random_weights import fresh_weights
from lightning_ifa.model.tracing import trace_layers
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.channel_selection import similarity

SAMPLES = 64


def randomise_cascade(
    model: nn.Module,
    loader: DataLoader[Any],
    report: AnalysisResult | FeatureTable,
    *,
    method: str | Method = "hirescam",
    task: str | ScoreFunction | None = None,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Make the weights random layer by layer, the last one first, and see how much of the maps is left.

    The cascading randomisation of Adebayo et al., NeurIPS 2018 (arXiv 1810.03292), section 3.1. A map that shows what
    the network has learnt changes; one that stays as it was shows the input.

    Args:
        model: The network that the report was made from; stays as it is.
        loader: The report's validation loader.
        report: The report, or its FeatureTable, which names the layer, the samples and the classes.
        method: CAM method.
        task: The task function, if the report was made with one.
        batch_fn: Function that takes a batch apart, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        samples: Largest number of samples.
        seed: Seed of the weights.

    Returns:
        One row a layer with weights, from the last to the first in the order in which they run: ``layer``,
        ``similarity`` (mean correlation with the trained network's maps over positions), ``absolute_similarity``
        (mean of its absolute value) and ``rank_similarity`` (of the positions' ranks). The first row, ``layer == ""``,
        is the trained network's own.

    Raises:
        OutputError: The report was made with a task function, and it is not given.
    """
    table = report if isinstance(report, FeatureTable) else report.tables["validation"]
    if table.task == "custom" and task is None:
        raise OutputError("the report was made with a task function; pass it as task=")
    chosen = table.take(np.unique(np.linspace(0, len(table) - 1, min(samples, len(table))).astype(np.int64)))
    ways: dict[str, Any] = {"batch_fn": batch_fn, "forward_fn": forward_fn, "seed": seed, "gradient": table.gradient}
    extraction = FeatureExtractor(model, table.layer, task or table.task, cam=method, **ways)
    trained = _maps(extraction, loader, chosen, None)
    rows = [{"layer": ""} | _likeness(trained, trained)]
    for name, state in _cascade(extraction, loader, chosen, seed):
        rows.append({"layer": name} | _likeness(_maps(extraction, loader, chosen, state), trained))
    return pd.DataFrame(rows)


def _cascade(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, seed: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give the layers with weights of their own, the last first, each with the state that is random down to it."""
    model = extraction.model
    with extraction.session(), extraction.calling(loader, table.indices[:2]) as x:
        _, layers = trace_layers(model, lambda: run_forward(model, x, None))
    fresh = fresh_weights(model, seed)
    names = {id(module): name for name, module in model.named_modules()}
    state: dict[str, Tensor] = {}
    for layer in reversed(layers):
        prefix = names[id(layer.module)]
        own = [f"{prefix}.{part}" for part in (*layer.module._parameters, *layer.module._buffers)]
        added = {key: fresh[key] for key in own if key in fresh and key not in state}
        if added:
            state |= added
            yield layer.name, dict(state)


def _maps(
    extraction: FeatureExtractor, loader: DataLoader[Any], table: FeatureTable, state: Mapping[str, Tensor] | None
) -> NDArray[np.float32]:
    method, found = cam_weights(extraction.cam), []
    with extraction.session():
        for batch in extraction.batches(loader, table.indices, state=state):
            explained = table.explained[batch.rows]
            A, G = batch.gradient(explained)
            found.append(cam(A, G, method, batch.rescore(explained)).cpu())
    return torch.cat(found).numpy()


def _likeness(maps: NDArray[np.float32], trained: NDArray[np.float32]) -> dict[str, float]:
    alike = similarity(maps, trained)
    ranked = [rankdata(part.reshape(len(part), -1), axis=1) for part in (maps, trained)]
    return {
        "similarity": float(alike.mean()),
        "absolute_similarity": float(np.abs(alike).mean()),
        "rank_similarity": float(similarity(*ranked).mean()),
    }
