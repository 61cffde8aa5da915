"""Slices: a planted weak one is found where it lies, overlapping classes and noise have none, and labels stay out."""

import numpy as np
import pytest

from lightning_ifa.statistics.slices import LEAST_EXCESS, LEAST_SAMPLES, LEVEL, find_slices

REACH = 2.0


def overlapping(seed, n=600, channels=20, classes=3):
    """Classes that overlap, as seen by the best linear rule; features hold what does not matter as well."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    features = rng.normal(size=(n, channels))
    features[:, :classes] += REACH * np.eye(classes)[labels]
    return features, rng.normal(size=(n, 6)), REACH * features[:, :classes], labels


def plant(seed, share, properties_too=True):
    """Move some samples aside, and have most of them taken for the next class."""
    features, properties, logits, labels = overlapping(seed)
    rng = np.random.default_rng(seed)
    inside = np.isin(np.arange(len(labels)), rng.permutation(len(labels))[: round(share * len(labels))])
    features[inside, 10] += 4
    properties[inside, 0] -= 4 * properties_too
    logits[inside] = 3.0 * np.eye(3)[(labels[inside] + (rng.random(inside.sum()) < 0.85)) % 3]
    return inside, features, properties, logits, labels


@pytest.mark.parametrize("properties_too", [True, False])
def test_a_planted_weak_slice_is_found(properties_too):
    inside, *rest = plant(1, 0.05, properties_too)
    worst = find_slices(*rest)[0]
    assert (worst.inside & inside).sum() > 0.7 * max(worst.inside.sum(), inside.sum())
    assert worst.p < LEVEL
    assert LEAST_EXCESS < worst.excess < 1 - worst.expected


def test_overlap_imbalance_and_wrong_labels_are_no_slices():
    found = 0
    for seed in range(10):
        features, properties, logits, labels = overlapping(seed)
        rng = np.random.default_rng(seed)
        kept = (labels > 0) | (rng.random(len(labels)) < (1.0 if seed % 2 else 0.1))
        noisy = np.where(rng.random(len(labels)) < 0.2 * (seed % 3 > 0), rng.integers(0, 3, len(labels)), labels)
        found += bool(find_slices(features[kept], properties[kept], logits[kept], noisy[kept]))
    assert found == 0  # at a level of .001


def test_what_cannot_be_told_is_no_slice():
    inside, *rest = plant(1, 0.05)
    few = np.random.default_rng(0).permutation(len(inside))[: LEAST_SAMPLES - 1]
    assert find_slices(*(part[few] for part in rest)) == []
    features, properties, logits, labels = overlapping(0)
    assert find_slices(features, properties, 3.0 * np.eye(3)[labels], labels) == []  # no error
    assert find_slices(np.ones_like(features), np.full_like(properties, np.nan), logits, labels) == []


def test_slices_do_not_overlap_and_come_worst_first():
    features, properties, logits, labels = overlapping(2)
    for number, share in enumerate((0.75, 0.95)):
        rows = np.arange(40 * number, 40 * number + 40)
        properties[rows, number] += 6
        labels[rows] = np.where(rows % 40 < 40 * share, (logits[rows].argmax(1) + 1) % 3, logits[rows].argmax(1))
    found = find_slices(features, properties, logits, labels)
    assert [int(np.median(np.flatnonzero(each.inside))) // 40 for each in found] == [1, 0]
    assert not (found[0].inside & found[1].inside).any()
    assert found[0].p <= found[1].p
