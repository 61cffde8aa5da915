"""The table of slices: who is in them, what is taken for what, and words for what tells them from the others."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lightning_ifa.indicators.slice_table import COLUMNS, list_slices, slice_metrics, slice_rows
from tests.helpers.reports import small_table


@pytest.fixture
def dark():
    """Dark images of dogs, all from one site, of which most are taken for cats; the last rows are unlabelled."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 420)
    inside = (labels == 1) & (np.arange(420) < 60)
    wrong = np.where(inside, rng.random(420) < 0.8, rng.random(420) < 0.1)
    table = small_table("validation", np.where(np.arange(420) < 400, labels, -1), np.where(wrong, 1 - labels, labels))
    activations = rng.normal(size=(420, 5)).astype(np.float32)
    activations[:, 3] += 6 * inside
    properties = pd.DataFrame({"brightness": rng.normal(size=420) - 8 * inside, "contrast": rng.normal(size=420)})
    metadata = pd.DataFrame({"site": np.where(inside, "<b>", "A"), "group": np.where(inside, "p1", "p2")})
    return replace(table, activations=activations, properties=properties, metadata=metadata), inside, wrong


def test_a_slice_is_described(dark):
    table, inside, wrong = dark
    found = list_slices(table, ("cat", "dog"))
    assert list(found.columns) == COLUMNS
    worst = found.iloc[0]
    rows = slice_rows(table, worst["samples"])
    assert inside[rows].mean() > 0.9
    assert np.array_equal(wrong[rows], np.sort(wrong[rows])[::-1])  # misclassified ones first
    assert worst["accuracy"] == pytest.approx((~wrong[rows]).mean())
    assert worst["low"] < worst["accuracy"] < worst["high"] < worst["expected"]
    assert worst["mistakes"].startswith("“dog” taken for “cat” (")
    assert "lower “brightness”" in worst["words"]
    assert "“site” is “<b>” in" in worst["words"]
    assert "group" not in worst["words"]
    assert "contrast" not in worst["words"]
    assert worst["channels"] == [3]
    metrics = slice_metrics(table, found)
    assert metrics == {"found": len(found), "worst": pytest.approx(worst["expected"] - worst["accuracy"])}


def test_without_a_slice_the_numbers_are_0_and_without_labels_there_are_none(dark):
    table, _, _ = dark
    sound = replace(table, predictions=table.targets, logits=np.eye(2, dtype=np.float32)[np.maximum(table.targets, 0)])
    assert slice_metrics(sound, list_slices(sound, ())) == {"found": 0, "worst": 0}
    unknown = replace(table, targets=np.full(420, -1))
    assert slice_metrics(unknown, list_slices(unknown, ())) == {}
    assert slice_metrics(replace(table, task="multilabel"), list_slices(replace(table, task="multilabel"), ())) == {}
