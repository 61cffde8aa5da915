"""The channels that carry a suspect into the decision, and what they see in the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.errors import DataError
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.explained import explained_batches
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.isolation import undisturbed
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.indicators.columns import read_column
from lightning_ifa.indicators.confounding import alignment
from lightning_ifa.indicators.reliance import channel_reliance

CARRIED = 0.5
"""Share of the reliance that the carrying channels carry, unless ``MOST_CHANNELS`` stops it."""

MOST_CHANNELS = 0.1  # of all


@dataclass(frozen=True, eq=False)
class CarrierMaps:
    """What the channels that carry a suspect see.

    Attributes:
        samples: One row a sample: ``sample_id``, ``side`` (``"aligned"``: its value speaks for its class, or
            ``"conflicting"``), ``target``, ``prediction``; most telling first within a side.
        channels: ``(k,)``, strongest carrier first.
        maps: ``(m, k, *space)`` float32, activation times gradient of the explained class at layer resolution; summed
            over space the channel's contribution.
        images: ``(m, channels, *space)`` float32 inputs as the model got them.
    """

    samples: pd.DataFrame
    channels: NDArray[np.int64]
    maps: NDArray[np.float32]
    images: NDArray[np.float32]


def carrier_maps(
    model: nn.Module,
    val_loader: DataLoader[Any],
    report: FeatureReport,
    source: str,
    *,
    examples: int = 4,
    batch_fn: BatchFunction | None = None,
    seed: int = 0,
) -> CarrierMaps:
    """Show where in the images the channels look that carry a suspect.

    Args:
        model: The network that the report is about.
        val_loader: The validation loader that it was made from.
        report: Of ``analyze``.
        source: Name of a metadata column or image property in ``report.confounders``.
        examples: Samples of each side.
        batch_fn: As in ``analyze``.
        seed: As in ``analyze``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    table = report.tables["validation"]
    values, known = suspect_values(table, source)
    channels = carrying_channels(table, values, known)
    rows, side = _telling(table, values, known, channels, examples)
    extraction = Extraction(model, table.layer, table.task, batch_fn=batch_fn, seed=seed)
    chosen = table.take(rows)
    maps, images = [], []
    with undisturbed(model, seed), torch.inference_mode(False), torch.no_grad():
        for batch in explained_batches(extraction, val_loader, chosen.indices):
            A, G = batch.gradient(batch.classes(chosen.explained[batch.rows]))
            maps.append((A * G)[:, torch.from_numpy(channels).to(A.device)].numpy(force=True))
            images.append(batch.x.float().numpy(force=True))
    samples = pd.DataFrame(
        {
            "sample_id": chosen.sample_ids,
            "side": side,
            "target": chosen.targets,
            "prediction": chosen.predictions,
        }
    )
    return CarrierMaps(samples, channels, np.concatenate(maps), np.concatenate(images))


def suspect_values(table: FeatureTable, source: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give a suspect's values as numbers, ``(known rows, p)``, and which rows have them and a label, ``(n,)``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    frame = table.metadata if source in table.metadata else table.properties
    if source not in frame:
        raise DataError(f"no metadata column or image property {source!r}; there are {', '.join(map(str, frame))}")
    if table.targets.dtype.kind == "f":
        raise DataError("a regression has no classes that a suspect could speak for or against")
    column = read_column(frame[source])
    if column.values is None:
        raise DataError(f"{source!r} has {column.levels} different values and cannot be compared")
    rows = table.targets[column.known] >= 0
    known = column.known & (table.targets >= 0)
    return column.values[rows], known


def carrying_channels(table: FeatureTable, values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give the fewest channels that carry half of a suspect's reliance, at most a tenth of all, strongest first."""
    part = channel_reliance(table.contributions[known], table.activations[known], table.targets[known], values)
    order = np.argsort(-part, kind="stable")
    carried = np.cumsum(np.maximum(part[order], 0.0))
    enough = int(np.searchsorted(carried, CARRIED * carried[-1])) + 1
    return order[: max(1, min(enough, round(MOST_CHANNELS * len(part))))]


def _telling(
    table: FeatureTable,
    values: NDArray[np.float64],
    known: NDArray[np.bool_],
    channels: NDArray[np.int64],
    examples: int,
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows that speak most for and most against their class; among equals those in which the channels do most."""
    speaks = alignment(values, np.asarray(table.targets[known]))
    carried = table.contributions[known][:, channels].sum(1)
    order = np.flatnonzero(known)[np.lexsort((carried, speaks))]
    aligned = order[::-1][: min(examples, int((speaks > 0).sum()))]
    conflicting = order[: min(examples, int((speaks < 0).sum()))]
    return np.concatenate([aligned, conflicting]), ["aligned"] * len(aligned) + ["conflicting"] * len(conflicting)
