from dataclasses import dataclass

import numpy as np
import pytest

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.outliers import label_margins


@dataclass
class Table:
    """What margins are read from."""

    logits: np.ndarray
    targets: np.ndarray
    task: str = "multiclass"

    has_one_label = FeatureTable.has_one_label

    def __len__(self):
        return len(self.targets)


LOGITS = np.array([[4.0, 1.0, -1.0], [0.0, 3.0, 1.0], [2.0, 0.0, 0.5]])
TARGETS = np.array([0, 2, -1])


def test_probabilities_are_read_as_the_logits_they_come_from():
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    found, known = (label_margins(Table(x, TARGETS), TARGETS) for x in (probabilities, LOGITS))
    np.testing.assert_allclose(found, known)
    np.testing.assert_array_equal(known, [3.0, -2.0, np.nan])


@pytest.mark.parametrize("task", ["regression", "multilabel", "custom"])
def test_where_classes_do_not_compete_there_is_no_margin(task):
    assert np.isnan(label_margins(Table(LOGITS, TARGETS, task), TARGETS)).all()
