"""A small version of the planted-truth benchmark: every fault alarms its own family and no other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("mlxtend")

from sklearn.metrics import average_precision_score

from benchmarks.planted.conditions import tuning, whole
from benchmarks.planted.train import fit, splits
from lightning_ifa.analysis import analyze
from lightning_ifa.evaluation.confounder_channels import ablate_confounder

ROWS = 600


@pytest.fixture(scope="module")
def runs():
    """Network, splits and report of each condition, trained once."""
    torch.set_num_threads(1)
    found = {}
    for condition in tuning() + whole():
        if condition.name not in EXPECTED:
            continue
        small = replace(condition, width=32, epochs=min(condition.epochs, 20))
        parts = splits(small, seed=0)
        net, _, _ = fit(small, 0, parts)
        loaders = {
            name: DataLoader(TensorDataset(parts[name].images[:rows], parts[name].labels[:rows]), 200)
            for name, rows in (("train", 1000), ("validation", ROWS))
        }
        metadata = {"validation": pd.DataFrame({"tag": parts["validation"].tagged.numpy()[:ROWS]})}
        blind = condition.name in ("tag-corner-all", "contrast")
        known = None if blind else metadata
        report = analyze(net, loaders["validation"], loaders["train"], metadata=known, swaps=blind)
        found[condition.name] = net, parts, report, loaders["validation"]
    return found


EXPECTED = {
    "sound": [],
    "overfit-severe": ["overfitting"],
    "tag-corner": ["confounding"],
    "tag-corner-all": ["confounding"],
    "contrast": ["confounding"],
    "tag-unused": [],
    "outliers": ["outliers"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_fault_alarms_its_own_family_and_no_other(runs, name):
    families = ("overfitting", "confounding", "outliers")
    assert [f for f in families if runs[name][2].findings[f].alarm] == EXPECTED[name]


def test_scores_of_faulty_networks_stand_clear_of_sound_ones(runs):
    scores = {name: {f: finding.score for f, finding in run[2].findings.items()} for name, run in runs.items()}
    assert scores["overfit-severe"]["overfitting"] > 3 * scores["sound"]["overfitting"]
    assert scores["tag-corner"]["confounding"] > 3 * max(scores[n]["confounding"] for n in ("sound", "tag-unused"))
    assert scores["outliers"]["outliers"] > 0.02 > scores["sound"]["outliers"]


def test_a_tag_in_every_sample_is_located_without_metadata(runs):
    first = runs["tag-corner-all"][2].confounders.iloc[0]
    assert (first["source"], first["origin"]) == ("corner_top_left", "swap")


def test_a_contrast_that_goes_with_the_class_is_named_without_metadata(runs):
    judged = runs["contrast"][2].confounders.query("origin != 'content'").iloc[0]
    assert (judged["source"], judged["origin"]) == ("contrast", "swap")


def test_planted_outliers_and_copies_are_listed(runs):
    _, parts, report, _ = runs["outliers"]
    rows = report.samples.query("split == 'validation'")
    told, duplicate = rows["kind"].to_numpy(), rows["duplicate_of"].to_numpy()
    planted = parts["validation"].kinds[:ROWS]
    bad = np.isin(planted, ["mislabelled", "corrupted", "foreign", "duplicate", "near"])
    assert (told[bad] != "").mean() > 0.7
    assert (told[~bad] != "").mean() < 0.02
    score = rows["score"].fillna(-9).to_numpy()
    for kind in ("mislabelled", "corrupted", "foreign"):
        alone = (planted == kind) | ~bad
        assert average_precision_score(planted[alone] == kind, score[alone]) > 0.8, kind
    assert (duplicate[planted == "duplicate"] != "").all()
    assert (duplicate[planted == ""] == "").all()


def test_ablating_the_confounder_channels_helps_where_the_tag_misleads(runs):
    net, _, report, loader = runs["tag-corner"]
    table = ablate_confounder(net, loader, report, "tag").set_index("ablated")
    gained = table["accuracy_conflicting"] - table.loc["nothing", "accuracy_conflicting"]
    assert gained["confounder channels"] > max(0.02, gained["random"])
