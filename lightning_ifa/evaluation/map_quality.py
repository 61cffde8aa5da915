"""Sparseness, stability and localisation of a table's maps, as part of ``evaluate_maps``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.regions import Regions
from lightning_ifa.features.extractor import FeatureExtractor
from lightning_ifa.interventions.input_noise import noisy_maps
from lightning_ifa.interventions.masking import upscale
from lightning_ifa.model.outputs import ScoreFunction
from lightning_ifa.statistics.faithfulness import shuffle
from lightning_ifa.statistics.map_quality import (
    gini,
    max_sensitivity,
    pointing_hits,
    relevance_mass,
    relevance_rank,
)

NOISE = 0.1
"""Largest change of an input value, as a share of the input's own standard deviation."""

LOCALISATION = {"relevance_mass": relevance_mass, "relevance_rank": relevance_rank, "pointing": pointing_hits}
QUALITY = ("sparseness", "max_sensitivity", *LOCALISATION)


def measure_quality(
    extraction: FeatureExtractor,
    loader: DataLoader[Any],
    table: FeatureTable,
    task: str | ScoreFunction,
    regions: Regions | None,
    *,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Measure the maps, and beside them their shuffled control; see ``MapEvaluation.quality``.

    Args:
        extraction: How the table was made.
        loader: The loader that it was made from.
        table: The samples and their maps.
        task: How the output is read.
        regions: Where the evidence should lie, or None.
        draws: Number of draws of the noise; 0 leaves the sensitivity out.
        seed: Seed of noise and control.
    """
    sensitivity = np.full(len(table), np.nan)
    if draws:
        noisy = noisy_maps(extraction, loader, table, task, draws=draws, radius=NOISE, seed=seed)
        sensitivity = max_sensitivity(table.cams, noisy)
    rows = []
    for name, maps in {"cam": table.cams, "shuffled": shuffle(table.cams, table.indices, seed)}.items():
        found = {"sparseness": gini(maps), "max_sensitivity": sensitivity}
        found |= _localisation(maps, table.indices, regions)
        rows.append({"map": name} | {kind: _mean(values) for kind, values in found.items()})
    return pd.DataFrame(rows)


def _localisation(
    maps: NDArray[Any], indices: NDArray[np.int64], regions: Regions | None
) -> dict[str, NDArray[np.float64]]:
    """Measure at the input's resolution, where small findings are not blurred away."""
    found = {name: np.full(len(maps), np.nan) for name in LOCALISATION}
    for row, index in enumerate(indices if regions is not None else ()):
        region = regions(int(index)) if regions is not None else None
        if region is None or region.ndim != maps.ndim - 1:
            continue
        wide = upscale(torch.from_numpy(maps[row : row + 1]), region.shape).numpy()
        for name, measure in LOCALISATION.items():
            found[name][row] = measure(wide, region[None])[0]
    return found


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
