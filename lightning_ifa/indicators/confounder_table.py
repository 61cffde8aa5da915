"""The list of confounder candidates: what was found about each, its channels and example samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.statistics.confounder_candidates import ConfounderCandidate
from lightning_ifa.statistics.metadata_columns import read_column
from lightning_ifa.statistics.reliance import channel_reliance
from lightning_ifa.statistics.strata import group_means

MOST_CHANNELS = 5  # named for each candidate
EXAMPLES = 3  # samples named for each candidate

CONFOUNDER_COLUMNS = [
    "source", "origin", "score", "z", "features", "worst_class", "worst_score", "association",
    "accuracy_aligned", "accuracy_conflicting", "conflicting", "highest", "lowest", "note",
]  # fmt: skip


def list_candidates(context: AnalysisContext, candidates: list[ConfounderCandidate]) -> pd.DataFrame:
    """List every candidate, strongest first; for the columns see ``AnalysisResult.confounders``."""
    rows = [_list_candidate(context, candidate) for candidate in candidates]
    return pd.DataFrame(rows, columns=CONFOUNDER_COLUMNS)


def judged_candidates(frame: pd.DataFrame) -> pd.DataFrame:
    """Select tested candidates, those that count first: properties of the content may well belong to the class."""
    frame = frame.dropna(subset="score")
    return frame.sort_values("origin", key=lambda origin: origin == "content", kind="stable", ignore_index=True)


def order_candidates(frame: pd.DataFrame) -> pd.DataFrame:
    """Put tested candidates first, as ``judged_candidates`` does, and those that could not be tested last."""
    untested = frame["score"].isna()
    later = untested.astype(int) * 2 + (frame["origin"] == "content")
    return frame.loc[later.sort_values(kind="stable").index].reset_index(drop=True)


def _list_candidate(context: AnalysisContext, candidate: ConfounderCandidate) -> dict[str, Any]:
    table, labels, localization = context.validation, context.strata["validation"], context.localization
    frame = table.metadata if candidate.origin == "metadata" else table.properties
    values = frame.get(candidate.source)
    channels = [] if values is None else _channels(table, labels, values)
    if candidate.origin == "region" and localization is not None:
        values, channels = pd.Series(localization.share), _outside_channels(table, labels, localization.share)
    highest, lowest = ([], []) if values is None else _extremes(table, values)
    return {
        "source": candidate.source,
        "origin": candidate.origin,
        "score": candidate.reliance,
        "z": candidate.z,
        "features": channels,
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


def _extremes(table: FeatureTable, values: pd.Series[Any]) -> tuple[list[str], list[str]]:
    """Samples with the largest and the smallest values, or with the most frequent one and the next."""
    if not pd.api.types.is_numeric_dtype(values):
        levels = values.dropna().astype(str)
        common = [levels.index[levels == level] for level in levels.value_counts().index[:2]]
        highest, lowest = [*common, [], []][:2]
    else:
        lowest = values.dropna().astype(float).sort_values(kind="stable").index
        highest = lowest[::-1]
    return _sample_names(table, highest), _sample_names(table, lowest)


def _sample_names(table: FeatureTable, rows: Any) -> list[str]:
    return [str(name) for name in table.sample_ids[np.asarray(rows[:EXAMPLES], dtype=np.int64)]]


def _channels(table: FeatureTable, labels: NDArray[np.int64], values: pd.Series[Any]) -> list[int]:
    """The channels through which a candidate acts on the decision, strongest first."""
    column = read_column(values)
    known = column.known & (labels >= 0)
    if column.values is None or len(np.unique(labels[known])) < 2:
        return []
    rows = known[column.known]
    part = channel_reliance(table.contributions[known], table.activations[known], labels[known], column.values[rows])
    return [int(k) for k in np.argsort(-part, kind="stable")[:MOST_CHANNELS] if part[k] > 0]


def _outside_channels(table: FeatureTable, labels: NDArray[np.int64], outside: NDArray[np.float64]) -> list[int]:
    """The channels that contribute more, within classes, the more of the map lies outside the region."""
    beyond = outside * np.abs(table.cams).reshape(len(table), -1).sum(1)
    known = (labels >= 0) & np.isfinite(beyond)
    if not known.any():
        return []
    both = np.column_stack([beyond, np.abs(table.contributions)])[known]
    position, means = group_means(both, labels[known])
    centred = both - means[position]
    part = centred[:, 1:].T @ centred[:, 0]
    return [int(k) for k in np.argsort(-part, kind="stable")[:MOST_CHANNELS] if part[k] > 0]
