import numpy as np
import pytest

from lightning_ifa.statistics.swap_reliance import swap_reliance


def collage(share, n=256, k=8, seed=0, damage=0.0):
    """A network whose evidence comes to `share` from the swapped part, and which damage confuses."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    sources = rng.permutation(n)
    part = share * 4 * np.eye(k)[labels] + 0.5 * rng.normal(size=(n, k))
    rest = (1 - share) * 4 * np.eye(k)[labels] + rng.normal(size=(n, k))
    harm = damage * (rng.normal(size=(n, k)) - 2 * np.eye(k)[labels] + 3 * (np.arange(k) == 0))
    logits = part + rest
    return swap_reliance(logits, part[sources] + rest + harm, logits[sources], labels, labels[sources])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_share_that_travels_is_the_share_that_was_planted(share):
    found = collage(share)
    assert found.share == pytest.approx(share, abs=0.05)
    assert found.z > 3


def test_a_whole_image_carries_everything():
    rng = np.random.default_rng(0)
    labels, sources = rng.integers(0, 4, 64), rng.permutation(64)
    logits = 3 * np.eye(4)[labels] + rng.normal(size=(64, 4))
    found = swap_reliance(logits, logits[sources], logits[sources], labels, labels[sources])
    assert found.share == pytest.approx(1.0)
    np.testing.assert_allclose(found.class_shares, 1.0)


@pytest.mark.parametrize("damage", [0.0, 2.0])
def test_damage_is_no_evidence_and_the_null_is_normal(damage):
    z = np.array([collage(0.0, seed=s, damage=damage).z for s in range(300)])
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.15
    assert (z > 3).mean() <= 0.01


def test_more_classes_than_samples_in_each():
    assert np.isfinite(collage(0.3, n=64, k=40).z)
