"""The lists of a report: every sample, every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.sides import evidence
from lightning_ifa.statistics.confounder_candidates import ConfounderCandidate
from lightning_ifa.statistics.duplicates import Duplicates
from lightning_ifa.statistics.metadata_columns import read_column
from lightning_ifa.statistics.neighbour_outliers import OutlierScores, outlier_kinds
from lightning_ifa.statistics.reliance import channel_reliance
from lightning_ifa.statistics.strata import group_means
from lightning_ifa.statistics.subpopulations import Subpopulations

MOST_CHANNELS = 5  # channels named for each candidate
EXAMPLES = 3  # samples named for each candidate


def sample_rows(
    tables: Mapping[str, FeatureTable],
    scores: Mapping[str, OutlierScores],
    duplicates: Duplicates | None,
    outside: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """List every sample of every split; columns in ``FeatureReport``.

    Args:
        tables: By split.
        scores: By split.
        duplicates: Of the validation samples, if there is a training split.
        outside: Share of each validation map outside its region, ``(n,)``, if those are known.
    """
    parts = []
    for split, table in tables.items():
        kinds, duplicate = outlier_kinds(scores[split]), np.full(len(table), "", dtype=object)
        if split == "validation" and duplicates is not None:
            kinds = np.where((kinds == "") & (duplicates.match >= 0), duplicates.kind, kinds)
            duplicate = np.where(duplicates.match >= 0, tables["train"].sample_ids[duplicates.match], "")
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
                    "duplicate_of": duplicate,
                    "outside": outside if outside is not None and split == "validation" else np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def confounder_rows(
    table: FeatureTable,
    labels: NDArray[np.int64],
    candidates: list[ConfounderCandidate],
    outside: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """List every candidate; columns in ``FeatureReport``.

    Args:
        table: Of the validation split.
        labels: Class or target bin of its rows, -1 where there is none.
        candidates: In the order of the list.
        outside: As in ``sample_rows``.
    """
    rows = [_confounder_row(table, labels, candidate, outside) for candidate in candidates]
    return pd.DataFrame(rows, columns=CONFOUNDER_COLUMNS)


CONFOUNDER_COLUMNS = [
    "source", "origin", "score", "z", "features", "worst_class", "worst_score", "association",
    "accuracy_aligned", "accuracy_conflicting", "conflicting", "highest", "lowest", "note",
]  # fmt: skip


def _confounder_row(
    table: FeatureTable, labels: NDArray[np.int64], candidate: ConfounderCandidate, outside: NDArray[np.float64] | None
) -> dict[str, Any]:
    frame = table.metadata if candidate.origin == "metadata" else table.properties
    values = frame.get(candidate.source)
    channels = [] if values is None else _confounder_channels(table, labels, values)
    if candidate.origin == "region" and outside is not None:
        values, channels = pd.Series(outside), _outside_channels(table, labels, outside)
    highest, lowest = ("", "") if values is None else _extremes(table, values)
    return {
        "source": candidate.source,
        "origin": candidate.origin,
        "score": candidate.reliance,
        "z": candidate.z,
        "features": ", ".join(map(str, channels)),
        "worst_class": candidate.worst_class,
        "worst_score": candidate.worst_reliance,
        "association": candidate.association,
        "accuracy_aligned": candidate.accuracy_aligned,
        "accuracy_conflicting": candidate.accuracy_conflicting,
        "conflicting": candidate.conflicting,
        "highest": highest,
        "lowest": lowest,
        "note": candidate.note or candidate.sentence(),
    }


def subpopulation_rows(table: FeatureTable, divisions: list[Subpopulations]) -> pd.DataFrame:
    """List how each class divides; columns in ``FeatureReport.subpopulations``.

    Args:
        table: That the divisions' rows belong to.
        divisions: In the order of the list.
    """
    rows = [
        {
            "class": found.label,
            "sizes": ", ".join(map(str, np.bincount(found.group))),
            "stability": found.stability,
            "null": found.null,
            "separation": found.separation,
            "z": found.z,
            "found": found.found,
            "features": ", ".join(map(str, found.features[:MOST_CHANNELS])),
            "examples": "; ".join(", ".join(table.sample_ids[rows]) for rows in _middles(table, found)),
        }
        for found in divisions
    ]
    return pd.DataFrame(rows, columns=SUBPOPULATION_COLUMNS)


SUBPOPULATION_COLUMNS = ["class", "sizes", "stability", "null", "separation", "z", "found", "features", "examples"]


def _middles(table: FeatureTable, found: Subpopulations) -> Iterator[NDArray[np.int64]]:
    """Rows of the samples nearest the mean of each group."""
    for number in np.unique(found.group):
        rows = found.rows[found.group == number]
        away = ((table.contributions[rows] - table.contributions[rows].mean(0)) ** 2).sum(1)
        yield rows[np.argsort(away, kind="stable")[:EXAMPLES]]


def _extremes(table: FeatureTable, values: pd.Series[Any]) -> tuple[str, str]:
    """Samples with the largest and the smallest values, or with the most frequent one and the next."""
    if not pd.api.types.is_numeric_dtype(values):
        levels = values.dropna().astype(str)
        common = levels.value_counts().index[:2]
        named = [", ".join(table.sample_ids[levels.index[levels == level][:EXAMPLES]]) for level in common]
        return named[0] if named else "", named[1] if len(named) > 1 else ""
    order = values.dropna().astype(float).sort_values(kind="stable").index
    highest, lowest = (", ".join(table.sample_ids[rows[:EXAMPLES]]) for rows in (order[::-1], order))
    return highest, lowest


def _confounder_channels(table: FeatureTable, labels: NDArray[np.int64], values: pd.Series[Any]) -> list[int]:
    """The channels that carry a candidate into the decision, strongest first."""
    column = read_column(values)
    known = column.known & (labels >= 0)
    if column.values is None or len(np.unique(labels[known])) < 2:
        return []
    rows = known[column.known]
    part = channel_reliance(table.contributions[known], table.activations[known], labels[known], column.values[rows])
    return [int(k) for k in np.argsort(-part, kind="stable")[:MOST_CHANNELS] if part[k] > 0]


def _outside_channels(table: FeatureTable, labels: NDArray[np.int64], outside: NDArray[np.float64]) -> list[int]:
    """The channels that speak louder, for or against, the more of the map lies outside the region; within classes."""
    beyond = outside * np.abs(table.cams).reshape(len(table), -1).sum(1)
    known = (labels >= 0) & np.isfinite(beyond)
    if not known.any():
        return []
    both = np.column_stack([beyond, np.abs(table.contributions)])[known]
    position, means = group_means(both, labels[known])
    centred = both - means[position]
    part = centred[:, 1:].T @ centred[:, 0]
    return [int(k) for k in np.argsort(-part, kind="stable")[:MOST_CHANNELS] if part[k] > 0]
