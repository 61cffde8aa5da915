import numpy as np
import pytest

from lightning_ifa.indicators.overfitting import overfitting
from lightning_ifa.statistics.generalization_gap import (
    SplitSample,
    gaps_by_class,
    gaps_by_feature,
    left_null,
    shift_auc,
    standardised_gap,
)


def side(n=400, gap=0.0, shift=0.0, seed=0, k=5, channels=20, weights=None):
    rng = np.random.default_rng(seed)
    strata = rng.choice(k, n, p=weights)
    margins = strata + rng.normal(size=n) + gap
    activations = np.eye(channels)[strata] * 5 + rng.normal(size=(n, channels))
    activations[:, -1] += shift
    return SplitSample(margins, margins, activations, strata)


def test_null_is_standard_normal():
    z = np.array([standardised_gap(*pair(seed))[1] for seed in range(400)])
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.1


def pair(seed, **more):
    a, b = side(seed=2 * seed, **more), side(seed=2 * seed + 1)
    return a.margins, a.strata, b.margins, b.strata


def test_the_gap_is_in_standard_deviations():
    gaps = [standardised_gap(*pair(seed, gap=0.5))[0] for seed in range(50)]
    assert np.mean(gaps) == pytest.approx(0.5, abs=0.03)


def test_a_class_skew_is_no_gap():
    a, b = side(2000, seed=0, weights=[0.6, 0.1, 0.1, 0.1, 0.1]), side(2000, seed=1, weights=[0.1, 0.1, 0.1, 0.1, 0.6])
    assert abs(standardised_gap(a.margins, a.strata, b.margins, b.strata)[0]) < 0.15
    assert not overfitting(a, b).alarm


@pytest.mark.parametrize(("gap", "alarm"), [(0.0, False), (0.15, False), (0.8, True)])
def test_overfitting_alarms_on_a_large_gap_only(gap, alarm):
    assert overfitting(side(gap=gap), side(seed=1)).alarm is alarm


def test_the_hard_gap_sees_hard_samples_only():
    train, val = (one._replace(margins=one.margins - one.strata) for one in (side(1000), side(1000, seed=1)))
    easy, hard = train.margins > 0.1, val.margins < -0.1
    easier = overfitting(train._replace(margins=train.margins + easy), val).details
    harder = overfitting(train, val._replace(margins=val.margins - 0.3 * hard)).details
    assert easier["margin_gap"] > 0.35 > 0.1 > easier["hard_gap"]
    assert harder["hard_gap"] > harder["margin_gap"] > 0.1


@pytest.mark.parametrize(("n", "limit"), [(2000, 0.35), (200, 0.28 + 1.5 * 0.1), (100, 0.28 + 1.5 * np.sqrt(0.02))])
def test_few_samples_must_show_more(n, limit):
    one_class = side(n)._replace(strata=np.zeros(n, dtype=np.int64), margins=np.arange(n) % 2 + 0.0)
    finding = overfitting(one_class, one_class._replace(margins=one_class.margins + 1))
    assert finding.details["limit"] == pytest.approx(limit)


def test_a_gap_between_shifted_splits_is_not_called_overfitting():
    finding = overfitting(side(gap=2.0, shift=2.0), side(seed=1))
    assert finding.undecided
    assert finding.details["shift"] > 0.8


def test_shift_auc_is_chance_without_shift_whatever_the_width():
    found = []
    for seed in range(20):
        a, b = side(200, seed=2 * seed, channels=300), side(200, seed=2 * seed + 1, channels=300)
        found.append(shift_auc(a.activations, a.strata, b.activations, b.strata))
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)
    assert max(found) < 0.65


def test_no_shared_class_cannot_be_told():
    a, b = side(seed=0), side(seed=1)
    assert overfitting(a, b._replace(strata=b.strata + 10)).undecided


def test_the_class_with_the_gap_is_named():
    a, b = side(2000), side(2000, seed=1)
    a.margins[a.strata == 3] += 1.0
    table = gaps_by_class(a.margins, a.strata, b.margins, b.strata)
    assert table["class"].iloc[0] == 3
    assert table["gap"].iloc[0] == pytest.approx(1.0, abs=0.2)
    assert table["z"].iloc[1:].abs().max() < 4


def test_the_feature_with_the_gap_is_named_and_shares_sum_to_one():
    a, b = side(2000), side(2000, seed=1)
    a.activations[:, 7] += 0.6
    table = gaps_by_feature(a.activations, a.strata, b.activations, b.strata)
    assert table["feature"].iloc[0] == 7
    assert table["share"].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("z", "epoch"), [([0, 4, 0, 4, 5], 3), ([0, 1, 2], None), ([np.nan, 4, 4], 1), ([], None)])
def test_left_null(z, epoch):
    assert left_null(z) == epoch


def test_constant_features_do_no_harm():
    a, b = side(), side(seed=1)
    a.activations[:], b.activations[:] = 1.0, 1.0
    finding = overfitting(a, b)
    assert np.isfinite(finding.score)
    assert finding.details["shift"] == 0.5


def test_every_features_gap_is_that_of_the_feature_alone():
    rng = np.random.default_rng(3)
    train, val = rng.normal(size=(90, 7)) + 0.4, rng.normal(size=(70, 7))
    train[:, 6] = val[:, 6] = 1.0
    a, b = rng.integers(0, 4, 90), rng.integers(1, 6, 70)
    table = gaps_by_feature(train, a, val, b).set_index("feature")
    for channel in range(7):
        expected = standardised_gap(train[:, channel], a, val[:, channel], b)
        assert table.loc[channel, ["gap", "z"]].tolist() == pytest.approx(expected)
