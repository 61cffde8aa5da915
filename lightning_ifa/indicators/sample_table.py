"""The table of samples: what is thought of each, and in which order suspicious ones are shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.indicators.context import AnalysisContext, evidence
from lightning_ifa.statistics.duplicates import Duplicates
from lightning_ifa.statistics.label_noise import LabelScores
from lightning_ifa.statistics.neighbour_outliers import OutlierScores, outlier_kinds

CONFLICT = "label conflict"
"""Kind of a sample that is a copy of a training sample with another label."""


def list_samples(
    context: AnalysisContext,
    scores: Mapping[str, OutlierScores],
    duplicates: Duplicates | None,
    labels: Mapping[str, LabelScores] | None = None,
) -> pd.DataFrame:
    """List every sample of every split; for the columns see ``AnalysisResult.samples``.

    Args:
        context: The analysis.
        scores: Outlier scores of each split; none where they could not be computed.
        duplicates: Which validation samples are copies of training samples, or None.
        labels: What is thought of the labels of each split.
    """
    parts, labels = [], labels or {}
    for split, table in context.tables.items():
        judged = labels.get(split)
        kinds = outlier_kinds(scores[split], judged) if split in scores else np.full(len(table), "", dtype=object)
        copied_from, outside = np.full(len(table), "", dtype=object), None
        if split == "validation" and duplicates is not None:
            kinds = np.where((kinds == "") & (duplicates.match >= 0), duplicates.kind, kinds)
            copied_from = np.where(
                duplicates.match >= 0, context.tables["train"].sample_ids[duplicates.match], copied_from
            )
            kinds = np.where(_conflicts(context, duplicates), CONFLICT, kinds)
        if split == "validation" and context.localization is not None:
            outside = context.localization.share
        columns = {
            "sample_id": table.sample_ids,
            "split": split,
            "score": scores[split].score if split in scores else np.nan,
            "label_score": np.nan if judged is None else judged.score,
            "suggested_label": -1 if judged is None else judged.suggested,
            "kind": kinds,
            "target": table.targets,
            "prediction": table.predictions,
            "evidence": evidence(table),
            "duplicate_of": copied_from,
            "outside": np.nan if outside is None else outside,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def sort_outliers(rows: pd.DataFrame) -> pd.DataFrame:
    """Put copies with two labels first, then the largest scores; of labels, one near 1 counts as much as the largest.

    Args:
        rows: Suspicious rows of the table of samples.
    """
    return rows.assign(_conflict=rows["kind"] == CONFLICT).sort_values(
        ["_conflict", "score"], ascending=False, kind="stable"
    ).drop(columns="_conflict")  # fmt: skip


def _conflicts(context: AnalysisContext, duplicates: Duplicates) -> NDArray[np.bool_]:
    """Which validation samples are copies of training samples with another label, ``(n,)``."""
    validation, train = context.validation, context.tables["train"]
    if not validation.has_one_label:
        return np.zeros(len(validation), dtype=bool)
    targets, others = validation.targets, train.targets[duplicates.match]
    return np.asarray((duplicates.match >= 0) & (targets >= 0) & (others >= 0) & (targets != others))
