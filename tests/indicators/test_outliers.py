import numpy as np
import pytest

from lightning_ifa.indicators.outliers import outliers
from lightning_ifa.statistics.duplicates import DuplicateInput, find_duplicates
from lightning_ifa.statistics.neighbour_outliers import (
    KINDS,
    OutlierInput,
    OutlierReference,
    outlier_kinds,
    small_classes,
)


def outlier_scores(judged, reference=None):
    return OutlierReference(judged if reference is None else reference).score(judged)


def samples(n=500, seed=0, k=5, channels=24, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    centres = 6 * np.eye(channels)[:k]
    features = np.abs(centres[labels] + spread * rng.normal(size=(n, channels))) + 0.5
    margins = 8 + 2 * rng.normal(size=n)
    return OutlierInput(features, features.copy(), rng.normal(size=(n, 6)), margins, labels)


def test_clean_data_has_few_outliers():
    shares = []
    for seed in range(10):
        scores = outlier_scores(samples(seed=2 * seed), samples(seed=2 * seed + 1))
        shares.append(scores.suspicious.mean())
        assert not outliers(scores).alarm
    assert np.mean(shares) <= 0.01


def planted(wrong=0.03, reference_wrong=0.03, seed=0):
    """3 % mislabelled, 2 % foreign, 2 % with odd properties; as many wrong labels in the reference."""
    rng = np.random.default_rng(seed)
    judged, reference = samples(1000, seed), samples(1000, seed + 1)
    kinds = rng.choice(["mislabelled", "foreign", "corrupted", ""], 1000, p=[wrong, 0.02, 0.02, 0.96 - wrong])
    judged.labels[kinds == "mislabelled"] = (judged.labels[kinds == "mislabelled"] + 2) % 5
    alien = np.abs(rng.normal(size=((kinds == "foreign").sum(), 24))) + 6 * (np.arange(24) == 20)
    judged.activations[kinds == "foreign"], judged.contributions[kinds == "foreign"] = alien, alien
    judged.properties[kinds == "corrupted"] += 15
    flip = rng.random(1000) < reference_wrong
    reference.labels[flip] = (reference.labels[flip] + 2) % 5
    return judged, reference, kinds


@pytest.mark.parametrize("kind", ["mislabelled", "foreign", "corrupted"])
def test_each_kind_is_found_and_named(kind):
    judged, reference, kinds = planted()
    told = outlier_kinds(outlier_scores(judged, reference))
    assert (told[kinds == kind] == kind).mean() >= 0.9
    assert (told[kinds == ""] != "").mean() <= 0.01


def test_a_planted_share_alarms():
    judged, reference, _ = planted()
    finding = outliers(outlier_scores(judged, reference))
    assert finding.alarm
    assert set(finding.details) >= {f"{kind}_share" for kind in KINDS}


def test_the_networks_doubt_finds_a_wrong_label_that_no_distance_shows():
    judged, reference = samples(), samples(seed=1)
    judged.margins[:10] = -8
    told = outlier_kinds(outlier_scores(judged, reference))
    assert (told[:10] == "mislabelled").sum() >= 9  # one of 500 may lie far from every class as well
    assert (told[10:] != "").mean() <= 0.01


def test_an_ordinary_mistake_of_the_network_is_no_outlier():
    judged, reference = samples(), samples(seed=1)
    judged.margins[:10] = -0.1
    assert (outlier_kinds(outlier_scores(judged, reference))[:10] != "mislabelled").all()


def test_doubt_raises_no_score_above_what_a_damaged_sample_has_already():
    judged, reference = samples(), samples(seed=1)
    judged.properties[:10] += 15
    before = outlier_scores(judged, reference).score[:10]
    judged.margins[:10] = -2
    np.testing.assert_array_equal(outlier_scores(judged, reference).score[:10], before)


def test_without_margins_the_distance_is_left():
    judged, reference = (one._replace(margins=np.full(500, np.nan)) for one in (samples(), samples(seed=1)))
    scores = outlier_scores(judged, reference)
    assert np.isfinite(scores.score).all()
    assert scores.suspicious.mean() <= 0.01


def test_a_split_that_lies_further_out_as_a_whole_has_no_more_outliers():
    judged, reference = samples(spread=1.6), samples(seed=1)
    assert not outliers(outlier_scores(judged, reference)).alarm


def test_unlabelled_samples_have_no_score():
    judged, reference = samples(), samples(seed=1)
    judged.labels[:10] = -1
    scores = outlier_scores(judged, reference)
    assert np.isnan(scores.score[:10]).all()
    assert np.isfinite(scores.score[10:]).all()


def test_small_classes_are_pooled_and_still_show_what_is_foreign():
    judged, reference = samples(300, k=100, channels=120), samples(500, seed=1, k=100, channels=120)
    assert len(small_classes(judged.labels, reference.labels)) > 90
    alien = np.abs(np.random.default_rng(0).normal(size=(6, 120))) + 12 * (np.arange(120) == 110)
    judged.activations[:6], judged.contributions[:6] = alien, alien
    scores = outlier_scores(judged, reference)
    assert np.isfinite(scores.score).all()
    assert (outlier_kinds(scores)[:6] == "foreign").all()
    assert scores.suspicious[6:].mean() <= 0.01


def test_large_classes_are_judged_as_ever_beside_small_ones():
    judged, reference = samples(400), samples(400, seed=1)
    alone = outlier_scores(judged, reference)
    few = samples(10, seed=2, k=5)
    few.labels[:] += 5
    both = [OutlierInput(*(np.concatenate(pair) for pair in zip(one, few, strict=True))) for one in (judged, reference)]
    np.testing.assert_allclose(outlier_scores(*both).score[:400], alone.score, atol=0.7)


def test_without_reference_samples_nothing_can_be_told():
    assert outliers(outlier_scores(samples(20), samples(1, seed=1))).undecided


def test_constant_features_and_no_properties_do_no_harm():
    judged = samples(100)
    constant = OutlierInput(np.ones((100, 4)), np.zeros((100, 4)), np.empty((100, 0)), np.ones(100), judged.labels)
    scores = outlier_scores(constant, constant)
    assert np.isfinite(scores.score).all()
    assert not outliers(scores).alarm


def copies(n, seed):
    rng = np.random.default_rng(seed)
    return DuplicateInput(rng.integers(0, 2**31, n), rng.random((n, 64)), rng.normal(size=(n, 7, 7)))


def test_copies_across_splits_are_found_with_their_duplicate():
    val, train = copies(400, 0), copies(600, 1)
    val.fingerprints[:5] = train.fingerprints[100:105]
    rng = np.random.default_rng(2)
    for own, other in ((val.activations, train.activations), (val.cams, train.cams)):
        own[5:15] = other[200:210] * (1 + 0.005 * rng.normal(size=other[200:210].shape))
    duplicates = find_duplicates(val, train)
    assert (duplicates.kind[:5] == "duplicate").all()
    assert (duplicates.kind[5:15] == "near-duplicate").all()
    assert (duplicates.kind[15:] == "").all()
    np.testing.assert_array_equal(duplicates.match[:15], [*range(100, 105), *range(200, 210)])


def test_images_that_are_alike_by_nature_are_no_copies():
    val, train = copies(400, 0), copies(600, 1)
    rng = np.random.default_rng(2)
    sky, map_ = rng.random(64), rng.normal(size=(7, 7))
    for side, count in ((val, 60), (train, 90)):
        side.activations[:count] = sky * (1 + 0.005 * rng.normal(size=(count, 64)))
        side.cams[:count] = map_ * (1 + 0.005 * rng.normal(size=(count, 7, 7)))
    assert (find_duplicates(val, train).kind == "").all()


def test_a_copy_is_found_of_a_training_sample_that_is_in_there_twice():
    val, train = copies(400, 0), copies(600, 1)
    for own, other in ((val.activations, train.activations), (val.cams, train.cams)):
        own[0] = other[1] = other[0] * 1.0001
    assert find_duplicates(val, train).kind[0] == "near-duplicate"


def test_leaked_samples_count():
    judged, reference = samples(), samples(seed=1)
    val, train = copies(500, 0), copies(500, 1)
    scores = outlier_scores(judged, reference)
    val.fingerprints[:50] = train.fingerprints[:50]
    assert outliers(scores, find_duplicates(val, train)).details["leaked_share"] == 0.1
    assert outliers(scores, find_duplicates(val, train)).alarm


def test_a_group_on_both_sides_of_the_split_alarms():
    scores = outlier_scores(samples(), samples(seed=1))
    finding = outliers(scores, shared=np.arange(500) < 100)
    assert finding.alarm
    assert finding.details["shared_group_rows"] == 100
    assert not outliers(scores, shared=np.zeros(500, dtype=bool)).alarm
