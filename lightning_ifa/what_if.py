"""From finding to action: what would the network do without the channels that carry a confounder?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from lightning_ifa.carriers import carrying_channels, suspect_values
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.features.ablation import ablate_channels
from lightning_ifa.features.batches import BatchFunction
from lightning_ifa.features.extract import Extraction
from lightning_ifa.indicators.confounding import alignment_accuracy

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
    values, known = suspect_values(table, source)
    labels, c = np.asarray(table.targets), table.activations.shape[1]
    carriers = carrying_channels(table, values, known)
    rng = np.random.default_rng(seed)
    sets = {
        "nothing": [carriers[:0]],
        "carriers": [carriers],
        "random": [rng.choice(c, len(carriers), replace=False) for _ in range(RANDOM_DRAWS)],
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
