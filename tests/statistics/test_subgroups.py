"""Subgroups: intervals that cover, a test that allows for hard classes, and a group that does worse is told."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from sklearn.metrics import roc_auc_score

from lightning_ifa.statistics.subgroups import (
    Outcome,
    SplitOutcome,
    error_p_value,
    holm,
    list_subgroups,
    subgroup_metrics,
    wilson,
)

ACCURACY = np.array([0.95, 0.75, 0.55])


def subgroups(outcome, metadata, train=None):
    return list_subgroups(SplitOutcome(outcome, metadata), train)


def outcome_of(labels, correct):
    wrong = (labels + 1) % len(ACCURACY)
    logits = 3.0 * np.eye(len(ACCURACY))[np.where(correct, labels, wrong)]
    return Outcome(labels, logits, np.where(correct, 3.0, -3.0))


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    site = np.where(rng.random(900) < np.array([0.1, 0.3, 0.8])[labels], "hard", "easy")  # goes with the class
    sex = rng.choice(["f", "m"], 900)
    age = rng.normal(50, 10, 900)
    age[:30] = np.nan
    metadata = pd.DataFrame({"site": site, "sex": sex, "age": age, "patient": [f"p{n}" for n in range(900)]})
    return labels, rng.random(900) < ACCURACY[labels], metadata


def test_a_group_of_hard_classes_is_no_worse_than_expected(people):
    labels, correct, metadata = people
    found = subgroups(outcome_of(labels, correct), metadata)
    assert set(found["judgement"]) == {"as expected"}
    hard = found[(found["column"] == "site") & (found["group"] == "hard")].iloc[0]
    assert hard["accuracy"] < 0.7 < 0.8 < correct[metadata["site"] == "easy"].mean()
    assert hard["expected"] == pytest.approx(hard["accuracy"], abs=0.05)
    assert "patient" not in set(found["column"])
    assert found.loc[found["column"] == "age", "size"].tolist() == [290, 290, 290]


def test_a_group_with_more_errors_than_its_classes_explain_is_told_first(people):
    labels, correct, metadata = people
    rng = np.random.default_rng(1)
    correct = correct & ~((metadata["sex"] == "f").to_numpy() & (rng.random(900) < 0.2))
    outcome = outcome_of(labels, correct)
    found = subgroups(outcome, metadata)
    single = found[found["column"] == "sex"].set_index("group")
    assert single.loc["f", "judgement"] == "worse"
    assert single.loc["m", "judgement"] == "better"
    assert "f" in found["group"].iloc[0].split(" × ")
    women = (metadata["sex"] == "f").to_numpy()
    metrics = subgroup_metrics(SplitOutcome(outcome, metadata))
    assert metrics["gap"] >= correct[~women].mean() - correct[women].mean()
    recall = [[correct[(labels == k) & (women == w)].mean() for w in (True, False)] for k in range(3)]
    assert metrics["equalised_odds"] >= np.ptp(recall, axis=1).max() - 1e-9
    assert single.loc["f", "calibration_error"] > single.loc["m", "calibration_error"]


@pytest.mark.parametrize("column", [[None] * 60, [np.nan] * 60, [3.5] * 60, [pd.NaT] * 60])
def test_a_column_that_says_nothing_has_no_group(column):
    found = subgroups(outcome_of(np.zeros(60, dtype=int), np.arange(60) < 50), pd.DataFrame({"site": column}))
    assert found.empty


def test_numbers_are_cut_on_the_same_samples_everywhere(people):
    labels, correct, metadata = people
    age = metadata[["age"]].assign(age=np.where(np.arange(900) < 300, 1000.0, metadata["age"]))
    outcome = outcome_of(labels, correct)
    known = outcome._replace(labels=np.where(np.arange(900) < 300, -1, labels))
    part = Outcome(*(values[300:] for values in outcome))
    assert subgroup_metrics(SplitOutcome(known, age)) == subgroup_metrics(SplitOutcome(part, age[300:]))


def test_a_group_that_is_remembered_overfits(people):
    labels, correct, metadata = people
    outcome, women = outcome_of(labels, correct), (metadata["sex"] == "f").to_numpy()
    learnt = outcome._replace(margins=np.where(women, 3.0, outcome.margins))
    train = SplitOutcome(learnt, metadata[["sex", "age"]].assign(age=metadata["age"].astype("float32")))
    found = list_subgroups(SplitOutcome(outcome, metadata), train)
    gap = found.set_index(["column", "group"])["overfitting"]
    assert gap["sex", "f"] > 0.3
    assert gap["sex", "m"] == 0
    assert gap["age"].between(0.1, 0.6).all()  # parts of both
    assert gap["site"].isna().all()  # nothing is known of the training samples


def test_small_groups_are_not_judged():
    labels = np.zeros(100, dtype=int)
    metadata = pd.DataFrame({"site": ["a"] * 90 + ["b"] * 10})
    found = subgroups(outcome_of(labels, np.arange(100) < 90), metadata).set_index("group")
    assert found.loc["b", "judgement"] == "too few"
    assert np.isnan(found.loc["b", "p"])
    assert found.loc["b", "accuracy"] == 0


def test_the_p_value_is_fishers_for_one_class():
    wrong, inside = np.arange(60) < 12, np.arange(60) % 3 == 0
    wrong[inside] = np.arange(20) < 9
    table = [[np.sum(wrong & inside), np.sum(~wrong & inside)], [np.sum(wrong & ~inside), np.sum(~wrong & ~inside)]]
    assert error_p_value(wrong, np.zeros(60, int), inside) == pytest.approx(fisher_exact(table)[1], abs=1e-9)


def test_intervals_cover():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.5, 0.98, 3000)
    size = rng.integers(20, 300, 3000)
    intervals = np.array([wilson(int(hits), int(n)) for hits, n in zip(rng.binomial(size, truth), size, strict=True)])
    assert 0.93 < np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])) < 0.97


def test_sound_groups_rarely_alarm():
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(100):
        wrong, group = rng.random(300) < 0.2, rng.integers(0, 5, 300)
        p = holm(np.array([error_p_value(wrong, np.zeros(300, int), group == g) for g in range(5)]))
        alarms += bool((p < 0.05).any())
    assert alarms <= 10  # 5 expected at most; 11 or more has a chance of one percent


@pytest.mark.parametrize("kind", ["float16", "Int64", "datetime64[ns]", "timedelta64[ns]"])
def test_numbers_and_times_of_any_type_are_cut(kind):
    values = pd.Series(np.arange(90)).astype(kind)
    if kind != "float16":
        values = values.where(np.arange(90) % 9 > 0)
    labels = np.arange(90) % 3
    found = subgroups(outcome_of(labels, labels < 2), pd.DataFrame({"value": values}))
    assert len(found) == 3
    assert found["size"].sum() == values.notna().sum()


def test_the_auroc_of_many_classes_is_that_of_each_against_the_rest():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 5, 60), rng.normal(size=(60, 5)).round(1)  # with ties
    found = subgroups(Outcome(labels, logits, logits[:, 0]), pd.DataFrame({"site": np.arange(60) // 30}))
    evidence, inside = logits - logits.mean(1, keepdims=True), found["group"].iloc[0] == "1"
    rows = slice(30, 60) if inside else slice(0, 30)
    each = [roc_auc_score(labels[rows] == label, evidence[rows, label]) for label in range(5)]
    assert found["auroc"].iloc[0] == pytest.approx(np.mean(each))
