"""From finding to action: what would the network do without the channels that carry a confounder?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.errors import DataError
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.extract import Extraction
from lightning_ifa.features.interventions import ablate_channels
from lightning_ifa.features.table import FeatureTable
from lightning_ifa.indicators.columns import read_column
from lightning_ifa.indicators.confounding import alignment_accuracy
from lightning_ifa.indicators.reliance import channel_reliance

CARRIED = 0.5
"""Share of the reliance that the ablated channels carry, unless ``MOST_CHANNELS`` stops it."""

MOST_CHANNELS = 0.1  # of all
RANDOM_DRAWS = 5


def what_if(
    model: nn.Module,
    val_loader: DataLoader[Any],
    report: FeatureReport,
    source: str,
    *,
    batch_fn: BatchFunction | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Put the channels that carry a suspect at their mean, and count who is still right.

    Aligned are samples whose value of the suspect speaks for their class, conflicting ones those whose value speaks
    against it. A fix shows as conflicting accuracy up and the rest unharmed, and not with random channels.

    Args:
        model: The network that the report is about.
        val_loader: The validation loader that it was made from.
        report: Of ``analyze``.
        source: Name of a metadata column or image property in ``report.confounders``.
        batch_fn: As in ``analyze``.
        seed: Of the random channels.

    Returns:
        Three rows: ``ablated`` (``"nothing"``, ``"carriers"``, ``"random"``: as many, mean of five draws),
        ``channels``, ``accuracy``, ``accuracy_aligned``, ``accuracy_conflicting``.

    Raises:
        DataError: There is no such column, it cannot be compared, or the task has no classes.
    """
    table = report.tables["validation"]
    values, known = _values(table, source)
    labels = np.asarray(table.targets)
    part = channel_reliance(table.contributions[known], table.activations[known], labels[known], values)
    carriers = _carriers(part)
    rng = np.random.default_rng(seed)
    sets = {
        "nothing": [carriers[:0]],
        "carriers": [carriers],
        "random": [rng.choice(len(part), len(carriers), replace=False) for _ in range(RANDOM_DRAWS)],
    }
    extraction = Extraction(model, table.layer, table.task, batch_fn=batch_fn, seed=seed)

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


def _values(table: FeatureTable, source: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    frame = table.metadata if source in table.metadata else table.properties
    if source not in frame:
        raise DataError(f"no metadata column or image property {source!r}; there are {', '.join(map(str, frame))}")
    if table.targets.dtype.kind == "f":
        raise DataError("a what-if counts right answers; a regression has none")
    column = read_column(frame[source])
    if column.values is None:
        raise DataError(f"{source!r} has {column.levels} different values and cannot be compared")
    rows = table.targets[column.known] >= 0
    known = column.known & (table.targets >= 0)
    return column.values[rows], known


def _carriers(part: NDArray[np.float64]) -> NDArray[np.int64]:
    """The fewest channels that carry the share asked for, strongest first."""
    order = np.argsort(-part, kind="stable")
    carried = np.cumsum(np.maximum(part[order], 0.0))
    enough = int(np.searchsorted(carried, CARRIED * carried[-1])) + 1
    return order[: max(1, min(enough, round(MOST_CHANNELS * len(part))))]
