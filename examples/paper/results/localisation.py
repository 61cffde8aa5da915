"""Does a map lie where the evidence is known to lie?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch.utils.data import DataLoader

from lightning_ifa import FeatureReport
from lightning_ifa.data.regions import find_regions
from lightning_ifa.statistics.localization import localize


def localisation(report: FeatureReport, loader: DataLoader[Any]) -> dict[str, float]:
    """Compare the validation maps of the labelled class with the regions that the data set knows.

    Args:
        report: Of the network.
        loader: The validation loader that it was made from.

    Returns:
        ``energy`` (share of the map's positive values inside, mean over the samples with a region) and ``area`` (what
        a map that knows nothing would show), ``pointing`` (how often the highest cell touches the region; Zhang et
        al., arXiv 1608.00507) and ``pointing_chance``, ``near`` and ``near_chance`` (the same with a tolerance of one
        cell, since a finding smaller than a cell is often brightest in the next); empty where no region is known.
    """
    regions = find_regions(None, "validation", loader.dataset)
    if regions is None:
        return {}
    table = report.tables["validation"]
    coverage = regions.coverage(table.indices, table.cams.shape[1:])
    found = localize(table.cams, coverage)
    measured = np.isfinite(found.positive)
    if not measured.any():
        return {}
    inside = coverage[measured] > 0
    around = np.stack([binary_dilation(one, np.ones((3,) * one.ndim)) for one in inside])
    (hit, chance), (near, near_chance) = (pointing(table.cams[measured], place) for place in (inside, around))
    return {
        "energy": 1 - float(found.positive[measured].mean()),
        "area": 1 - float(found.area[measured].mean()),
        "pointing": hit,
        "pointing_chance": chance,
        "near": near,
        "near_chance": near_chance,
    }


def pointing(cams: NDArray[Any], places: NDArray[np.bool_]) -> tuple[float, float]:
    """How often the highest cell is one of those asked for, and how often any cell would be.

    >>> pointing(np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]), np.array([[0, 1, 0], [0, 0, 1]]) > 0)
    (0.5, 0.3333333333333333)
    """
    maps, inside = cams.reshape(len(cams), -1), places.reshape(len(cams), -1)
    hits = inside[np.arange(len(maps)), maps.argmax(1)]
    return float(hits.mean()), float(inside.mean())
