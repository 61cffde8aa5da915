"""Each number against a loop over samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ifa.statistics.faithfulness import area, average_drop, average_increase, confidence, own_scale, shuffle

RNG = np.random.default_rng(0)
BEFORE, AFTER = RNG.uniform(0.01, 1, 50), RNG.uniform(0, 1, 50)


def test_average_drop_is_the_mean_share_lost():
    lost = [(b - a) / b if a < b else 0.0 for b, a in zip(BEFORE, AFTER, strict=True)]
    assert average_drop(BEFORE, AFTER) == pytest.approx(sum(lost) / len(lost))
    assert average_drop(BEFORE, BEFORE) == 0
    assert average_drop(BEFORE, np.zeros(50)) == 1


def test_average_increase_counts_rises_only():
    assert average_increase(BEFORE, AFTER) == sum(a > b for b, a in zip(BEFORE, AFTER, strict=True)) / 50
    assert average_increase(BEFORE, BEFORE) == 0


def test_confidence_reads_the_explained_class_in_the_task_s_way():
    logits, explained = RNG.normal(size=(3, 4, 5)), np.array([0, 4, 2, 2])
    for r in range(3):
        for i in range(4):
            row, j = [math.exp(v) for v in logits[r, i]], explained[i]
            value = logits[r, i, j]
            assert confidence(logits, explained, "multiclass")[r, i] == pytest.approx(row[j] / sum(row))
            assert confidence(logits, explained, "multilabel")[r, i] == pytest.approx(1 / (1 + math.exp(-value)))
            assert confidence(logits, explained, "regression")[r, i] == value


def test_area_is_the_mean_height_on_an_uneven_grid():
    shares = np.array([0.0, 0.1, 0.4, 1.0])
    assert area(shares, np.full(4, 0.3)) == pytest.approx(0.3)
    assert area(shares, shares) == pytest.approx(0.5)
    assert area(shares, np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.05)


def test_own_scale_shows_positive_evidence_only():
    maps = RNG.normal(size=(6, 3, 4)).astype(np.float32)
    maps[2] = -1
    scaled = own_scale(maps)
    for one, found in zip(maps, scaled, strict=True):
        expected = [[max(v, 0) / one.max() if one.max() > 0 else 0 for v in row] for row in one]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(st.integers(0, 5), st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True))
def test_a_shuffle_keeps_each_map_s_values_and_depends_on_its_sample_only(seed, names):
    maps = np.arange(len(names) * 12.0).reshape(len(names), 3, 4)
    moved = shuffle(maps, np.array(names), seed)
    assert moved.shape == maps.shape
    for one, found, name in zip(maps, moved, names, strict=True):
        assert sorted(found.ravel()) == sorted(one.ravel())
        assert np.array_equal(shuffle(one[None], np.array([name]), seed)[0], found)


def test_shuffles_of_two_samples_and_two_seeds_differ():
    maps = np.tile(np.arange(100.0), (2, 1))
    first = shuffle(maps, np.array([0, 1]), 0)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], shuffle(maps, np.array([0, 1]), 1)[0])
