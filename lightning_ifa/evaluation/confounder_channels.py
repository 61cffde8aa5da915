"""The channels through which a confounder reaches the decision: where they look, and the network without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.data.batches import BatchFunction
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.ablation import ablate_channels
from lightning_ifa.model.batch_forward import ForwardFunction
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.confounder_candidates import alignment, alignment_accuracy
from lightning_ifa.statistics.metadata_columns import read_column
from lightning_ifa.statistics.reliance import channel_reliance

RELIANCE_SHARE = 0.5
"""Share of the reliance on a candidate that its channels account for, unless ``MOST_CHANNELS`` stops it."""

MOST_CHANNELS = 0.1
"""Share of all channels that a candidate's channels make up at most."""


@dataclass(frozen=True, eq=False)
class ConfounderChannelMaps:
    """Where the channels of a candidate look.

    Attributes:
        samples: One row a sample: ``sample_id``, ``side`` (``"aligned"``: its value points to its class, or
            ``"conflicting"``), ``target``, ``prediction``; strongest first within a side.
        channels: ``(k,)``, strongest channel first.
        maps: ``(m, k, *space)`` float32, activation times gradient of the explained class at layer resolution; summed
            over space the channel's contribution.
        images: ``(m, channels, *space)`` float32 inputs as the model got them.
    """

    samples: pd.DataFrame
    channels: NDArray[np.int64]
    maps: NDArray[np.float32]
    images: NDArray[np.float32]


def confounder_channel_maps(
    model: nn.Module,
    val_loader: DataLoader[Any],
    report: AnalysisResult,
    source: str,
    *,
    examples: int = 4,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    seed: int = 0,
) -> ConfounderChannelMaps:
    """Show where in the images the channels look through which a candidate reaches the decision.

    Args:
        model: The network that the report is about.
        val_loader: The validation loader that it was made from.
        report: The report of ``analyze``.
        source: Name of a metadata column or image property in ``report.confounders``.
        examples: Number of samples of each side.
        batch_fn: Function from a batch to ``(x, y)``, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        seed: Seed that was given to ``analyze``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    table = report.tables["validation"]
    values, known = candidate_values(table, source)
    channels = confounder_channels(table, values, known)
    rows, side = _example_rows(table, values, known, channels, examples)
    extraction = FeatureExtractor(
        model, table.layer, table.task, batch_fn=batch_fn, forward_fn=forward_fn, seed=seed, gradient=table.gradient
    )
    chosen = table.take(rows)
    maps, images = [], []
    with extraction.session():
        for batch in extraction.batches(val_loader, chosen.indices):
            A, G = batch.gradient(chosen.explained[batch.rows])
            maps.append((A * G)[:, torch.from_numpy(channels).to(A.device)].numpy(force=True))
            images.append(batch.pictures.float().numpy(force=True))
    samples = pd.DataFrame(
        {
            "sample_id": chosen.sample_ids,
            "side": side,
            "target": chosen.targets,
            "prediction": chosen.predictions,
        }
    )
    return ConfounderChannelMaps(samples, channels, np.concatenate(maps), np.concatenate(images))


def candidate_values(table: FeatureTable, source: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give a candidate's values as numbers, ``(known rows, p)``, and which rows have them and a label, ``(n,)``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    frame = table.metadata if source in table.metadata else table.properties
    if source not in frame:
        raise DataError(f"no metadata column or image property {source!r}; there are {', '.join(map(str, frame))}")
    if table.targets.dtype.kind == "f":
        raise DataError("a regression has no classes that a candidate could point to or away from")
    column = read_column(frame[source])
    if column.values is None:
        raise DataError(f"{source!r} has {column.levels} different values and cannot be compared")
    rows = table.targets[column.known] >= 0
    known = column.known & (table.targets >= 0)
    return column.values[rows], known


def confounder_channels(
    table: FeatureTable, values: NDArray[np.float64], known: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Give the fewest channels that make up half of the reliance, at most a tenth of all, strongest first."""
    part = channel_reliance(table.contributions[known], table.activations[known], table.targets[known], values)
    order = np.argsort(-part, kind="stable")
    carried = np.cumsum(np.maximum(part[order], 0.0))
    enough = int(np.searchsorted(carried, RELIANCE_SHARE * carried[-1])) + 1
    return order[: max(1, min(enough, round(MOST_CHANNELS * len(part))))]


def _example_rows(
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


RANDOM_DRAWS = 5


def ablate_confounder(
    model: nn.Module,
    val_loader: DataLoader[Any],
    report: AnalysisResult,
    source: str,
    *,
    batch_fn: BatchFunction | None = None,
    forward_fn: ForwardFunction | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Put the channels of a candidate at their mean, and count which samples are still classified correctly.

    Aligned are samples whose value of the candidate points to their class, conflicting ones those whose value speaks
    against it. A fix shows as conflicting accuracy up and the rest unharmed, and not with random channels.

    Args:
        model: The network that the report is about.
        val_loader: The validation loader that it was made from.
        report: The report of ``analyze``.
        source: Name of a metadata column or image property in ``report.confounders``.
        batch_fn: Function from a batch to ``(x, y)``, as given to ``analyze``.
        forward_fn: Function that calls a network which is not called as ``model(x)``, as given to ``analyze``.
        seed: Seed of the random channels.

    Returns:
        Three rows: ``ablated`` (``"nothing"``, ``"confounder channels"``, ``"random"``: as many, mean of five draws),
        ``channels``, ``accuracy``, ``accuracy_aligned``, ``accuracy_conflicting``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    table = report.tables["validation"]
    values, known = candidate_values(table, source)
    labels, c = np.asarray(table.targets), table.activations.shape[1]
    channels = confounder_channels(table, values, known)
    rng = np.random.default_rng(seed)
    sets = {
        "nothing": [channels[:0]],
        "confounder channels": [channels],
        "random": [rng.choice(c, len(channels), replace=False) for _ in range(RANDOM_DRAWS)],
    }
    extraction = FeatureExtractor(
        model, table.layer, table.task, batch_fn=batch_fn, forward_fn=forward_fn, seed=seed, gradient=table.gradient
    )

    def accuracies(channels: NDArray[np.int64]) -> tuple[float, float, float]:
        logits = ablate_channels(extraction, val_loader, table, channels) if len(channels) else table.logits
        correct = logits[known].argmax(1) == labels[known]
        return float(correct.mean()), *alignment_accuracy(correct, labels[known], values)[:2]

    rows = []
    for name, draws in sets.items():
        names = ", ".join(map(str, draws[0])) if len(draws) == 1 else ""
        rows.append([name, names, *np.mean([accuracies(channels) for channels in draws], axis=0)])
    columns = ["ablated", "channels", "accuracy", "accuracy_aligned", "accuracy_conflicting"]
    return pd.DataFrame(rows, columns=columns)
