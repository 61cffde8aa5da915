"""Planted copies, dead channels and mixes are counted exactly; sound layers of any width score zero."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.linalg import lstsq

from lightning_ifa.indicators.redundancy import redundancy
from lightning_ifa.statistics.channel_redundancy import channel_groups, component_variances, needed_channels

RNG = np.random.default_rng


def layer(n=1000, channels=32, classes=5, seed=0):
    """Channels with a class part, a common part and a part of their own, as a trained layer has."""
    rng = RNG(seed)
    labels = rng.integers(0, classes, n)
    means = rng.normal(size=(classes, channels))
    common = rng.normal(size=(n, 4)) @ rng.normal(size=(4, channels))
    return (means[labels] + 0.4 * common + 0.5 * rng.normal(size=(n, channels))).astype(np.float32), labels


@pytest.mark.parametrize("channels", [8, 32, 128, 512])
def test_sound_layers_score_zero_at_any_width(channels):
    activations, labels = layer(1024, channels)
    finding = redundancy(activations, labels)
    assert finding.score == 0
    assert finding.health == 1


@pytest.mark.parametrize("copies", [1, 3])
def test_counts_near_copies_exactly(copies):
    activations, labels = layer()
    noise = 0.02 * RNG(1).normal(size=activations.shape) * activations.std(0)
    wide = np.concatenate([activations] + copies * [-2 * (activations + noise)], axis=1)
    finding = redundancy(wide, labels)
    assert finding.score == pytest.approx(copies / (copies + 1))
    assert finding.details["duplicate_share"] == finding.score
    assert finding.alarm == (copies > 1)  # sound networks of few classes have as many copies as other channels


def test_counts_dead_channels_exactly():
    activations, labels = layer()
    finding = redundancy(np.concatenate([activations] + 3 * [np.full_like(activations, 7.0)], axis=1), labels)
    assert finding.score == finding.details["dead_fraction"] == 0.75
    assert finding.alarm


def test_counts_linear_mixes_exactly():
    activations, labels = layer()
    mixes = activations @ RNG(2).uniform(0.5, 1, size=(32, 16))
    finding = redundancy(np.concatenate([activations, mixes], axis=1), labels)
    assert finding.details["dependent_share"] + finding.details["duplicate_share"] == pytest.approx(16 / 48)
    assert finding.score == pytest.approx(16 / 48)


def test_the_kept_channels_predict_all_others():
    activations, labels = layer()
    wide = np.concatenate([activations, 3 * activations[:, :8], activations[:, :9] @ RNG(3).random((9, 4))], axis=1)
    kept = needed_channels(wide, labels).kept
    assert len(kept) == 32
    design = np.column_stack([wide[:, kept], np.ones(len(wide))])
    residue = wide - design @ lstsq(design, wide, rcond=None)[0]
    assert (residue.var(0) <= 1e-3 * wide.var(0)).all()


def test_channels_that_merely_respond_to_the_same_class_are_no_copies():
    rng = RNG(4)
    labels = rng.integers(0, 2, 800)
    activations = 40.0 * labels[:, None] * rng.choice([-1, 1], 20) + rng.normal(size=(800, 20))
    assert redundancy(activations, labels).score == 0
    assert redundancy(activations, labels).details["mergeable_share"] > 0.9
    assert redundancy(activations).score > 0.9


def test_does_not_look_for_mixes_with_too_few_samples_and_says_so():
    activations, labels = layer(60, 64)
    finding = redundancy(activations, labels)
    assert finding.score == 0
    assert "too few" in finding.note


@pytest.mark.parametrize("shape", [(9, 20), (50, 1)])
def test_cannot_tell_from_next_to_nothing(shape):
    assert redundancy(RNG(0).normal(size=shape)).undecided


def test_a_layer_without_any_live_channel_is_all_redundant():
    finding = redundancy(np.zeros((20, 5)))
    assert finding.score == 1
    assert all(np.isfinite(list(finding.details.values())))


def test_groups_have_no_pair_below_the_limit():
    activations, _ = layer(300, 40)
    groups, dead = channel_groups(np.concatenate([activations, np.zeros((300, 2))], axis=1), correlation=0.5)
    assert dead.sum() == 2
    assert (groups[dead] == -1).all()
    correlation = np.abs(np.corrcoef(activations, rowvar=False))
    for group in np.unique(groups[:40]):
        members = np.flatnonzero(groups[:40] == group)
        assert correlation[np.ix_(members, members)].min() >= 0.5 - 1e-9


@pytest.mark.parametrize("shape", [(200, 12), (12, 200)])
def test_component_variances_equal_those_of_a_singular_value_decomposition(shape):
    activations = RNG(5).normal(size=shape)
    singular = np.linalg.svd(activations - activations.mean(0), compute_uv=False)
    np.testing.assert_allclose(component_variances(activations), singular**2 / shape[0], atol=1e-10)
