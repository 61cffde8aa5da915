"""CKA and map correlations against independent definitions, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group, pearsonr

from lightning_ifa.statistics.resampling import bootstrap_draws, share_error
from lightning_ifa.statistics.similarity import linear_cka, map_correlations


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 8)) * np.linspace(0.2, 3, 8)


def hsic_by_definition(k, m):
    """Song et al. 2012, eq. 5, by naive sums."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    trace = np.trace(k @ m)
    middle = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (trace + middle - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))


def test_cka_is_the_papers(features):
    other = np.random.default_rng(1).normal(size=(60, 5)) + features[:, :5]
    k, m = features @ features.T, other @ other.T
    expected = hsic_by_definition(k, m) / np.sqrt(hsic_by_definition(k, k) * hsic_by_definition(m, m))
    assert linear_cka(features, other) == pytest.approx(expected, rel=1e-9)


def test_cka_ignores_order_rotation_scale_and_place_of_channels(features):
    turned = 7 * features @ ortho_group.rvs(8, random_state=0) + 3
    assert linear_cka(features, features) == 1.0
    assert linear_cka(features, features.copy()) == 1.0
    assert linear_cka(features, features[:, ::-1]) == pytest.approx(1, abs=1e-12)
    assert linear_cka(features, turned) == pytest.approx(1, abs=1e-9)


def test_unrelated_features_are_at_zero_even_with_more_channels_than_samples():
    rng = np.random.default_rng(2)
    found = [linear_cka(rng.normal(size=(40, 200)), rng.normal(size=(40, 300))) for _ in range(50)]
    assert abs(np.mean(found)) < 0.02
    assert max(found) < 0.2  # the plain estimate gives 0.85


def test_shared_classes_alone_do_not_make_features_alike_within_classes():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 40)
    pair = [np.eye(3)[labels] @ rng.normal(size=(3, 10)) * 5 + rng.normal(size=(120, 10)) for _ in range(2)]
    assert linear_cka(*pair) > 0.7
    assert abs(linear_cka(*pair, labels)) < 0.1


@pytest.mark.parametrize("features", [np.zeros((10, 3)), np.ones((3, 2))])
def test_nothing_to_compare_is_nan(features):
    assert np.isnan(linear_cka(features, features))


def test_map_correlations_are_pearsons(features):
    maps, others = features.reshape(60, 2, 4), np.roll(features, 1, axis=0).reshape(60, 2, 4)
    expected = [pearsonr(a.ravel(), b.ravel())[0] for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(map_correlations(maps, others), expected)
    np.testing.assert_allclose(map_correlations(maps, 3 * maps + 1), 1)


def test_maps_of_another_resolution_are_brought_to_the_coarser_one():
    y, x = np.mgrid[0:8, 0:8] / 8
    fine = np.stack([x + y, x - y])
    coarse = fine.reshape(2, 4, 2, 4, 2).mean((2, 4))
    assert map_correlations(fine, coarse).min() > 0.99
    assert np.isnan(map_correlations(fine, np.zeros((2, 4)))).all()
    assert np.isnan(map_correlations(fine, np.ones((2, 8, 8)))).all()


def test_draws_keep_every_class_and_are_paired():
    labels = np.array([0, 2, 0, 2, 2, 5])
    draws = bootstrap_draws(labels, 1, 50)
    assert all(sorted(labels[rows]) == [0, 0, 2, 2, 2, 5] for rows in draws)
    assert len({tuple(rows) for rows in draws}) > 10
    np.testing.assert_array_equal(draws, bootstrap_draws(labels, 1, 50))
    assert bootstrap_draws(np.zeros(0, dtype=np.int64), 0, 2)[0].shape == (0,)


def test_error_of_a_share_covers_what_is_drawn():
    rng = np.random.default_rng(0)
    for share in (0.05, 0.4):
        drawn = rng.binomial(32, share, size=2000) / 32
        inside = [abs(value - share) < 2.576 * share_error(value, 32) for value in drawn]
        assert np.mean(inside) > 0.97
