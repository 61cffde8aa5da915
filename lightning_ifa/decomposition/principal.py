"""Principal features of a report's validation samples, with their maps and their strongest samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.interventions.reduction import StoredActivations
from lightning_ifa.statistics.principal_components import Components, nonnegative_components, principal_components

LISTED, SHOWN = 5, 3


@dataclass(frozen=True, eq=False)
class PrincipalFeatures:
    """Components of the contributions, and where they can be seen.

    Attributes:
        components: The decomposition, q components.
        serves: Classes that each component serves, best first; q lists, which are empty for regression.
        maps: Map of each component of each of the report's probes, ``(p, q, *space)``; sums to its score.
        strongest: Ids of the samples with the largest scores, largest first, ``(q, 5)``.
        images: Inputs of the first three, ``(q, 3, channels, *space)``; None if the report keeps no pixel.
    """

    components: Components
    serves: list[list[int]]
    maps: NDArray[np.float64]
    strongest: NDArray[np.str_]
    images: NDArray[np.float32] | None


def principal_features(
    table: FeatureTable, stored: StoredActivations, probes: StoredActivations, keep_images: bool, count: int, seed: int
) -> dict[str, PrincipalFeatures]:
    """Decompose a table's contributions by ``"pca"`` and ``"nmf"``.

    Args:
        table: The samples.
        stored: The same samples' inputs.
        probes: Activations and gradients of the pictured samples.
        keep_images: Whether inputs may be kept.
        count: Number of components.
        seed: Seed of NMF's solver.
    """
    contributions = (probes.A * probes.G).numpy()
    found = {}
    for components in (
        principal_components(table.contributions, count),
        nonnegative_components(table.contributions, count, seed),
    ):
        rows = np.stack([components.strongest(j, LISTED) for j in range(len(components.shares))])
        found[components.method] = PrincipalFeatures(
            components,
            [[] for _ in rows] if table.targets.dtype.kind == "f" else components.serves(table.explained),
            components.maps(contributions),
            table.sample_ids[rows],
            _pictures(stored, rows[:, :SHOWN]) if keep_images else None,
        )
    return found


def _pictures(stored: StoredActivations, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    found = stored.layer.as_picture(stored.x[rows.ravel()]).float()
    return np.asarray(found.numpy().reshape(*rows.shape, *found.shape[1:]))
