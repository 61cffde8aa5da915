"""Tables that MLflow lays side by side for several runs, so their names and columns stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.confounder_table import EXAMPLES, MOST_CHANNELS
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.subpopulations import Subpopulations, subpopulations


def cams_table(report: AnalysisResult) -> pd.DataFrame:
    """Describe the maps of the probes by numbers that compare between runs.

    Returns:
        One row a probe: ``sample_id``, ``target``, ``prediction``, ``explained`` (class of the map), ``logit`` of that
        class, ``evidence`` (the map's sum, units of the logit), ``low`` and ``high`` (of the map), ``energy`` (root
        mean square of the map), ``shown`` (share of the map above the middle of the common scale).
    """
    table = report.probes.table
    maps = table.cams.reshape(len(table), -1).astype(np.float64)
    columns = {
        "sample_id": table.sample_ids,
        "target": table.targets,
        "prediction": table.predictions,
        "explained": table.explained,
        "logit": table.logits[np.arange(len(table)), table.explained],
        "evidence": table.intensity,
        "low": maps.min(1),
        "high": maps.max(1),
        "energy": np.sqrt((maps**2).mean(1)),
        "shown": (report.scale.apply(maps) > 0.5).mean(1),
    }
    return pd.DataFrame(columns)


def list_subpopulations(report: AnalysisResult) -> pd.DataFrame:
    """List how each class divides into groups; for the columns see ``FeatureReport.subpopulations``."""
    _, (table, groups) = report.context.comparable_rows
    rows = [
        {
            "class": found.label,
            "sizes": np.bincount(found.group).tolist(),
            "stability": found.stability,
            "null": found.null,
            "separation": found.separation,
            "z": found.z,
            "found": found.found,
            "features": [int(channel) for channel in found.features[:MOST_CHANNELS]],
            "examples": [table.sample_ids[rows].tolist() for rows in _middle_rows(table, found)],
        }
        for found in subpopulations(table.contributions, groups)
    ]
    return pd.DataFrame(rows, columns=SUBPOPULATION_COLUMNS)


SUBPOPULATION_COLUMNS = ["class", "sizes", "stability", "null", "separation", "z", "found", "features", "examples"]


def outliers_table(report: AnalysisResult) -> pd.DataFrame:
    """Give the suspicious samples as pages show them: what they are first, what is mostly empty last.

    MLflow's page of tables opens on the second column.
    """
    return report.outliers[[*OUTLIER_COLUMNS, *report.outliers.columns.difference(OUTLIER_COLUMNS, sort=False)]]


OUTLIER_COLUMNS = ["sample_id", "kind", "split", "target", "prediction", "score", "evidence"]


def as_json(table: pd.DataFrame) -> str:
    """Write a table as MLflow's pages read it, lists in one line of text."""
    return str(table.map(_as_text).to_json(orient="split", index=False))


def _as_text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _middle_rows(table: FeatureTable, found: Subpopulations) -> Iterator[NDArray[np.int64]]:
    """Rows of the samples nearest the mean of each group."""
    for number in np.unique(found.group):
        rows = found.rows[found.group == number]
        away = ((table.contributions[rows] - table.contributions[rows].mean(0)) ** 2).sum(1)
        yield rows[np.argsort(away, kind="stable")[:EXAMPLES]]
