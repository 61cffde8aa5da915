"""One map from several layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.data.several_sizes import resize
from lightning_ifa.errors import DataError
from lightning_ifa.report.result import AnalysisResult


def mean_map(reports: Mapping[str, AnalysisResult | FeatureTable]) -> NDArray[np.float32]:
    """Average the maps of several layers at the resolution of the finest one.

    Each map is brought there with its sum unchanged, so the mean's sum is the mean of the sums: with HiResCAM it
    follows the logit as far as the layers' own maps do. Layers in series tell of the same evidence at several scales,
    so maps are averaged, not added.

    Args:
        reports: Layer name to its report, as of ``analyze_layers``, or to its FeatureTable of the same samples.

    Returns:
        Maps of the validation samples, ``(n, *space)``, signed, unscaled.

    Raises:
        DataError: There is no layer, or the reports are of different samples, classes or numbers of axes.
    """
    tables = [found if isinstance(found, FeatureTable) else found.tables["validation"] for found in reports.values()]
    if not tables:
        raise DataError("there is no layer to average over; pass what analyze_layers gives")
    first = tables[0]
    for table in tables[1:]:
        same = np.array_equal(table.indices, first.indices) and np.array_equal(table.explained, first.explained)
        if not same or table.cams.ndim != first.cams.ndim:
            raise DataError(
                f'the maps of layers "{first.layer}" and "{table.layer}" are of different samples, classes or axes; '
                "pass what one call of analyze_layers gives"
            )
    finest = tuple(int(edge) for edge in np.max([table.cams.shape[1:] for table in tables], axis=0))
    wide = np.stack([resize(table.cams, finest, keep_sum=True) for table in tables])
    return np.asarray(wide.mean(0), dtype=np.float32)
