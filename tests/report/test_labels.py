"""Labels say what a sample is and what it was taken for, in a length that fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reports import MARKUP, NAMES, small_report, small_table

from lightning_ifa.report.labels import (
    class_label,
    describe_candidate,
    describe_data,
    is_misclassified,
    probe_caption,
    probe_lines,
    sample_label,
    strongest_class,
)
from lightning_ifa.report.style import BAD


def regression():
    values = {"targets": np.array([1.5, 2.0], np.float32), "predictions": np.array([1.25, 4.0], np.float32)}
    table = replace(small_table("validation", [0, 0], [0, 0]), task="regression", **values)
    report = small_report()
    return replace(report, tables={"validation": table}, probes=replace(report.probes, table=table, predicted=table))


@pytest.mark.parametrize(
    ("split", "row", "label"),
    [
        ("validation", 0, MARKUP),
        ("validation", 2, f"{MARKUP} → dog"),
        ("validation", 5, f"dog → {MARKUP}"),
        ("train", 3, "unlabelled → dog"),
    ],
)
def test_a_sample_is_named_by_its_class_and_its_mistake(report, split, row, label):
    assert sample_label(report.tables[split], row, NAMES) == label


def test_a_class_is_named_shortly_and_a_class_without_name_by_its_number(report):
    long = replace(report, class_names=("a class with a long name", "dog"))
    assert [class_label(report, label) for label in (0, 1, 7)] == [MARKUP, "dog", "7"]
    assert class_label(long, 0) == "a class wit…"


def test_a_regression_has_bins_and_values():
    report = regression()
    assert class_label(report, 1) == "bin 2"
    assert sample_label(report.tables["validation"], 1, ("score",)) == "2, predicted 4"
    assert probe_caption(report, 0) == "1.5, predicted 1.25"
    assert [line for line, _ in probe_lines(report, 0)] == ["true 1.5", "predicted 1.25"]


def test_a_channel_goes_with_the_class_of_its_largest_difference_of_either_sign(report):
    assert [strongest_class(report, channel) for channel in range(3)] == [(MARKUP, 1.5), ("dog", 0.75), (MARKUP, -2.0)]


def test_without_a_correct_sample_no_channel_has_a_class(report):
    nothing = np.empty((0, 3))
    importance = replace(report.importance, classes=np.empty(0, int), matrix=nothing, standard_error=nothing)
    assert strongest_class(replace(report, importance=importance), 1) == ("", 0.0)


def test_a_probes_caption_has_its_evidence_and_what_it_was_taken_for(report):
    assert [is_misclassified(report, row) for row in (0, 1)] == [False, True]
    assert [probe_caption(report, row) for row in (0, 1)] == [f"{MARKUP}: 1.0", f"{MARKUP}: 3.0 → dog"]


def test_a_mistake_is_a_line_of_its_own_in_the_colour_of_what_is_bad(report):
    assert [line for line, _ in probe_lines(report, 0)] == [MARKUP, "evidence 1.0"]
    lines = probe_lines(report, 1)
    assert [line for line, _ in lines] == [MARKUP, "evidence 3.0", "→ dog", "evidence 6.0"]
    assert [line for line, colour in lines if colour == BAD] == ["→ dog"]


def test_the_data_is_described_in_one_line(report):
    digest = report.tables["validation"].digest
    assert describe_data(report) == (
        f"layer features, 3 channels · hirescam · 6 validation and 4 train samples · data {digest}"
    )


def test_a_candidate_is_described_with_its_worst_class_where_it_has_one(report):
    _, site, brightness, _ = (describe_candidate(report, row) for _, row in report.confounders.iterrows())
    assert "30.0%" in site
    assert "50%" in site
    assert "dog" in site
    assert "10.0%" in brightness
    assert not any(name in brightness for name in NAMES)
