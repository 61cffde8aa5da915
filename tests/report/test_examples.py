"""Which samples and features are shown: the most suspicious, both ends of a candidate, the strongest responses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from changed_reports import with_table

from lightning_ifa.report import examples
from lightning_ifa.report.examples import (
    candidate_groups,
    driving_rows,
    duplicate_row,
    example_rows,
    judged_candidates,
    leading_candidates,
    outlier_rows,
    rank_features,
    rows_of,
    shown_channels,
    strongest_rows,
)


def test_copies_and_large_scores_take_turns(report):
    assert outlier_rows(report) == [("validation", 2), ("validation", 1), ("train", 0), ("validation", 4)]
    assert outlier_rows(report, most=2) == [("validation", 2), ("validation", 1)]


def test_rows_of_a_split_are_counted_from_its_own_start(report):
    assert list(rows_of(report, "train")["sample_id"]) == ["train0", "train1", "train2", "train3"]
    assert list(rows_of(report, "train").index) == [0, 1, 2, 3]


def test_a_copy_leads_to_its_training_sample(report):
    assert duplicate_row(report, "validation", 1) == 2
    assert duplicate_row(report, "validation", 2) is None
    assert duplicate_row(report, "train", 0) is None
    alone = replace(report, tables={"validation": report.tables["validation"]})
    assert duplicate_row(alone, "validation", 1) is None


def test_tested_candidates_come_first_and_those_of_the_content_last(report):
    assert list(judged_candidates(report.confounders)["source"]) == ["site", "brightness", "shape"]


def test_leading_candidates_can_sort_samples(report):
    assert leading_candidates(report) == ["site", "brightness"]
    assert leading_candidates(report, most=1) == ["site"]
    renamed = with_table(
        report, "confounders", report.confounders.assign(source=["shape", "swapped corner", "brightness", "<i>age</i>"])
    )
    assert leading_candidates(renamed) == ["brightness"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("site", {"site = A": [0, 1], "site = B": [3, 4]}),
        ("brightness", {"highest brightness": [0, 4], "lowest brightness": [1, 3]}),
        ("no such column", {}),
    ],
)
def test_both_ends_of_a_candidate(report, source, expected):
    assert {group.name: group.rows.tolist() for group in candidate_groups(report, source, most=2)} == expected


def test_equal_values_show_every_class(report):
    equal = replace(report.tables["validation"], metadata=pd.DataFrame({"dose": [1.0] * 6}))
    found = candidate_groups(replace(report, tables={"validation": equal}), "dose", most=2)
    assert all(set(equal.targets[group.rows]) == {0, 1} for group in found)
    by_class = equal.take(np.array([0, 2, 4, 1, 3, 5]))
    found = candidate_groups(replace(report, tables={"validation": by_class}), "dose", most=2)
    assert [set(by_class.targets[group.rows]) for group in found] == [{0, 1}, {0, 1}]


def test_features_are_ranked_by_their_largest_difference_of_either_sign(report):
    assert rank_features(report).tolist() == [2, 0, 1]


def test_with_one_class_features_are_ranked_by_their_contributions(report):
    first = replace(report.importance, classes=np.array([0]), matrix=np.array([[1.0, -5.0, 2.0]]))
    assert rank_features(replace(report, importance=first)).tolist() == [1, 2, 0]
    none = replace(report.importance, classes=np.empty(0, int), matrix=np.empty((0, 3)))
    assert rank_features(replace(report, importance=none)).tolist() == [0, 1, 2]


def test_a_channel_shows_the_samples_to_which_it_responds_most(report):
    assert strongest_rows(report, 0).tolist() == [0, 1, 2]
    assert strongest_rows(report, 1, most=2).tolist() == [5, 4]


def test_rows_for_pictures_are_those_of_every_section(report, monkeypatch):
    driving = np.unique([driving_rows(report, channel) for channel in shown_channels(report)])
    assert {split: rows.tolist() for split, rows in example_rows(report, driving).items()} == {
        "validation": [0, 1, 2, 3, 4, 5],
        "train": [0, 2],
    }
    monkeypatch.setattr(examples, "MOST_FEATURES", 0)
    without = with_table(report, "confounders", report.confounders[:0])
    assert {split: rows.tolist() for split, rows in example_rows(without, driving[:0]).items()} == {
        "validation": [1, 2, 4],
        "train": [0, 2],
    }
