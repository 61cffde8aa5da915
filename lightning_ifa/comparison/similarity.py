"""Compare the features, maps and outliers of two runs on the samples that both have."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.comparison.changes import SIGNIFICANT
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.context import table_strata
from lightning_ifa.statistics.similarity import linear_cka, map_correlations


def shared_rows(first: FeatureTable, other: FeatureTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the rows of both tables that hold the same sample and input, in the first one's order, ``(m,)`` each."""
    row_of = {key: row for row, key in enumerate(zip(other.sample_ids, other.fingerprints, strict=True))}
    keys = enumerate(zip(first.sample_ids, first.fingerprints, strict=True))
    pairs = np.array([(row, row_of[key]) for row, key in keys if key in row_of], dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def feature_similarity(first: FeatureTable, other: FeatureTable) -> dict[str, float]:
    """Compare features and maps on the shared samples.

    Returns:
        ``samples`` (how many), ``cka``, ``cka_within`` (within classes), ``maps`` (mean correlation of a sample's two
        maps, where both explain the same class), ``maps_low`` and ``maps_high`` (99 % interval), ``maps_chance``
        (the same with another sample of the class in place of the same one). NaN where there is too little.
    """
    a, b = (table.take(rows) for table, rows in zip((first, other), shared_rows(first, other), strict=True))
    labels = table_strata({"both": a})["both"]
    same = np.flatnonzero(a.explained == b.explained)
    found = map_correlations(a.cams[same], b.cams[same])
    chance = map_correlations(a.cams[same], b.cams[same][_next_of_class(labels[same])])
    middle = _mean(found)
    error = float(np.nanstd(found, ddof=1)) / np.sqrt(len(found)) if np.isfinite(found).sum() > 1 else float("nan")
    return {
        "samples": len(a),
        "cka": linear_cka(a.activations, b.activations),
        "cka_within": linear_cka(a.activations, b.activations, labels),
        "maps": middle,
        "maps_low": middle - SIGNIFICANT * error,
        "maps_high": middle + SIGNIFICANT * error,
        "maps_chance": _mean(chance),
    }


def cka_matrix(tables: list[FeatureTable]) -> NDArray[np.float64]:
    """Compute the linear CKA of every pair on the samples that it shares, ``(r, r)``; the diagonal is 1."""
    matrix = np.eye(len(tables))
    for i, j in combinations(range(len(tables)), 2):
        rows = shared_rows(tables[i], tables[j])
        value = linear_cka(tables[i].activations[rows[0]], tables[j].activations[rows[1]])
        matrix[i, j] = matrix[j, i] = value
    return matrix


def probe_similarity(probes: FeatureTable, other: FeatureTable) -> pd.DataFrame:
    """Compare predictions and maps of the probes, the first run's rows, with the other run's table.

    Returns:
        One row a probe that the other run has: ``sample_id``, ``target``, predictions ``first`` and ``other``, and
        ``maps``, the correlation of the two maps.
    """
    mine, theirs = shared_rows(probes, other)
    a, b = probes.take(mine), other.take(theirs)
    columns = {
        "sample_id": a.sample_ids,
        "target": a.targets,
        "first": a.predictions,
        "other": b.predictions,
        "maps": map_correlations(a.cams, b.cams),
    }
    return pd.DataFrame(columns)


def take_maps(probes: FeatureTable, other: FeatureTable) -> NDArray[Any]:
    """Take the other run's maps of the probes, ``(p, *space)``; NaN where it lacks the sample."""
    mine, theirs = shared_rows(probes, other)
    maps = np.full((len(probes), *other.cams.shape[1:]), np.nan, dtype=np.float32)
    maps[mine] = other.cams[theirs]
    return maps


def outlier_changes(first: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Tell from ``FeatureReport.samples`` which validation samples are outliers in both runs, or in one of them.

    Returns:
        ``sample_id``, ``status`` (``"shared"``, ``"new"``, ``"gone"``), kinds ``first`` and ``other``, highest score
        first.
    """
    kept = ["sample_id", "kind", "score"]
    a, b = (frame.loc[frame["split"] == "validation", kept].drop_duplicates("sample_id") for frame in (first, other))
    both = a.merge(b, on="sample_id", suffixes=("_first", "_other"))
    was, remains = both["kind_first"] != "", both["kind_other"] != ""
    both["status"] = np.select([was & remains, remains, was], ["shared", "new", "gone"], "")
    both["worst"] = both[["score_first", "score_other"]].max(axis=1)
    both = both[both["status"] != ""].sort_values("worst", ascending=False, ignore_index=True)
    both = both.rename(columns={"kind_first": "first", "kind_other": "other"})
    return both[["sample_id", "status", "first", "other"]]


def _next_of_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each row another of its class, or itself where it is the only one, ``(n,)``."""
    follower = np.arange(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        follower[rows] = np.roll(rows, 1)
    return follower


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
