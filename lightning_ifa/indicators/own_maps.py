"""Each leading candidate's own map, for every sample that has a value: where does the candidate act?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.statistics.metadata_columns import read_column
from lightning_ifa.statistics.own_map import own_map

MOST_MAPPED = 2
OWN_MAP_COLUMNS = ["source", "sample_id", "carries", "spread", "peak", "shape", "map"]


def list_own_maps(context: AnalysisContext, judged: pd.DataFrame, hidden: pd.DataFrame) -> pd.DataFrame:
    """List the own maps of the strongest candidates that have values of two sides.

    Args:
        context: The analysis.
        judged: Judged candidates, strongest first, with ``source`` and ``origin``.
        hidden: Columns that were recovered, one row a validation sample.

    Returns:
        One row a sample and candidate: ``source``, ``sample_id``, ``carries`` (whether it lies on the side that shows
        the candidate), ``spread`` (share of the cells that hold four fifths of the difference; a place below 0.5),
        ``peak``, ``shape`` and ``map`` (lists; in standard deviations of the samples that do not carry it).
    """
    table, labels = context.validation, context.strata["validation"]
    parts: list[pd.DataFrame] = []
    if table.places.shape[1] != table.logits.shape[1]:
        return no_own_maps()
    for source, origin in judged[["source", "origin"]].itertuples(index=False):
        frame = {"metadata": table.metadata, "hidden": hidden}.get(str(origin), table.properties)
        if source not in frame or len(parts) == MOST_MAPPED:
            continue
        column = read_column(frame[source])
        known = column.known & (labels >= 0)
        if column.values is None or column.values.shape[1] != 1 or not known.any():
            continue
        values = np.asarray(column.values[known[column.known], 0], dtype=np.float64)
        pictures = None if table.thumbnails is None else table.thumbnails[known]
        found = own_map(table.places[known], table.logits[known], labels[known], values, pictures)
        if found is None:
            continue
        cell, shape = list(found.peak), list(found.maps.shape[1:])
        flat = found.maps.reshape(len(found.maps), -1).astype(np.float32)
        parts.append(
            pd.DataFrame({
                "source": str(source), "sample_id": table.sample_ids[known], "carries": found.carries,
                "spread": found.spread, "peak": [cell] * len(flat), "shape": [shape] * len(flat),
                "map": [[float(value) for value in row] for row in flat],
            })
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else no_own_maps()


def no_own_maps() -> pd.DataFrame:
    """List no map."""
    kinds = {"carries": bool, "spread": float, "peak": object, "shape": object, "map": object}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(name, str)) for name in OWN_MAP_COLUMNS})
