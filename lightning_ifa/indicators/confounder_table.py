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
from lightning_ifa.statistics.reliance import channel_reliance, channel_weights
from lightning_ifa.statistics.strata import group_means

MOST_CHANNELS = 5  # named for each candidate
EXAMPLES = 3  # samples named for each candidate

CONFOUNDER_COLUMNS = [
    "source", "origin", "score", "z", "features", "worst_class", "worst_score", "association",
    "accuracy_aligned", "accuracy_conflicting", "conflicting", "highest", "lowest", "note",
]  # fmt: skip


def list_candidates(
    context: AnalysisContext, candidates: list[ConfounderCandidate], hidden: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List every candidate, strongest first; for the columns see ``AnalysisResult.confounders``.

    Args:
        context: The analysis.
        candidates: What was tested.
        hidden: Columns that were recovered, one row a validation sample.
    """
    channels = ChannelSearch(context)
    rows = [_list_candidate(context, candidate, hidden, channels) for candidate in candidates]
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


def _list_candidate(
    context: AnalysisContext, candidate: ConfounderCandidate, hidden: pd.DataFrame | None, search: ChannelSearch
) -> dict[str, Any]:
    table, labels, localization = context.validation, context.strata["validation"], context.localization
    frame = table.metadata if candidate.origin == "metadata" else table.properties
    values = (hidden if hidden is not None and candidate.origin == "hidden" else frame).get(candidate.source)
    channels = [] if values is None else search.channels(values)
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


class ChannelSearch:
    """Finds the channels through which candidates act on the decision; what they have in common is computed once."""

    def __init__(self, context: AnalysisContext) -> None:
        self.table, self.labels = context.validation, context.strata["validation"]
        self._weights: dict[bytes, NDArray[np.float64]] = {}

    def channels(self, values: pd.Series[Any]) -> list[int]:
        """Give the channels through which a candidate acts on the decision, strongest first."""
        column = read_column(values)
        known = column.known & (self.labels >= 0)
        if column.values is None or len(np.unique(self.labels[known])) < 2:
            return []
        rows = slice(None) if known.all() else known  # a copy of all costs more than the rest
        parts = self.table.contributions[rows], self.table.activations[rows], self.labels[rows]
        if known.tobytes() not in self._weights:
            self._weights[known.tobytes()] = channel_weights(*parts)
        part = channel_reliance(*parts, column.values[known[column.known]], self._weights[known.tobytes()])
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
