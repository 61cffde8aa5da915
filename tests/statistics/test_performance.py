"""One measure a task, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

from lightning_ifa.statistics.performance import Performance

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 30, 3))


@pytest.mark.parametrize("task", ["multiclass", "binary", "segmentation"])
def test_accuracy_counts_labelled_samples_only(task):
    predictions, targets = LOGITS.argmax(2), RNG.integers(-1, 3, 30)
    measure = Performance(task, targets, LOGITS[0], predictions[0])
    known = targets >= 0
    assert measure.measure == "accuracy"
    expected = [accuracy_score(targets[known], one[known]) for one in predictions]
    np.testing.assert_allclose(measure(LOGITS, predictions), expected)


def test_without_labels_the_full_network_is_the_reference():
    predictions = LOGITS.argmax(2)
    measure = Performance("multiclass", np.full(30, -1), LOGITS[0], predictions[0])
    assert measure.measure == "predictions kept"
    assert measure(LOGITS, predictions)[0] == 1


def test_regression_is_r_squared_of_known_targets():
    values, targets = LOGITS[:, :, 0], RNG.normal(size=30)
    targets[:5] = np.nan
    found = Performance("regression", targets, LOGITS[0, :, :1], values[0])(LOGITS[:, :, :1], values)
    np.testing.assert_allclose(found, [r2_score(targets[5:], one[5:]) for one in values])


def test_a_custom_score_is_compared_with_its_own_full_value():
    values = LOGITS[:, :, 0]
    measure = Performance("custom", np.full(30, np.nan), LOGITS[0, :, :1], values[0])
    assert measure.measure == "R2 of the full network"
    assert measure(LOGITS[:, :, :1], values)[0] == 1


def test_multilabel_counts_decisions_kept():
    measure = Performance("multilabel", np.zeros(30, dtype=int), LOGITS[0], LOGITS[0].argmax(1))
    found = measure(LOGITS, LOGITS.argmax(2))
    np.testing.assert_allclose(found, [((one > 0) == (LOGITS[0] > 0)).mean() for one in LOGITS])


def test_a_constant_target_has_no_r_squared():
    measure = Performance("regression", np.ones(30), LOGITS[0, :, :1], LOGITS[0, :, 0])
    assert np.isnan(measure(LOGITS[:, :, :1], LOGITS[:, :, 0])).all()
