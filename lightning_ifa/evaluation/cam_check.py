"""Which maps can be trusted at which layer: consistency of method, layer and display, and the randomisation check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ifa.cam.methods import ONE_PASS, Method, cam, cam_weights, method_name
from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import OutputError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.indicators.consistency import trustworthy
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.model.random_weights import fresh_weights
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.channel_selection import similarity
from lightning_ifa.statistics.completeness import TRANSFORMS, agreement, shown_levels
from lightning_ifa.statistics.intensity_scale import common_scale

MOST_CLASSES = 10
SAMPLES = 256
RANDOM_NETWORKS = 3


@dataclass(frozen=True, eq=False)
class MapCheck:
    """The result of ``check_maps``.

    Attributes:
        agreement: One row a layer, method, transform and reading. ``reading`` is a class number (that class's map
            and logit over all samples), ``"mean"`` of these, ``"pooled"``, or ``"predicted"`` (each sample's own
            prediction). Columns ``pearson``, ``spearman``, ``completeness``, ``auroc`` (of the map's sum for
            membership of the class). Completeness exists for raw maps only, which are in the logit's unit.
        trust: One row a layer and method: ``completeness`` and ``pearson`` of raw maps, ``trustworthy``.
        randomised: One row a layer and method, means over networks with fresh weights: ``completeness`` and
            ``pearson`` there, ``similarity`` of their maps to the trained network's (mean correlation over
            positions) and its absolute value's mean.
        levels: One row a layer, method, sample and class: ``sample_id``, ``class``, ``logit``, ``level`` (sum of the
            class's raw map) and ``member`` (whether it is the sample's label); see ``level_figure``.
    """

    agreement: pd.DataFrame
    trust: pd.DataFrame
    randomised: pd.DataFrame
    levels: pd.DataFrame


def check_maps(
    model: nn.Module,
    loader: DataLoader[Any],
    report: AnalysisResult | FeatureTable,
    *,
    layers: Sequence[str] | None = None,
    methods: Sequence[str | Method] = ONE_PASS,
    task: str | ScoreFunction | None = None,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> MapCheck:
    """Compare every map's level with the logit it explains, by layer, CAM method and display transform.

    It is algebra, a self-check of layer, method and scale: an untrained network passes it as well, which the
    randomised networks show. Only that the maps themselves change with the weights says that they show the model.

    Regression has one score, so readings by prediction and AUROC do not exist; segmentation uses the mean of each
    class plane.

    Args:
        model: The network that the report was made from; stays as it is.
        loader: The report's validation loader.
        report: The report, or its FeatureTable, which names the layer, the samples and the classes.
        layers: Names of the layers to compare; by default the report's.
        methods: CAM methods; by default those that need no further forward pass.
        task: The task function, if the report was made with one.
        batch_fn: Function that takes a batch apart, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        samples: Largest number of samples; each is explained for each of the ten most frequent classes.
        seed: Seed of the fresh weights.

    Raises:
        OutputError: The report was made with a task function, and it is not given.

    Example:
        >>> check = check_maps(model, val_loader, report, methods=["hirescam", "layercam"])
        >>> check.trust["method"].tolist()
        ['hirescam', 'layercam']
    """
    table = report if isinstance(report, FeatureTable) else report.tables["validation"]
    if table.task == "custom" and task is None:
        raise OutputError("the report was made with a task function; pass it as task=")
    names, counts = np.unique(table.explained, return_counts=True)
    classes = np.sort(names[np.argsort(-counts, kind="stable")][:MOST_CLASSES])
    chosen = table.take(np.unique(np.linspace(0, len(table) - 1, min(samples, len(table))).astype(np.int64)))
    agreements, trust, randomised, levels = [], [], [], []
    for layer in layers or (table.layer,):
        extraction = FeatureExtractor(
            model,
            layer,
            task or table.task,
            batch_fn=batch_fn,
            forward_fn=forward_fn,
            seed=seed,
            gradient=table.gradient,
        )
        found = _class_maps(extraction, loader, chosen.indices, classes, methods)
        own = _class_positions(chosen.explained, classes)
        read = () if table.targets.dtype.kind == "f" else ("predictions", "targets")
        columns = {name: _class_positions(getattr(chosen, name), classes) for name in read}
        fresh = [
            _class_maps(extraction, loader, chosen.indices, classes, methods, fresh_weights(model, seed + draw))
            for draw in range(RANDOM_NETWORKS)
        ]
        for method in methods:
            label = {"layer": layer, "method": method_name(method)}
            tables = _by_transform(found, method, own, columns, classes)
            agreements.append(pd.concat(tables, ignore_index=True).assign(**label))
            trust.append(label | _trust(tables[0].set_index("reading")))
            randomised.append(label | _randomised(found, fresh, method))
            levels.append(_levels(found, method, chosen, classes).assign(**label))
    return MapCheck(
        pd.concat(agreements, ignore_index=True)[["layer", "method", *tables[0].columns]],
        pd.DataFrame(trust),
        pd.DataFrame(randomised),
        pd.concat(levels, ignore_index=True),
    )


@dataclass(frozen=True, eq=False)
class _ClassMaps:
    """``logits`` ``(n, k)`` and, by method, ``maps`` ``(n, k, *space)`` of the k classes."""

    logits: NDArray[np.float32]
    maps: dict[str | Method, NDArray[np.float32]]


def _class_maps(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    indices: NDArray[np.int64],
    classes: NDArray[np.int64],
    methods: Sequence[str | Method],
    state: Mapping[str, Tensor] | None = None,
) -> _ClassMaps:
    logits: list[Tensor] = []
    maps: dict[str | Method, list[Tensor]] = {method: [] for method in methods}
    with extraction.session():
        for batch in extraction.batches(loader, indices, state=state):
            logits.append(batch.readout.logits.detach()[:, classes].cpu())
            parts: dict[str | Method, list[Tensor]] = {method: [] for method in methods}
            for name in classes:
                A, G = batch.gradient(int(name))
                for method in methods:
                    parts[method].append(cam(A, G, cam_weights(method), batch.rescore(int(name))).cpu())
            for method in methods:
                maps[method].append(torch.stack(parts[method], dim=1))
    return _ClassMaps(torch.cat(logits).numpy(), {method: torch.cat(found).numpy() for method, found in maps.items()})


def _by_transform(
    found: _ClassMaps,
    method: str | Method,
    own: NDArray[np.int64],
    columns: dict[str, NDArray[np.int64]],
    classes: NDArray[np.int64],
) -> list[pd.DataFrame]:
    maps = found.maps[method]
    known = np.flatnonzero(own >= 0)
    scale = common_scale(maps[known, own[known]])
    tables = []
    for transform in TRANSFORMS:
        table = agreement(found.logits, shown_levels(maps, scale, transform), **columns)
        if transform != "raw":
            table["completeness"] = np.nan  # asks for the logit's own unit
        table.index = [str(classes[i]) if isinstance(i, int) else i for i in table.index]
        tables.append(table.rename_axis("reading").reset_index().assign(transform=transform))
    return tables


def _trust(raw: pd.DataFrame) -> dict[str, Any]:
    complete, correlation = (float(raw[name]["mean"]) for name in ("completeness", "pearson"))
    return {"completeness": complete, "pearson": correlation, "trustworthy": trustworthy(complete)}


def _levels(found: _ClassMaps, method: str | Method, table: FeatureTable, classes: NDArray[np.int64]) -> pd.DataFrame:
    n, k = found.logits.shape
    return pd.DataFrame(
        {
            "sample_id": np.repeat(table.sample_ids, k),
            "class": np.tile(classes, n),
            "logit": found.logits.ravel(),
            "level": found.maps[method].reshape(n * k, -1).sum(1, dtype=np.float64),
            "member": (table.targets[:, None] == classes).ravel(),
        }
    )


def _randomised(found: _ClassMaps, fresh: Sequence[_ClassMaps], method: str | Method) -> dict[str, float]:
    raw = [
        agreement(one.logits, one.maps[method].reshape(*one.logits.shape, -1).sum(2, dtype=np.float64)).loc["mean"]
        for one in fresh
    ]
    space = found.maps[method].shape[2:]
    trained = found.maps[method].reshape(-1, *space)
    alike = np.stack([similarity(one.maps[method].reshape(-1, *space), trained) for one in fresh])
    return {
        "completeness": float(np.mean([row["completeness"] for row in raw])),
        "pearson": float(np.mean([row["pearson"] for row in raw])),
        "similarity": float(alike.mean()),
        "absolute_similarity": float(np.abs(alike).mean()),
    }


def _class_positions(values: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the position of each value among the classes, -1 where it is none of them."""
    position = np.clip(np.searchsorted(classes, values), 0, len(classes) - 1)
    return np.where(classes[position] == values, position, -1)
