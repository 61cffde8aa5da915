"""Which samples and features of a report deserve a picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from lightning_ifa.indicators.confounder_table import judged_candidates
from lightning_ifa.indicators.sample_table import sort_outliers
from lightning_ifa.indicators.slice_table import slice_rows
from lightning_ifa.interventions.region_swaps import OUTSIDE
from lightning_ifa.report.result import AnalysisResult

MOST_OUTLIERS = 12
MOST_CANDIDATES = 2
MOST_FEATURES = 12
SAMPLES_A_GROUP = 4
SAMPLES_A_FEATURE = 3
MOST_SLICES, SAMPLES_A_SLICE = 3, 8
MOST_CHANNELS, DRIVING = 6, 6


class Group(NamedTuple):
    """Validation samples at one end of a candidate: what they share, and their rows."""

    name: str
    rows: NDArray[np.int64]


def example_rows(report: AnalysisResult, driving: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Rows of each split's table that the pictures and the page show, sorted.

    Args:
        report: The report.
        driving: Validation rows on which single channels are shown, ``(m,)``.
    """
    wanted: dict[str, set[int]] = {split: set() for split in report.tables}
    for split, row in outlier_rows(report):
        wanted[split].add(row)
        duplicate = duplicate_row(report, split, row)
        if duplicate is not None:
            wanted["train"].add(duplicate)
    for source in leading_candidates(report):
        for group in candidate_groups(report, source):
            wanted["validation"].update(group.rows.tolist())
    for number in range(min(MOST_SLICES, len(report.slices))):
        wanted["validation"].update(slice_examples(report, number).tolist())
    wanted["validation"].update(driving.tolist())
    for channel in rank_features(report)[:MOST_FEATURES]:
        wanted["validation"].update(strongest_rows(report, int(channel)).tolist())
    return {split: np.array(sorted(rows), dtype=np.int64) for split, rows in wanted.items() if rows}


def rows_of(report: AnalysisResult, split: str) -> pd.DataFrame:
    """A split's part of ``report.samples``; row i is row i of its FeatureTable."""
    return report.samples[report.samples["split"] == split].reset_index(drop=True)


def outlier_rows(report: AnalysisResult, most: int = MOST_OUTLIERS) -> list[tuple[str, int]]:
    """The most suspicious samples as split and row: leaked ones and the largest scores in turn."""
    found = report.samples.assign(row=report.samples.groupby("split", sort=False).cumcount())
    found = sort_outliers(found[found["kind"] != ""])
    leaked = found["duplicate_of"] != ""
    turn = found.groupby(leaked).cumcount()
    found = found.assign(turn=turn).sort_values("turn", kind="stable").head(most)
    return [(str(split), int(row)) for split, row in zip(found["split"], found["row"], strict=True)]


def duplicate_row(report: AnalysisResult, split: str, row: int) -> int | None:
    """Row of the training sample that a validation sample is a copy of."""
    if split != "validation" or "train" not in report.tables:
        return None
    name = rows_of(report, split)["duplicate_of"].iloc[row]
    matching = np.flatnonzero(report.tables["train"].sample_ids == name)
    return int(matching[0]) if name and len(matching) else None


def leading_candidates(report: AnalysisResult, most: int = MOST_CANDIDATES) -> list[str]:
    """Names of the strongest judged candidates that samples can be sorted by."""
    found = judged_candidates(report.confounders)
    found = found[found["origin"] != "content"]
    names = [str(name) for name in found["source"] if _values(report, str(name)) is not None]
    return list(dict.fromkeys(names))[:most]  # a place may be named as a property and as a swap


def candidate_groups(report: AnalysisResult, source: str, most: int = SAMPLES_A_GROUP) -> list[Group]:
    """Samples with the highest and the lowest value of a candidate, or of its two most frequent levels.

    Among equal values the classes take turns, so that a row shows more than one of them.
    """
    values = _values(report, source)
    if values is None:
        return []
    turn = pd.Series(report.tables["validation"].targets).groupby(report.tables["validation"].targets).cumcount()
    if not pd.api.types.is_numeric_dtype(values):
        levels = values.astype(str)[values.notna()]
        common = levels.value_counts().index[:2]
        return [Group(f"{source} = {level}", _in_turn(levels == level, turn, most)) for level in common]
    known = pd.DataFrame({"value": values.astype(float), "turn": turn}).dropna()
    high = known.sort_values(["value", "turn"], ascending=[False, True], kind="stable").index[:most]
    low = known.sort_values(["value", "turn"], kind="stable").index[:most]
    return [
        Group(f"{word} {source}", np.sort(np.asarray(rows, dtype=np.int64)))
        for word, rows in (("highest", high), ("lowest", low))
    ]


