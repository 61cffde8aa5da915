"""Importance and rankings against explicit loops."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ifa.statistics.importance import MODES, frequency, importance, order, preference

RNG = np.random.default_rng(0)
C = RNG.normal(size=(90, 7))
CLASSES = RNG.integers(0, 4, 90)
INCLUDED = (RNG.random(90) < 0.7) & (CLASSES != 2)


def test_importance_is_the_class_mean_over_included_samples():
    found = importance(C, CLASSES, INCLUDED)
    assert found.classes.tolist() == [0, 1, 3]
    for row, name in enumerate(found.classes):
        own = [C[i] for i in range(90) if INCLUDED[i] and CLASSES[i] == name]
        np.testing.assert_allclose(found.matrix[row], sum(own) / len(own), atol=1e-12)
        np.testing.assert_allclose(found.standard_error[row], np.std(own, axis=0, ddof=1) / len(own) ** 0.5)
        assert found.counts[row] == len(own)
    np.testing.assert_allclose(found.overall, C[INCLUDED].mean(0))


def test_frequency_counts_the_strongest_of_each_sample():
    found = frequency(C, CLASSES, INCLUDED, share=0.3)
    expected = np.zeros((3, 7))
    for row, name in enumerate([0, 1, 3]):
        own = C[INCLUDED & (name == CLASSES)]
        for one in own:
            expected[row, np.argsort(-np.abs(one))[:2]] += 1 / len(own)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", [None, 1])
def test_every_mode_orders_every_channel_once(mode, row):
    wanted = preference(mode, C, CLASSES, INCLUDED, seed=3)
    assert sorted(order(wanted, row).tolist()) == list(range(7))


def test_modes_rank_as_they_say():
    found = importance(C, CLASSES, INCLUDED)
    difference = order(preference("difference", C, CLASSES, INCLUDED), 0)
    np.testing.assert_array_equal(difference, found.ranking(0))
    assert (np.diff(found.matrix[0, order(preference("top", C, CLASSES, INCLUDED), 0)]) <= 0).all()
    np.testing.assert_array_equal(order(preference("reverse", C, CLASSES, INCLUDED), 0), difference[::-1])


def test_random_depends_on_the_seed_only():
    draws = [order(preference("random", C, CLASSES, INCLUDED, seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_one_class_is_ranked_by_its_mean_since_it_has_no_difference():
    alone = np.zeros(90, dtype=int)
    wanted = preference("difference", C, alone, np.ones(90, dtype=bool))
    np.testing.assert_allclose(wanted[0], np.abs(C.mean(0)))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="choose one of"):
        preference("best", C, CLASSES, INCLUDED)
    with pytest.raises(ValueError, match="no sample is included"):
        preference("top", C, CLASSES, np.zeros(90, dtype=bool))
