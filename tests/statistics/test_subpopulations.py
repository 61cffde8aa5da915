import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from lightning_ifa.statistics.subpopulations import LEAST_SAMPLES, _rand_index, subpopulations


def profiles(apart, n=80, c=12, seed=0, share=0.4):
    """Three classes of contribution profiles with a few strong directions; the second has two groups."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], n)
    values = rng.normal(size=(3 * n, c)) @ np.diag(np.linspace(2, 0.3, c)) + 3 * labels[:, None]
    second = (labels == 1) & (rng.random(3 * n) < share)
    values[second, 4:6] += apart
    order = rng.permutation(3 * n)
    return values[order].astype(np.float32), labels[order], second[order]


def test_two_groups_are_found_named_and_told_apart():
    values, labels, second = profiles(6.0)
    first, *others = subpopulations(values, labels)
    assert (first.label, first.found) == (1, True)
    assert not any(division.found for division in others)
    np.testing.assert_array_equal(first.group == 1, second[first.rows])
    assert set(first.features[:2]) == {4, 5}
    assert first.stability > 0.95


def test_one_gaussian_however_long_is_one_population():
    found = [division for seed in range(2) for division in subpopulations(*profiles(0.0, seed=seed)[:2], seed)]
    assert len(found) == 6
    assert not any(division.found for division in found)
    z = np.array([division.z for division in found])
    assert abs(np.median(z)) < 1.5


def test_a_handful_of_odd_samples_is_no_population():
    values, labels, _ = profiles(15.0, share=0.04)
    assert not any(division.found for division in subpopulations(values, labels))


def test_the_same_data_and_seed_give_the_same_answer():
    values, labels, _ = profiles(4.0)
    first, again = (subpopulations(values, labels, 3)[0] for _ in range(2))
    assert (first.z, first.stability, first.null) == (again.z, again.stability, again.null)


@pytest.mark.parametrize("n", [LEAST_SAMPLES - 1, 3])
def test_small_classes_and_constant_profiles_are_left_out(n):
    values, labels, _ = profiles(6.0, n=n)
    assert subpopulations(values, labels) == []
    assert subpopulations(np.ones((200, 5)), np.arange(200) % 2) == []


@pytest.mark.parametrize("groups", [2, 3])
def test_agreement_is_the_adjusted_rand_index(groups):
    rng = np.random.default_rng(0)
    first = rng.integers(0, groups, 50)
    second = np.where(rng.random(50) < 0.5, first, rng.integers(0, groups, 50))
    assert _rand_index(first, second, groups) == pytest.approx(adjusted_rand_score(first, second))
