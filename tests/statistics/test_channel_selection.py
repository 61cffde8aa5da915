"""Reductions against independent references: explicit loops, SciPy's QR, scikit-learn's PCA and regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import qr
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from lightning_ifa.statistics.channel_selection import (
    channel_refill,
    enough,
    fill_value,
    greedy_order,
    kept_counts,
    moments,
    pivoted_order,
    principal_axes,
    similarity,
)

RNG = np.random.default_rng


@pytest.fixture
def activations():
    rng = RNG(0)
    return np.maximum(rng.normal(size=(400, 5)) @ rng.normal(size=(5, 14)) + 0.3 * rng.normal(size=(400, 14)) + 1, 0)


def test_moments_equal_numpy(activations):
    found = moments(activations.astype(np.float32))
    np.testing.assert_allclose(found.mean, activations.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(activations, rowvar=False, bias=True), atol=1e-5)


def test_principal_axes_equal_scikit_learn(activations):
    axes, reference = principal_axes(moments(activations)), PCA().fit(activations)
    np.testing.assert_allclose(np.abs(axes[:, :5].T @ reference.components_[:5].T), np.eye(5), atol=1e-5)


@pytest.mark.parametrize("kept", [[3], [0, 5, 9], list(range(14))])
def test_refill_equals_a_linear_regression_of_every_channel(activations, kept):
    train, test = activations[:300], activations[300:]
    found = channel_refill(moments(train), np.array(kept))(test)
    for channel in range(14):
        if channel in kept:
            np.testing.assert_allclose(found[:, channel], test[:, channel], atol=1e-9)
        else:
            model = LinearRegression().fit(train[:, kept], train[:, channel])
            np.testing.assert_allclose(found[:, channel], model.predict(test[:, kept]), atol=1e-5)


def test_refill_stays_finite_where_kept_channels_are_copies(activations):
    duplicates = np.column_stack([activations[:, 0], activations[:, 0], activations[:, 1]])
    assert np.isfinite(channel_refill(moments(duplicates), np.array([0, 1]))(duplicates)).all()


def test_pivoted_order_equals_scipy(activations):
    expected = qr(activations - activations.mean(0), mode="r", pivoting=True)[1]
    np.testing.assert_array_equal(pivoted_order(moments(activations)), expected)


def test_greedy_order_equals_trying_every_channel(activations):
    centred = activations - activations.mean(0)
    taken: list[int] = []
    for _ in range(6):
        losses = {}
        for j in set(range(14)) - set(taken):
            own = centred[:, [*taken, j]]
            losses[j] = ((centred - own @ np.linalg.lstsq(own, centred, rcond=None)[0]) ** 2).sum()
        taken.append(min(losses, key=losses.get))
    assert greedy_order(moments(activations))[:6].tolist() == taken


@pytest.mark.parametrize("order", [pivoted_order, greedy_order])
def test_an_order_names_every_channel_once_even_dead_ones(activations, order):
    with_dead = np.column_stack([np.zeros(400), activations, activations[:, 0]])
    assert sorted(order(moments(with_dead)).tolist()) == list(range(16))


@pytest.mark.parametrize("space", [(9,), (4, 5), (2, 3, 4)])
def test_similarity_equals_scipy_map_by_map(space):
    rng = RNG(1)
    maps, reference = rng.normal(size=(3, 6, *space)), rng.normal(size=(6, *space))
    found = similarity(maps, reference)
    assert found.shape == (3, 6)
    for r in range(3):
        for n in range(6):
            assert found[r, n] == pytest.approx(pearsonr(maps[r, n].ravel(), reference[n].ravel())[0])


def test_similarity_of_a_constant_map_is_zero():
    reference = RNG(2).normal(size=(2, 4))
    np.testing.assert_array_equal(similarity(np.full((2, 4), 3.0), reference), [0, 0])


def test_counts_keep_at_least_one_and_at_most_all():
    assert kept_counts(np.array([0.0001, 0.1, 0.5, 1.0]), 10).tolist() == [1, 1, 5, 10]


def test_a_share_is_enough_only_if_every_larger_one_is():
    shares = np.array([0.1, 0.2, 0.3, 1.0])
    performance, similar = np.array([0.95, 0.5, 0.949, 0.95]), np.array([1.0, 1.0, 0.9, 1.0])
    assert enough(shares, performance, similar, 0.95) == (0.3, 1.0)
    assert np.isnan(enough(shares, performance * 0.5, similar, 0.95)).all()


def test_fill_values(activations):
    stats = moments(activations)
    assert not fill_value(stats, "zero").any()
    np.testing.assert_array_equal(fill_value(stats, "mean"), stats.mean)
    with pytest.raises(ValueError, match="'zero' or 'mean'"):
        fill_value(stats, "median")
