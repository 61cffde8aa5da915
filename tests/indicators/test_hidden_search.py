"""Hidden variables and own maps, from the table to the words."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from reports import small_table

from lightning_ifa.indicators import hidden_search
from lightning_ifa.indicators.confounding import Confounding, confounding
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.hidden_search import HiddenSearch
from lightning_ifa.statistics.confounder_candidates import ConfounderCandidate
from lightning_ifa.statistics.hidden_variables import HiddenVariable
from lightning_ifa.statistics.own_map import own_map

N, CELL = 400, (1, 2)


def searched(tag, metadata=None):
    """Two classes and nine cells of content; one cell holds a mark that goes with the class in nine of ten samples."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 2
    carries = (labels == 1) == (rng.random(N) < 0.9)
    evidence = 0.05 * rng.normal(size=(N, 2, 3, 3))
    evidence += np.eye(2)[labels][:, :, None, None] * rng.uniform(0, 0.3, (N, 1, 3, 3))
    if tag:
        evidence[:, :, CELL[0], CELL[1]] = 0.02 * rng.normal(size=(N, 2)) + np.outer(carries, [-0.5, 0.5])
    table = dataclasses.replace(
        small_table("validation", labels, labels),
        logits=evidence.sum((2, 3)).astype(np.float32),
        places=evidence.astype(np.float16),
        metadata=pd.DataFrame({} if metadata is None else {"tag": metadata(carries)}, index=range(N)),
    )
    context = AnalysisContext({"validation": table}, ("no", "yes"))
    return Confounding().assess(context), context, carries


def test_a_mark_that_nobody_named_alarms_with_its_column_and_its_map():
    finding, context, carries = searched(tag=True)
    assert finding.alarm
    assert finding.subject == "hidden at cell 2, 3"
    upper = finding.tables["hidden"]["group"].to_numpy() == "upper"
    assert max((upper == carries).mean(), (upper != carries).mean()) > 0.99
    maps = finding.tables["confounder_maps"]
    assert set(maps["source"]) == {finding.subject}
    flat = np.array(maps["map"].tolist())
    hit = (flat.argmax(1) == 5) & (flat.max(1) > 3)
    assert hit[carries].mean() > 0.95
    assert hit[~carries].mean() < 0.05
    assert "peaks at cell 2, 3 of 3 x 3" in Confounding().explain(finding, context).found


def test_a_column_that_was_named_has_the_same_map():
    finding, _, carries = searched(tag=True, metadata=lambda carries: carries)
    maps = finding.tables["confounder_maps"]
    first = maps[maps["source"] == finding.subject]
    assert maps["source"].iloc[0] == finding.subject
    assert (np.array(first["map"].tolist()).argmax(1)[carries] == 5).mean() > 0.95


def test_a_search_that_finds_nothing_clears_nobody():
    finding, context, _ = searched(tag=False)
    assert finding.undecided
    assert "9 places and looks were searched" in finding.note
    assert finding.tables["hidden"].empty
    assert "searched" in Confounding().explain(finding, context).found


@pytest.mark.parametrize(("origin", "undecided"), [("hidden", True), ("metadata", False)])
def test_a_hidden_variable_that_does_not_alarm_clears_nobody(origin, undecided):
    quiet = ConfounderCandidate("something", origin, 0.001, 0.5)
    assert confounding([quiet], searched=9).undecided is undecided


def test_variables_of_one_block_have_names_and_columns_of_their_own(monkeypatch):
    _, context, carries = searched(tag=False)
    values = [np.arange(N) * factor for factor in (1.0, 2.0, 3.0)]
    found = [HiddenVariable("look", 0, one, carries, 0.9, 0.9, 9.0, 1) for one in values]
    monkeypatch.setattr(hidden_search, "find_hidden", lambda *_: found)
    search = HiddenSearch(context)
    assert len(set(search.names)) == 3
    assert np.array_equal(search.columns().to_numpy().T, values)


def test_a_column_known_of_three_samples_has_no_map():
    three = np.arange(3.0)
    assert own_map(np.ones((3, 2, 3, 3)), np.ones((3, 2)), np.array([0, 1, 0]), three) is None
