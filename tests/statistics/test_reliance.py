import numpy as np
import pytest
from label_samples import sample

from lightning_ifa.statistics.reliance import Further, channel_reliance, regression_reliance, reliance


def by_permutation(logits, labels, column, count, seed=0):
    """Independent and slow: the definition, written out class by class, and its null by shuffling within classes."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    L = logits - logits.mean(1, keepdims=True)
    class_logits = np.array([L[labels == c].mean(0) for c in classes])
    total = sum(class_logits[i, c] - class_logits[:, c].mean() for i, c in enumerate(classes))

    def share(m):
        means = np.array([m[labels == c].mean(0) for c in classes])
        design = np.concatenate([m[labels == c] - means[i] for i, c in enumerate(classes)])
        response = np.concatenate([L[labels == c] - class_logits[i] for i, c in enumerate(classes)])
        slopes = np.linalg.lstsq(design, response, rcond=None)[0]
        return sum((means[i] - means.mean(0)) @ slopes[:, c] for i, c in enumerate(classes)) / total

    null = []
    for _ in range(count):
        shuffled = column.copy()
        for c in classes:
            rows = np.flatnonzero(labels == c)
            shuffled[rows] = column[rng.permutation(rows)]
        null.append(share(shuffled))
    return share(column), np.std(null), np.mean(null)


@pytest.mark.parametrize("association", [0.5, 0.8])
@pytest.mark.parametrize("dummies", [1, 3])
def test_closed_form_null_equals_permutations(association, dummies):
    logits, labels, column = sample(association=association, use=0.5)
    if dummies > 1:
        column = np.eye(4)[(2 * column[:, 0]).astype(int) + np.random.default_rng(1).integers(0, 2, len(column))][:, 1:]
    found = reliance(logits, labels, column)
    share, spread, middle = by_permutation(logits, labels, column, 800)
    assert found.share == pytest.approx(share)
    assert found.share / found.z == pytest.approx(spread, rel=0.1)
    assert abs(middle) < 4 * spread / np.sqrt(800)


@pytest.mark.parametrize(("association", "use"), [(0.0, 2.0), (0.9, 0.0)])
def test_null_holds_without_association_or_without_use(association, use):
    found = [reliance(*sample(n=300, association=association, use=use, seed=s)) for s in range(200)]
    z = np.array([f.z for f in found])
    assert np.mean([f.share > 0.02 and f.z > 3 for f in found]) <= 0.01
    if not use:
        assert abs(z.mean()) < 0.25
        assert 0.85 < z.std() < 1.15


def test_association_times_use_is_found_and_grows():
    shares = [reliance(*sample(association=0.8, use=use)).share for use in (0.0, 0.5, 1.0, 2.0)]
    assert shares == sorted(shares)
    assert reliance(*sample(association=0.8, use=1.0)).z > 5


def test_channels_sum_to_the_reliance_behind_pooling_and_a_linear_layer():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    column = ((labels > 1) ^ (rng.random(400) < 0.1)).astype(float)[:, None]
    activations = rng.random((400, 6)) + np.eye(6)[labels] + 0.3 * column * (np.arange(6) == 5)
    weights = 2 * np.eye(4, 6) + 0.5 * rng.normal(size=(4, 6))
    logits = activations @ weights.T
    parts = channel_reliance(activations * weights[labels], activations, labels, column)
    L = logits - logits.mean(1, keepdims=True)
    means = np.array([L[labels == c].mean(0) for c in range(4)])
    total = np.trace(means) - means.mean(0).sum()
    assert parts.sum() / total == pytest.approx(reliance(logits, labels, column).share)


@pytest.mark.parametrize("use", [0.0, 0.4])
def test_regression_share_is_the_share_of_the_slope(use):
    rng = np.random.default_rng(0)
    y = rng.normal(size=4000)
    m = 0.7 * y + rng.normal(size=4000)
    prediction = y + use * m + 0.3 * rng.normal(size=4000)
    bins = np.digitize(y, np.quantile(y, [0.2, 0.4, 0.6, 0.8]))
    share, z = regression_reliance(prediction, y, bins, m[:, None])
    assert share == pytest.approx(0.7 * use / (1 + 0.7 * use), abs=0.03)
    assert (z > 5) == bool(use)


def further(seed, **more):
    return Further(*sample(seed=seed, **more))


def test_further_samples_sharpen_the_answer_and_do_not_change_it():
    alone, helped = [], []
    for seed in range(20):
        logits, labels, m = sample(n=200, association=0.9, use=1.0, seed=seed)
        alone.append(reliance(logits, labels, m))
        helped.append(reliance(logits, labels, m, further(100 + seed, n=800, association=0.9, use=1.0)))
    assert np.mean([r.share for r in helped]) == pytest.approx(np.mean([r.share for r in alone]), rel=0.1)
    assert np.mean([r.z for r in helped]) > 1.5 * np.mean([r.z for r in alone])


@pytest.mark.parametrize(("association", "use"), [(0.9, 0.0), (0.0, 2.0)])
def test_further_samples_keep_the_null(association, use):
    z = []
    for seed in range(200):
        logits, labels, m = sample(n=200, association=association, use=use, seed=seed)
        z.append(reliance(logits, labels, m, further(1000 + seed, n=200, association=association, use=use)).z)
    assert abs(np.mean(z)) < 0.25
    assert np.std(z) < 1.1
    assert np.max(np.abs(z)) < 4


def test_a_split_with_other_logits_and_other_shares_is_no_use():
    logits, labels, m = sample(n=400, association=0.9, use=0.0)
    more = further(1, n=400, association=0.9, use=0.0)
    moved = Further(more.logits + 5 * np.eye(5)[more.labels], more.labels, more.column + 1)
    expected = reliance(logits, labels, m, more).share
    assert reliance(logits, labels, m, moved).share == pytest.approx(expected, abs=1e-9)
