"""The lists of a report: every sample, every suspect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.features.table import FeatureTable
from lightning_ifa.indicators.columns import read_column
from lightning_ifa.indicators.confounding import Suspect
from lightning_ifa.indicators.leakage import Twins
from lightning_ifa.indicators.outliers import OutlierScores, outlier_kinds
from lightning_ifa.indicators.reliance import channel_reliance
from lightning_ifa.sides import evidence

CARRIERS = 5  # channels named for each suspect
EXAMPLES = 3  # samples named for each suspect


def sample_rows(
    tables: Mapping[str, FeatureTable],
    scores: Mapping[str, OutlierScores],
    twins: Twins | None,
    outside: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """List every sample of every split; columns in ``FeatureReport``.

    Args:
        tables: By split.
        scores: By split.
        twins: Of the validation samples, if there is a training split.
        outside: Share of each validation map outside its region, ``(n,)``, if those are known.
    """
    parts = []
    for split, table in tables.items():
        kinds, twin = outlier_kinds(scores[split]), np.full(len(table), "", dtype=object)
        if split == "validation" and twins is not None:
            kinds = np.where((kinds == "") & (twins.twin >= 0), twins.kind, kinds)
            twin = np.where(twins.twin >= 0, tables["train"].sample_ids[twins.twin], "")
        parts.append(
            pd.DataFrame(
                {
                    "sample_id": table.sample_ids,
                    "split": split,
                    "score": scores[split].score,
                    "kind": kinds,
                    "target": table.targets,
                    "prediction": table.predictions,
                    "evidence": evidence(table),
                    "twin": twin,
                    "outside": outside if outside is not None and split == "validation" else np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def confounder_rows(
    table: FeatureTable,
    labels: NDArray[np.int64],
    suspects: list[Suspect],
    outside: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """List every suspect; columns in ``FeatureReport``.

    Args:
        table: Of the validation split.
        labels: Class or target bin of its rows, -1 where there is none.
        suspects: In the order of the list.
        outside: As in ``sample_rows``.
    """
    rows = [_confounder_row(table, labels, suspect, outside) for suspect in suspects]
    return pd.DataFrame(rows, columns=CONFOUNDER_COLUMNS)


CONFOUNDER_COLUMNS = [
    "source", "origin", "score", "z", "features", "worst_class", "worst_score", "association",
    "accuracy_aligned", "accuracy_conflicting", "conflicting", "highest", "lowest", "note",
]  # fmt: skip


def _confounder_row(
    table: FeatureTable, labels: NDArray[np.int64], suspect: Suspect, outside: NDArray[np.float64] | None
) -> dict[str, Any]:
    frame = table.metadata if suspect.origin == "metadata" else table.properties
    channels, values = [], frame.get(suspect.source)
    if values is not None:
        channels = _carriers(table, labels, values)
    elif suspect.origin == "region" and outside is not None:
        values = pd.Series(outside)
    highest, lowest = ("", "") if values is None else _extremes(table, values)
    return {
        "source": suspect.source,
        "origin": suspect.origin,
        "score": suspect.reliance,
        "z": suspect.z,
        "features": ", ".join(map(str, channels)),
        "worst_class": suspect.worst_class,
        "worst_score": suspect.worst_reliance,
        "association": suspect.association,
        "accuracy_aligned": suspect.accuracy_aligned,
        "accuracy_conflicting": suspect.accuracy_conflicting,
        "conflicting": suspect.conflicting,
        "highest": highest,
        "lowest": lowest,
        "note": suspect.note or suspect.sentence(),
    }


def _extremes(table: FeatureTable, values: pd.Series[Any]) -> tuple[str, str]:
    """Samples with the largest and the smallest values."""
    if not pd.api.types.is_numeric_dtype(values):
        return "", ""
    order = values.dropna().astype(float).sort_values(kind="stable").index
    highest, lowest = (", ".join(table.sample_ids[rows[:EXAMPLES]]) for rows in (order[::-1], order))
    return highest, lowest


def _carriers(table: FeatureTable, labels: NDArray[np.int64], values: pd.Series[Any]) -> list[int]:
    """The channels that carry a suspect into the decision, strongest first."""
    column = read_column(values)
    known = column.known & (labels >= 0)
    if column.values is None or len(np.unique(labels[known])) < 2:
        return []
    rows = known[column.known]
    part = channel_reliance(table.contributions[known], table.activations[known], labels[known], column.values[rows])
    return [int(k) for k in np.argsort(-part, kind="stable")[:CARRIERS] if part[k] > 0]
