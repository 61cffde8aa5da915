"""Weights that part class and suspect, the list of samples to look at first, and whether more data would help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reports import small_report, small_samples, small_table

from lightning_ifa.errors import DataError
from lightning_ifa.statistics.learning_curve import Split, learning_curve


def test_weights_balance_the_suspect_within_classes_and_leave_the_classes_theirs():
    targets = np.array([0] * 6 + [1] * 4)
    sites = ["A"] * 5 + ["B"] + ["A"] * 2 + ["B"] * 2
    weights = small_report().sample_weights("site", targets=targets, values=sites)
    by_group = weights.groupby([targets, sites]).sum()
    assert by_group.to_dict() == pytest.approx({(0, "A"): 3, (0, "B"): 3, (1, "A"): 2, (1, "B"): 2})


def test_weights_of_the_analysed_samples_trust_doubtful_labels_less():
    samples = small_samples()
    samples.loc[samples["sample_id"] == "train2", "label_score"] = 0.95
    report = small_report()
    train = replace(report.tables["train"], metadata=pd.DataFrame({"site": ["A", "B", "A", "A"]}))
    outliers = replace(report.findings["outliers"], tables={"samples": samples})
    report = replace(
        report, tables={**report.tables, "train": train}, findings={**report.findings, "outliers": outliers}
    )
    weights = report.sample_weights("site")
    assert weights.to_dict() == pytest.approx({0: 1.0, 1: 1.0, 2: 0.05, 3: 0.0})
    with pytest.raises(DataError, match="did you mean 'site'"):
        report.sample_weights("sites")


def test_doubtful_labels_come_before_the_rest_and_name_their_files():
    validation = small_table("validation", [0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0])
    files = pd.DataFrame({"path": [f"scans/{row}.png" for row in range(6)], "site": ["a.b"] + ["x"] * 5})
    report = small_report()
    report = replace(report, tables={**report.tables, "validation": replace(validation, metadata=files)})
    found = report.samples_to_review()
    assert found[["reason", "sample_id", "file"]].iloc[0].tolist() == [
        "label in doubt", "validation4", "scans/4.png",
    ]  # fmt: skip
    assert found["label_score"].iloc[0] == 0.97


def test_a_learning_curve_grows_where_few_samples_limit_it_and_is_flat_where_noise_does():
    rng = np.random.default_rng(0)

    def draw(n, width, noise):
        labels = rng.integers(0, 3, n)
        features = np.eye(3, width)[labels] * 2 + rng.normal(size=(n, width))
        wrong = rng.random(n) < noise
        return Split(features, np.where(wrong, rng.integers(0, 3, n), labels))

    scarce = learning_curve(draw(60, 40, 0.0), draw(400, 40, 0.0))
    assert scarce.helps
    assert scarce.interval[0] <= scarce.accuracy <= scarce.interval[1]
    assert scarce.points["samples"].iloc[-1] == scarce.present == 60
    assert scarce.points["accuracy"].is_monotonic_increasing
    plenty = learning_curve(draw(1500, 3, 0.5), draw(400, 3, 0.5))
    assert abs(plenty.gain) < 0.02
