import numpy as np
import pandas as pd
import pytest
from label_samples import sample

from lightning_ifa.errors import MetadataError
from lightning_ifa.indicators.confounding import confounding
from lightning_ifa.statistics.confounder_candidates import (
    ConfounderCandidate,
    TrainingRows,
    correct_for_count,
    find_candidates,
)
from lightning_ifa.statistics.metadata_columns import read_column


def candidates(columns, association=0.9, use=2.0, **more):
    logits, labels, m = sample(n=800, association=association, use=use, **more)
    frame = pd.DataFrame({name: make(m[:, 0], labels) for name, make in columns.items()})
    return find_candidates(logits, labels, {"metadata": frame})


def test_a_used_column_alarms_and_is_named():
    found = candidates({"site": lambda m, y: np.where(m > 0, "a", "b"), "noise": lambda m, y: np.arange(len(m)) % 2})
    assert found[0].source == "site"
    finding = confounding(found)
    assert finding.alarm
    assert "site" in finding.note
    assert found[0].accuracy_aligned > found[0].accuracy_conflicting
    assert "site" in found[0].sentence()


@pytest.mark.parametrize(("association", "use"), [(0.9, 0.0), (0.0, 2.0)])
def test_associated_or_encoded_alone_stays_quiet(association, use):
    assert not confounding(candidates({"site": lambda m, y: m}, association, use)).alarm


def test_missing_values_are_left_out():
    rng = np.random.default_rng(0)
    found = candidates({"age": lambda m, y: np.where(rng.random(len(m)) < 0.4, np.nan, m)})
    assert confounding(found).alarm


def test_a_confounder_of_one_class_among_many_is_found():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 30)
    m = (labels == 7) & (rng.random(1200) < 0.6) | (rng.random(1200) < 0.02)
    logits = 3 * np.eye(40)[labels] + rng.normal(size=(1200, 40))
    logits[:, 7] += 3.0 * m
    found = find_candidates(logits, labels, {"metadata": pd.DataFrame({"marker": m})})
    assert found[0].reliance < 0.02
    assert found[0].worst_class == 7
    assert confounding(found).alarm


@pytest.mark.parametrize("use", [0.0, 2.0])
def test_a_column_that_equals_the_class_pattern_cannot_be_told(use):
    finding = confounding(candidates({"site": lambda m, y: y >= 2}, use=use))
    assert finding.undecided
    assert "site" in finding.note


@pytest.mark.parametrize(
    ("values", "note"), [(np.full(800, 3), "constant"), ([f"id{i}" for i in range(800)], "identifier")]
)
def test_what_cannot_be_compared_is_listed_but_not_judged(values, note):
    found = candidates({"column": lambda m, y: values})
    assert not found[0].tested
    assert note in found[0].note
    assert confounding(found).undecided


def test_an_empty_column_is_listed():
    assert "two classes" in candidates({"column": lambda m, y: np.full(len(m), np.nan)})[0].note


@pytest.mark.parametrize(("bad", "what"), [([1.0, np.inf], "infinite"), ([{"a": 1}, "x"], "dict")])
def test_bad_values_name_column_and_row(bad, what):
    values = pd.Series([0.5] * 4 + bad, name="dose", dtype=object if what == "dict" else float)
    with pytest.raises(MetadataError, match=rf"'dose', row {4 if what == 'dict' else 5}.*{what}"):
        read_column(values)


@pytest.mark.parametrize(
    ("values", "levels", "width"),
    [
        ([True, False, True], 2, 1),
        ([1, 2, 3, 1], 3, 2),
        ([0.1, 0.2, 0.35], 0, 1),
        (list(range(30)), 0, 1),
        (pd.to_datetime(["2024-01-01", "2025-01-01", None]), 0, 1),
    ],
)
def test_kinds_of_columns(values, levels, width):
    column = read_column(pd.Series(values))
    assert column.levels == levels
    assert column.values is not None
    assert column.values.shape[1] == width


def test_many_columns_are_corrected_for():
    alarms = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        logits, labels, _ = sample(n=200, seed=seed)
        frame = pd.DataFrame(rng.normal(size=(200, 30))).add_prefix("c")
        alarms += confounding(find_candidates(logits, labels, {"metadata": frame})).alarm
    assert alarms <= 1
    assert correct_for_count(4.0, 30) < 4.0


def test_content_is_listed_but_not_judged():
    logits, labels, m = sample(n=800, association=0.9, use=2.0)
    found = find_candidates(logits, labels, {"content": pd.DataFrame({"brightness": m[:, 0]})})
    assert found[0].reliance > 0.02
    assert confounding(found).undecided


def test_an_alarm_outweighs_what_cannot_be_told():
    hidden = ConfounderCandidate("hidden", "metadata", identifiable=False)
    assert confounding([hidden, ConfounderCandidate("site", "metadata", 0.1, 9.0)]).alarm
    unclear = confounding([hidden, ConfounderCandidate("site", "metadata", 0.001, 0.1)])
    assert unclear.undecided
    assert unclear.details["unidentified"] == confounding([hidden]).details["unidentified"] == 1
    assert confounding([], searched=40).details["unidentified"] == 0


def test_a_thousand_classes_of_five():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 5)
    logits = (3 * np.eye(1000)[labels] + rng.normal(size=(5000, 1000))).astype(np.float32)
    finding = confounding(find_candidates(logits, labels, {"metadata": pd.DataFrame({"m": rng.random(5000)})}))
    assert not finding.alarm
    assert not finding.undecided


def test_training_samples_tell_where_too_few_validation_samples_lie_off_the_pattern():
    def tagged(n, seed):
        logits, labels, m = sample(n=n, association=0.97, use=2.0, seed=seed)
        return logits, labels, pd.DataFrame({"site": np.where(m[:, 0] > 0, "a", "b"), "number": m[:, 0] + 0.5})

    logits, labels, frame = tagged(60, seed=0)
    sources = {"metadata": frame}
    assert not confounding(find_candidates(logits, labels, sources)).alarm
    found = find_candidates(logits, labels, sources, training=TrainingRows(*tagged(800, seed=1)))
    assert {s.source for s in found if s.z > 3} == {"site", "number"}
    assert confounding(found).alarm


def test_a_training_value_that_cannot_be_compared_is_named_by_its_own_row():
    logits, labels, _ = sample(n=60)
    training = TrainingRows(logits, labels, pd.DataFrame({"site": [*["a"] * 4, {}, *["a"] * 55]}))
    with pytest.raises(MetadataError, match="'site', row 4: a dict"):
        find_candidates(logits, labels, {"metadata": pd.DataFrame({"site": ["a"] * 60})}, training=training)
