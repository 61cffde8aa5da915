"""Components against scikit-learn and SciPy, and found again after channels and signs were changed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import svd

from lightning_ifa.statistics import principal_components as principal
from lightning_ifa.statistics.principal_components import match, nonnegative_components, principal_components


def contributions(n=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    parts = np.zeros((3, 12))
    for k in range(3):
        parts[k, 4 * k : 4 * k + 4] = rng.uniform(1, 3, 4) * rng.choice([-1, 1], 4)
    strength = rng.uniform(0.5, 1.5, n) * np.array([3.0, 2.0, 1.0])[labels]
    return (strength[:, None] * parts[labels] + 0.05 * rng.normal(size=(n, 12))).astype(np.float32), labels


def test_pca_equals_a_singular_value_decomposition():
    C, _ = contributions()
    _, s, vt = svd(C - C.mean(0), full_matrices=False)
    found = principal_components(C, 4)
    for j in range(4):
        assert abs(found.directions[j] @ vt[j]) == pytest.approx(1, abs=1e-5)
        assert found.directions[j, np.abs(found.directions[j]).argmax()] > 0
    np.testing.assert_allclose(found.shares, (s**2 / (s**2).sum())[:4], atol=1e-5)
    np.testing.assert_allclose(found.scores, C @ found.directions.T, atol=1e-4)


def test_large_matrices_are_decomposed_in_batches_to_the_same_end(monkeypatch):
    C, _ = contributions(3000)
    whole = principal_components(C, 2)
    monkeypatch.setattr(principal, "LARGE", 100)
    batched = principal_components(C, 2)
    np.testing.assert_allclose(np.abs((whole.directions * batched.directions).sum(1)), 1, atol=1e-3)


def test_nmf_finds_the_planted_parts_and_whom_they_serve():
    C, labels = contributions()
    found = nonnegative_components(C, 3)
    assert [serves[:1] for serves in found.serves(labels)] == [[0], [1], [2]]
    assert (np.diff(found.shares) <= 0).all()
    assert found.shares.sum() == pytest.approx(1, abs=0.1)
    for j in range(3):
        inside = np.abs(found.directions[j, 4 * j : 4 * j + 4])
        assert (inside**2).sum() > 0.97
        assert labels[found.strongest(j, 3)].tolist() == [j] * 3


def test_component_maps_sum_to_the_scores():
    rng = np.random.default_rng(1)
    P = rng.normal(size=(5, 6, 3, 4))
    found = principal_components(P.sum((2, 3)), 3)
    maps = found.maps(P)
    assert maps.shape == (5, 3, 3, 4)
    np.testing.assert_allclose(maps.sum((2, 3)), found.scores, atol=1e-5)
    by_hand = sum(found.directions[1, c] * P[2, c] for c in range(6))
    np.testing.assert_allclose(maps[2, 1], by_hand, atol=1e-5)


def test_components_are_found_again_in_a_network_with_other_channels():
    C, _ = contributions()
    rng = np.random.default_rng(2)
    shuffled = C[:, rng.permutation(12)] + 0.02 * rng.normal(size=C.shape)
    first, second = principal_components(C, 3), principal_components(shuffled, 3)
    scrambled = second.scores[:, [2, 0, 1]] * [-1, 1, -1]
    found = match(first.scores, scrambled)
    assert found.order.tolist() == [1, 2, 0]
    assert (found.correlation > 0.99).all()
    for j in range(3):
        assert np.corrcoef(first.scores[:, j], scrambled[:, found.order[j]] * found.sign[j])[0, 1] > 0.99


def test_a_component_without_a_partner_says_so():
    C, _ = contributions()
    scores = principal_components(C, 3).scores
    found = match(scores, scores[:, :1])
    assert found.order.tolist() == [0, -1, -1]
    assert found.correlation[1:].tolist() == [0, 0]


@pytest.mark.parametrize("kind", [principal_components, nonnegative_components])
def test_never_more_components_than_samples_or_channels(kind):
    C, _ = contributions()
    assert len(kind(C[:5], 99).shares) == 5
    assert len(kind(C, 99).shares) == 12
