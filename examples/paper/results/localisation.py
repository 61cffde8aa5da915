"""Does a map lie where the evidence is known to lie?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_ifa import FeatureReport
from lightning_ifa.features.regions import find_regions
from lightning_ifa.indicators.outside import outside


def localisation(report: FeatureReport, loader: DataLoader[Any]) -> dict[str, float]:
    """Compare the validation maps of the labelled class with the regions that the data set knows.

    Args:
        report: Of the network.
        loader: The validation loader that it was made from.

    Returns:
        ``energy`` (share of the map's positive values inside, mean over the samples with a region) and ``area`` (what
        a map that knows nothing would show), ``pointing`` (how often the highest cell touches the region; Zhang et
        al., arXiv 1608.00507) and ``pointing_chance``; empty where no region is known.
    """
    regions = find_regions(None, "validation", loader.dataset)
    if regions is None:
        return {}
    table = report.tables["validation"]
    coverage = regions.coverage(table.indices, table.cams.shape[1:])
    found = outside(table.cams, coverage)
    measured = np.isfinite(found.positive)
    if not measured.any():
        return {}
    hit, chance = pointing(table.cams[measured], coverage[measured])
    return {
        "energy": 1 - float(found.positive[measured].mean()),
        "area": 1 - float(found.area[measured].mean()),
        "pointing": hit,
        "pointing_chance": chance,
    }


def pointing(cams: NDArray[Any], coverage: NDArray[Any]) -> tuple[float, float]:
    """How often the highest cell touches the region, and how often any cell would.

    >>> pointing(np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]), np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    (0.5, 0.3333333333333333)
    """
    maps, inside = cams.reshape(len(cams), -1), coverage.reshape(len(cams), -1) > 0
    hits = inside[np.arange(len(maps)), maps.argmax(1)]
    return float(hits.mean()), float(inside.mean())
