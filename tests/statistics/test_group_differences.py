"""What tells a group from the others: ranks as scikit-learn's AUROC, categories by their shares, the clearest first."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lightning_ifa.statistics.group_differences import higher_within, list_differences

INSIDE = np.arange(100) < 20


def test_the_chance_of_a_higher_value_is_the_auroc():
    values = np.random.default_rng(0).normal(size=(100, 3)).round(1)  # with ties
    expected = [roc_auc_score(INSIDE, column) for column in values.T]
    assert higher_within(values, INSIDE) == pytest.approx(expected)


def test_only_clear_differences_are_given_the_clearest_first():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({
        "noise": rng.normal(size=100),
        "darker": rng.normal(size=100) - 2 * INSIDE,
        "dark": rng.normal(size=100) - 9 * INSIDE,
        "site": np.where(INSIDE | (np.arange(100) % 10 == 0), "B", "A"),
        "sex": rng.choice(["f", "m"], 100),
        "unknown": [None] * 100,
    })  # fmt: skip
    found = list_differences(frame, INSIDE)
    assert [(each.name, each.category) for each in found] == [("dark", ""), ("site", "B"), ("darker", "")]
    assert found[0].chance == 0
    assert (found[1].inside, found[1].outside) == (1.0, 0.1)
