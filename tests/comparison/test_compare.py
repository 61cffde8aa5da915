"""What is equal is said to be equal, what differs by chance to be noise, and what is worse to be worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from models import PoolNet, Squares, loader, trained
from torch.nn.functional import cross_entropy

from lightning_ifa.analysis import analyze
from lightning_ifa.comparison import compare
from lightning_ifa.comparison.compare import compare_tables
from lightning_ifa.comparison.rendering import comparison_html, comparison_png, comparison_text
from lightning_ifa.errors import DataError

SEEDS = range(3)


def memorising(steps=100):
    """A network that knows 24 training samples by heart."""
    torch.manual_seed(0)
    data, model = Squares(24, seed=1), PoolNet(16)
    data.labels = data.labels[torch.randperm(24)]
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(steps):
        loss = cross_entropy(model(data.images), data.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return analyze(model.eval(), loader(120, seed=5), torch.utils.data.DataLoader(data, 16)).tables


@pytest.fixture(scope="module")
def seeds():
    """The same training with other seeds, of the first weights too, on the same data."""

    def tables(seed):
        torch.manual_seed(seed)
        return analyze(trained(PoolNet(16), seed=seed), loader(120, seed=5), loader(96, seed=1)).tables

    return {f"seed {seed}": tables(seed) for seed in SEEDS}


@pytest.fixture(scope="module", autouse=True)
def _resampled_once():
    """Many tests compare the same runs, and most of their time is the resampling of each run's scores."""
    resample, kept = compare.resample_scores, {}

    def once(report, seed=0):
        key = tuple(id(table) for table in report.tables.values())
        if key not in kept:
            kept[key] = report, resample(report, seed)  # the report keeps its tables, and with them their ids
        return kept[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "resample_scores", once)
        yield


def permuted(tables, seed=0):
    """The same network with its channels in another order."""
    order = np.random.default_rng(seed).permutation(tables["validation"].activations.shape[1])
    return {
        split: replace(t, activations=t.activations[:, order], contributions=t.contributions[:, order])
        for split, t in tables.items()
    }


def test_a_run_against_itself(seeds):
    found = compare_tables({"a": seeds["seed 0"], "b": seeds["seed 0"]})
    assert (found.changes["change"] == 0).all()
    assert set(found.changes["verdict"]) <= {"inside the noise", "cannot be told"}
    assert (found.changes["verdict"] == "inside the noise").sum() >= 3
    alike = found.feature_similarity.iloc[0]
    assert (alike["cka"], alike["cka_within"], alike["maps"]) == (1.0, 1.0, 1.0)
    assert set(found.outliers["status"]) <= {"shared"}
    np.testing.assert_array_equal(found.maps[0], found.maps[1])


def test_channels_in_another_order_change_nothing(seeds):
    found = compare_tables({"a": seeds["seed 0"], "b": permuted(seeds["seed 0"])})
    assert found.changes["change"].abs().max() < 1e-6
    assert found.feature_similarity["cka"][0] == pytest.approx(1, abs=1e-9)


def test_two_seeds_are_inside_the_noise(seeds):
    """The same data and recipe: no family may be called better or worse."""
    found = pd.concat(
        compare_tables({name: seeds[name], **{k: v for k, v in seeds.items() if k > name}}).changes
        for name in list(seeds)[:-1]
    )
    told = found[found["verdict"] != "cannot be told"]
    assert len(told) >= 9
    assert (told["verdict"] == "inside the noise").all(), told.to_string()


def test_overfitting_is_worse(seeds):
    found = compare_tables({"sound": seeds["seed 0"], "memorised": memorising()})
    gap = found.changes.set_index("family").loc["overfitting"]
    assert gap["verdict"] == "worse"
    assert gap["low"] > 0.5
    assert max(found.feature_similarity["cka_within"][0], found.feature_similarity["cka"][0]) < 0.9


