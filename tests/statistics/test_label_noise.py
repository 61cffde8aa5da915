import numpy as np
import pytest

from lightning_ifa.statistics.arrays import scale_rows_to_unit
from lightning_ifa.statistics.label_noise import class_nearness, score_labels


def split(noise, sharpness, n=700, k=4, seed=0):
    """Labels drawn from the network's own probabilities, then a share of them changed; nearness says less."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, k - 1)
    wrong = rng.random(n) < noise
    given = np.where(wrong, (labels + rng.integers(1, k, n)) % k, labels)
    return 2 * logits, logits + sharpness * rng.normal(size=logits.shape), given, wrong


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0, 6.0])
def test_overlap_alone_is_no_wrong_label(sharpness):
    found = score_labels(*split(0.0, sharpness)[:3])
    assert not found.announced
    assert found.probable.mean() <= 0.005


@pytest.mark.parametrize(("noise", "sharpness"), [(0.05, 6.0), (0.2, 6.0), (0.2, 4.0)])
def test_wrong_labels_are_announced_with_their_share_and_named_rightly(noise, sharpness):
    *given, wrong = split(noise, sharpness)
    found = score_labels(*given)
    assert found.announced
    assert found.share == pytest.approx(wrong.mean(), rel=0.35)
    assert wrong[found.probable].mean() >= 0.9
    assert wrong[found.probable].sum() >= 0.5 * wrong.sum()


def test_the_probability_is_calibrated():
    *given, wrong = split(0.2, 4.0, n=4000)
    score = score_labels(*given).score
    assert score.mean() == pytest.approx(wrong.mean(), abs=0.03)


def test_unlabelled_rows_have_no_score():
    logits, nearness, labels, _ = split(0.0, 2.0)
    labels[:5] = -1
    found = score_labels(logits, nearness, labels)
    assert np.isnan(found.score[:5]).all()
    assert (found.suggested[:5] == -1).all()
    assert np.isfinite(found.score[5:]).all()


def test_nearness_is_largest_to_the_own_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    features = 5 * np.eye(6)[labels] + rng.random((60, 6))
    unit = scale_rows_to_unit(features)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    assert (class_nearness(similarity, labels, 3).argmax(1) == labels).all()
