"""FeatureTables as the indicators compare them: classes, evidence for the truth, the two sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.statistics.generalization_gap import SplitSample, margin, standardised_gap
from lightning_ifa.statistics.strata import bin_edges, strata

Strata = dict[str, NDArray[np.int64]]
SMALLEST_PROBABILITY = 1e-7


def table_strata(tables: Mapping[str, FeatureTable]) -> Strata:
    """Give each split's rows their class, or their target bin for regression; -1 where unlabelled, ``(n,)``."""
    if all(table.task == "custom" for table in tables.values()):
        return {split: np.zeros(len(table), dtype=np.int64) for split, table in tables.items()}
    edges = bin_edges(*(table.targets for table in tables.values()))
    return {split: strata(table.targets, edges) for split, table in tables.items()}


def without_singles(labels: NDArray[np.int64], split: str, warnings: list[str]) -> NDArray[np.int64]:
    """Take classes with one sample out of the comparison, and say so."""
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    single = names[counts < 2]
    if len(single):
        warnings.append(
            f"{split}: {len(single)} of {len(names)} classes have one sample only and cannot be judged within the "
            f"class: {', '.join(map(str, single[:10]))}{', ...' if len(single) > 10 else ''}"
        )
    return np.where(np.isin(labels, single), -1, labels)


def evidence(table: FeatureTable) -> NDArray[Any]:
    """Give the evidence for the truth, more is better, ``(n,)``; only labelled rows mean anything."""
    if table.task == "custom":
        return np.asarray(table.logits[:, 0])
    if table.task == "regression":
        return np.asarray(-np.abs(table.targets - table.predictions))
    labels = np.maximum(table.targets, 0)
    if table.task == "multilabel":
        return np.asarray(table.logits[np.arange(len(table)), labels])
    return margin(table.logits, labels)


def label_margins(table: FeatureTable, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the evidence for the label's class over the next best in logits, NaN where classes do not compete, ``(n,)``.

    A network that gives probabilities is read in their logarithms: near 1 they differ by next to nothing, so that any
    doubt would lie many standard deviations away from the rest.
    """
    if table.task not in ("multiclass", "binary"):
        return np.full(len(table), np.nan)
    logits = table.logits.astype(np.float64)
    if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
        logits = np.log(np.maximum(logits, SMALLEST_PROBABILITY))
    return np.where(labels >= 0, margin(logits, np.maximum(table.targets, 0)), np.nan)


def split_sample(table: FeatureTable, labels: NDArray[np.int64]) -> SplitSample:
    """Take the labelled rows' part in the comparison of splits."""
    known = labels >= 0
    return SplitSample(evidence(table)[known], table.intensity[known], table.activations[known], labels[known])


def augmentation_gap(clean: FeatureTable, augmented: FeatureTable) -> dict[str, float]:
    """How far augmentation alone moves the evidence of the same samples, in units of the gap between the splits."""
    same = clean.take(np.searchsorted(clean.indices, augmented.indices))
    if not np.array_equal(same.targets, augmented.targets) or clean.task == "custom":
        return {}
    labels = table_strata({"train": same})["train"]
    gap, _ = standardised_gap(evidence(same), labels, evidence(augmented), labels)
    return {"augmentation_gap": gap} if np.isfinite(gap) else {}


def compared_rows(tables: Mapping[str, FeatureTable]) -> list[tuple[FeatureTable, NDArray[np.int64]]]:
    """Give the labelled rows of both splits with their strata; no training row where there is no training split."""
    both = {"train": tables["validation"].take(np.arange(0)), **tables}
    groups = table_strata(both)
    return [(both[s].take(groups[s] >= 0), groups[s][groups[s] >= 0]) for s in ("train", "validation")]