def candidate_sides(report: AnalysisResult, source: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """Name the two sides of a candidate, and say which validation samples lie on each: its halves, or two levels."""
    values = _values(report, source)
    if values is None:
        return []
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.astype(float)
        middle = float(np.nanmean(numbers)) if numbers.nunique() == 2 else float(np.nanmedian(numbers))
        return [(f"high {source}", np.asarray(numbers > middle)), (f"low {source}", np.asarray(numbers <= middle))]
    levels = values.astype(str).where(values.notna())
    return [(f"{source} = {level}", np.asarray(levels == level)) for level in levels.value_counts().index[:2]]


def own_maps(report: AnalysisResult, source: str) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """A candidate's own maps, ``(m, *cells)``, which of the samples carry it, and their validation rows.

    Returns:
        Empty arrays where the candidate has no such map.
    """
    found = report.table("confounder_maps")
    found = found[found["source"] == source]
    if found.empty:
        return np.empty((0, 1, 1)), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64)
    maps = np.array(found["map"].tolist()).reshape(len(found), *(int(size) for size in found["shape"].iloc[0]))
    row = {str(name): number for number, name in enumerate(report.tables["validation"].sample_ids)}
    return maps, found["carries"].to_numpy(bool), np.array([row[str(name)] for name in found["sample_id"]])


def rank_features(report: AnalysisResult) -> NDArray[np.int64]:
    """Channels by how far they tell one class from the others, most important first, ``(c,)``."""
    found = report.importance
    values = found.difference if len(found.classes) > 1 else found.matrix
    if not len(values):
        return np.arange(found.matrix.shape[1])
    return np.argsort(-np.abs(values).max(0), kind="stable")


def strongest_rows(report: AnalysisResult, channel: int, most: int = SAMPLES_A_FEATURE) -> NDArray[np.int64]:
    """Validation samples to which a channel responds most, ``(m,)``."""
    return np.argsort(-report.tables["validation"].activations[:, channel], kind="stable")[:most].astype(np.int64)


def slice_examples(report: AnalysisResult, number: int) -> NDArray[np.int64]:
    """Validation samples of a slice, counted from 0, misclassified ones first, ``(m,)``."""
    samples = report.slices["samples"].iloc[number]
    return slice_rows(report.tables["validation"], samples)[:SAMPLES_A_SLICE]


def shown_channels(report: AnalysisResult) -> dict[int, str]:
    """Channels worth a look of their own, and why: what carries a candidate, the main directions, what tells classes.

    Two that carry the strongest candidate that alarms, the leading channel of each of the first two principal
    components of the contributions, and the most important ones.
    """
    found: dict[int, str] = {}
    finding = report.findings.get("confounding")
    if finding is not None and finding.alarm:
        carrying = report.confounders[report.confounders["source"] == finding.subject]["features"]
        for channel in carrying.iloc[0][:2] if len(carrying) else ():
            found.setdefault(int(channel), f"carries {finding.subject}")
    values = report.tables["validation"].contributions.astype(np.float64)
    count = min(2, *values.shape)
    directions = randomized_svd(values - values.mean(0), count, random_state=0)[2] if count else values
    for number, direction in enumerate(directions, 1):
        found.setdefault(int(np.abs(direction).argmax()), f"leads principal component {number}")
    for channel in rank_features(report)[:MOST_CHANNELS]:
        found.setdefault(int(channel), "tells classes apart")
    return dict(list(found.items())[:MOST_CHANNELS])


def driving_rows(report: AnalysisResult, channel: int) -> NDArray[np.int64]:
    """Validation samples to whose explained class a channel contributes most, either way, ``(m,)``."""
    contributions = np.abs(report.tables["validation"].contributions[:, channel])
    return np.argsort(-contributions, kind="stable")[:DRIVING].astype(np.int64)


def _values(report: AnalysisResult, source: str) -> pd.Series | None:
    table = report.tables["validation"]
    for frame in (table.metadata, table.properties):
        if source in frame:
            return frame[source].reset_index(drop=True)
    hidden = report.hidden[report.hidden["variable"] == source]
    if len(hidden):
        return hidden.set_index("sample_id")["value"].reindex(table.sample_ids).reset_index(drop=True)
    beyond = rows_of(report, "validation")["outside"]
    return beyond if source == OUTSIDE and beyond.notna().any() else None


def _in_turn(chosen: pd.Series, turn: pd.Series, most: int) -> NDArray[np.int64]:
    rows = chosen.index[chosen]
    return np.sort(np.asarray(turn.loc[rows].sort_values(kind="stable").index[:most], dtype=np.int64))
