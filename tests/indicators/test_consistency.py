"""Agreement of map sums and logits against SciPy and scikit-learn, after each display transform."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from lightning_ifa.indicators.consistency import consistency, trustworthy
from lightning_ifa.statistics.completeness import TRANSFORMS, agreement, completeness, shown_levels
from lightning_ifa.statistics.intensity_scale import common_scale

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(80, 3, 4, 4)) + RNG.normal(size=(80, 3, 1, 1))
LEVELS = MAPS.sum((2, 3))
LOGITS = LEVELS + np.array([1.0, -2.0, 0.5]) + 0.3 * RNG.normal(size=(80, 3))
PREDICTIONS = LOGITS.argmax(1)
TARGETS = np.where(RNG.random(80) < 0.9, PREDICTIONS, -1)


def test_table_equals_the_references():
    table = agreement(LOGITS, LEVELS, PREDICTIONS, TARGETS)
    for k in range(3):
        assert table["pearson"][k] == pytest.approx(pearsonr(LOGITS[:, k], LEVELS[:, k])[0], abs=1e-9)
        assert table["spearman"][k] == pytest.approx(spearmanr(LOGITS[:, k], LEVELS[:, k])[0], abs=1e-9)
        assert table["auroc"][k] == pytest.approx(roc_auc_score(k == TARGETS, LEVELS[:, k]))
        left = LOGITS[:, k] - LEVELS[:, k]
        assert table["completeness"][k] == pytest.approx(1 - left.var() / LOGITS[:, k].var())
    own = np.arange(80), PREDICTIONS
    assert table["pearson"]["predicted"] == pytest.approx(pearsonr(LOGITS[own], LEVELS[own])[0])
    assert table["pearson"]["pooled"] == pytest.approx(pearsonr(LOGITS.ravel(), LEVELS.ravel())[0])
    assert table["pearson"]["mean"] == pytest.approx(table["pearson"][[0, 1, 2]].mean())


def test_regression_has_no_prediction_and_no_membership():
    table = agreement(LOGITS[:, :1], LEVELS[:, :1])
    assert "predicted" not in table.index
    assert table["auroc"].isna().all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_equal_a_loop_over_maps(transform):
    scale = common_scale(MAPS[:, 0])
    found = shown_levels(MAPS, scale, transform)
    for i in range(5):
        for k in range(3):
            one = MAPS[i, k]
            unit = (one - scale.low) / (scale.high - scale.low)
            a, b = np.arctanh([-0.9, 0.9])
            expected = {
                "raw": one,
                "common scale": unit,
                "common clipped": unit.clip(0, 1),
                "common tanh": (np.tanh(a + unit * (b - a)) + 1) / 2,
                "relu": one.clip(0),
                "relu / own maximum": one.clip(0) / one.max(),
                "per image": (one - one.min()) / (one.max() - one.min()),
            }[transform]
            assert found[i, k] == pytest.approx(expected.sum(), rel=1e-5)


def test_the_common_scale_keeps_the_correlation_and_stretching_each_image_does_not():
    scale = common_scale(MAPS[:, 0])
    tables = {name: agreement(LOGITS, shown_levels(MAPS, scale, name)) for name in TRANSFORMS}
    raw, common, stretched = (tables[name]["pearson"]["mean"] for name in ("raw", "common scale", "per image"))
    assert common == pytest.approx(raw, abs=1e-9)
    assert raw > 0.99
    assert stretched < 0.5


def test_completeness_sees_a_wrong_scale_that_pearson_misses():
    classes = np.zeros(80, dtype=int)
    finding = consistency(LOGITS[:, 0], 0.01 * LEVELS[:, 0], classes)
    assert finding.details["pearson"] > 0.99
    assert finding.alarm
    assert completeness(LOGITS[:, 0], LOGITS[:, 0] - 7, classes) == pytest.approx(1)


def test_constant_maps_and_logits_are_no_crash():
    table = agreement(np.ones((5, 2)), np.ones((5, 2)), np.zeros(5, dtype=int), np.zeros(5, dtype=int))
    assert table[["pearson", "spearman", "completeness"]].isna().all(axis=None)
    assert table["auroc"]["pooled"] == 0.5
    assert np.isfinite(shown_levels(np.zeros((2, 2, 3)), common_scale(np.zeros((2, 3))), "per image")).all()


@pytest.mark.parametrize(
    ("complete", "right"), [(1.0, True), (0.96, True), (0.9, False), (-70.0, False), (np.nan, False)]
)
def test_trust(complete, right):
    assert trustworthy(complete) is right


@pytest.mark.parametrize(("kind", "eps"), [("float32", 2.0**-23), ("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
def test_scores_that_differ_by_rounding_alone_say_nothing(kind, eps):
    classes = np.arange(40) % 2
    steps = RNG.integers(-1, 2, 40)
    constant = np.where(classes == 0, 1.5, -1.75) + eps * steps
    assert consistency(constant.astype(np.float32), np.zeros(40), classes).undecided
    moving = constant + eps * 64 * RNG.integers(-3, 4, 40)
    assert consistency(moving.astype(np.float32), np.zeros(40), classes).alarm


def test_scores_of_nothing_say_nothing():
    assert consistency(np.zeros(6), np.zeros(6), np.zeros(6, dtype=int)).undecided