def test_several_runs_are_compared_to_the_first_and_all_pairs_by_cka(seeds):
    found = compare_tables(seeds)
    assert set(found.changes["run"]) == set(list(seeds)[1:])
    assert found.cka.shape == (len(SEEDS), len(SEEDS))
    np.testing.assert_array_equal(found.cka, found.cka.T)
    assert found.cka[0, 1] == found.feature_similarity["cka"][0]
    text = comparison_text(found)
    assert all(f"{name} compared to seed 0" in text for name in list(seeds)[1:])


def test_other_data_is_refused_unless_forced(seeds):
    part = {split: table.take(np.arange(60)) for split, table in seeds["seed 1"].items()}
    with pytest.raises(DataError, match=r"b on [0-9a-f]{12}: their numbers do not compare.*--force"):
        compare_tables({"a": seeds["seed 0"], "b": part})
    found = compare_tables({"a": seeds["seed 0"], "b": part}, force=True)
    assert found.feature_similarity["samples"][0] == 60
    assert any("other validation data" in note for note in found.notes)
    rows = seeds["seed 0"]["validation"].take(np.arange(60)), part["validation"]
    again = compare_tables({"a": {"validation": rows[0]}, "b": {"validation": rows[1]}})
    assert again.feature_similarity["cka"][0] == found.feature_similarity["cka"][0]


def test_the_same_samples_with_a_change_of_some_pixels_compare(seeds):
    table = seeds["seed 1"]["validation"]
    tagged = replace(
        table, fingerprints=np.where(np.arange(len(table)) < 60, table.fingerprints + 1, table.fingerprints)
    )
    found = compare_tables({"a": {"validation": seeds["seed 0"]["validation"]}, "b": {"validation": tagged}})
    assert any("with other pixels" in note for note in found.notes)
    assert found.feature_similarity["samples"][0] == 60
    foreign = replace(table, fingerprints=table.fingerprints + 1)
    with pytest.raises(DataError, match="do not compare"):
        compare_tables({"a": {"validation": seeds["seed 0"]["validation"]}, "b": {"validation": foreign}})


def test_samples_are_met_by_identity_not_by_row(seeds):
    order = np.random.default_rng(0).permutation(120)
    mixed = {"validation": seeds["seed 0"]["validation"].take(order)}
    found = compare_tables({"a": {"validation": seeds["seed 0"]["validation"]}, "b": mixed}, force=True)
    assert found.feature_similarity["cka"][0] == pytest.approx(1.0, abs=1e-12)
    assert found.feature_similarity["maps"][0] == 1.0


def test_families_that_a_run_could_not_tell(seeds):
    found = compare_tables({"a": seeds["seed 0"], "b": seeds["seed 1"]}, {"b": ["overfitting"]})
    assert found.changes.set_index("family").loc["overfitting", "verdict"] == "cannot be told"


def test_one_run_is_not_enough(seeds):
    with pytest.raises(DataError, match="at least two"):
        compare_tables({"a": seeds["seed 0"]})


def test_figure_and_page_survive_hostile_names(seeds):
    name = "<script>alert(1)</script> $x_{$ " + "n" * 10_000
    found = compare_tables({"a": seeds["seed 0"], name: seeds["seed 1"], "c": seeds["seed 2"]})
    picture = comparison_png(found)
    assert picture.startswith(b"\x89PNG")
    page = comparison_html(found, picture)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert len(page) < 3_000_000


def test_regression_is_compared(seeds):
    table = seeds["seed 0"]["validation"]
    target = table.activations[:, table.activations.std(0).argmax()].astype(np.float32)  # not a dead channel
    as_regression = replace(
        table, targets=target, predictions=target + 0.1, logits=target[:, None] + 0.1, task="regression",
        explained=np.zeros(len(table), dtype=np.int64),
    )  # fmt: skip
    found = compare_tables({"a": {"validation": as_regression}, "b": {"validation": as_regression}})
    assert (found.changes["change"] == 0).all()
