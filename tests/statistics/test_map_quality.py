"""Map quality against slow references, and the values that Quantus 0.6.0 gives for the same maps."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ifa.statistics.map_quality import gini, max_sensitivity, pointing_hits, relevance_mass, relevance_rank

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((4, 6, 5))
REGIONS = RNG.random((4, 6, 5)) < 0.3
REGIONS[3] = False


def test_the_gini_index_is_the_mean_difference_over_twice_the_mean():
    for found, values in zip(gini(MAPS), np.abs(MAPS).reshape(4, -1), strict=True):
        assert found == pytest.approx(np.abs(values[:, None] - values).mean() / (2 * values.mean()))
    assert np.isnan(gini(np.zeros((1, 3)))[0])


def test_localisation_counts_what_lies_inside_and_knows_nothing_without_a_region():
    for row in range(3):
        values, inside = MAPS[row], REGIONS[row]
        positive = values[values > 0].sum()
        assert relevance_mass(MAPS, REGIONS)[row] == pytest.approx(values[inside & (values > 0)].sum() / positive)
        highest = values >= np.sort(values, axis=None)[-inside.sum()]
        assert relevance_rank(MAPS, REGIONS)[row] == pytest.approx((highest & inside).sum() / inside.sum())
        assert pointing_hits(MAPS, REGIONS)[row] == inside[np.unravel_index(values.argmax(), values.shape)]
    for measure in (relevance_mass, relevance_rank, pointing_hits):
        assert np.isnan(measure(MAPS, REGIONS)[3])


def test_sensitivity_is_the_largest_change_relative_to_the_map():
    noisy = np.stack([MAPS, MAPS + 0.1, MAPS * 0.5])
    norms = np.linalg.norm(MAPS.reshape(4, -1), axis=1)
    np.testing.assert_allclose(max_sensitivity(MAPS, noisy), np.maximum(0.1 * np.sqrt(30) / norms, 0.5))
