"""Segmented objects: how well each is found, and which are missed or made up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lightning_ifa.data.feature_table import FeatureTable

COLUMNS = ("sample_id", "dice", "size", "outcome")


def list_objects(table: FeatureTable) -> pd.DataFrame:
    """List the labelled samples of a segmentation, the worst first; see ``AnalysisResult.objects``."""
    if table.task != "segmentation":
        return pd.DataFrame(columns=list(COLUMNS))
    is_there, is_seen = table.targets > 0, table.predictions > 0
    names = np.array([["empty", "false positive"], ["missed", "found"]])
    outcomes = names[is_there.astype(int), is_seen.astype(int)]
    values = (table.sample_ids, table.dice, table.object_size, outcomes)
    frame = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))[table.targets >= 0]
    return frame.sort_values("dice", kind="stable", na_position="last").reset_index(drop=True)


def object_metrics(table: FeatureTable) -> dict[str, float]:
    """Give ``dice`` (mean where an object is labelled or predicted), and the shares of missed and made-up objects.

    ``missed``: of the samples with a labelled object; ``false_positives``: of those without. What is not there is left
    out, as for other tasks everything.
    """
    objects = list_objects(table)
    counts = objects["outcome"].value_counts()
    found: dict[str, float] = {}
    if objects["dice"].notna().any():
        found["dice"] = float(objects["dice"].mean())
    for name, wrong, right in (("missed", "missed", "found"), ("false_positives", "false positive", "empty")):
        total = counts.get(wrong, 0) + counts.get(right, 0)
        if total:
            found[name] = float(counts.get(wrong, 0) / total)
    return found
