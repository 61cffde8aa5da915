"""Tables that MLflow lays side by side for several runs, so their names and columns stay the same."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lightning_ifa.feature_report import FeatureReport

OUTLIERS_FILE, CONFOUNDERS_FILE, CAMS_FILE = "ifa_outliers.json", "ifa_confounders.json", "ifa_cams.json"
TABLES = (OUTLIERS_FILE, CONFOUNDERS_FILE, CAMS_FILE)


def cams_table(report: FeatureReport) -> pd.DataFrame:
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


def as_json(table: pd.DataFrame) -> str:
    """Write a table as MLflow's pages read it."""
    return str(table.to_json(orient="split", index=False))
