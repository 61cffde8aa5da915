"""The verdict in words: planted faults are named, numbers and names are those of the report, nothing is left open."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from changed_reports import with_finding
from models import NETS, build
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze, analyze_tables
from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.features.probes import Probes
from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.indicators.context import AnalysisContext, TrendPoint
from lightning_ifa.indicators.registry import families
from lightning_ifa.report.markdown import headline, summary

NAMES, SAMPLES = ("cat", "dog", "*bird*"), 240


def table(split, seed, bonus=0.0, tag=None):
    """Samples of three classes: sixteen channels of noise about a class mean, and logits that are their sum.

    Args:
        split: Names the samples.
        seed: Of the noise.
        bonus: More evidence for the true class, one number or one a sample.
        tag: More evidence for class 0 where it is True; becomes metadata.
    """
    rng, means = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(3, 16))
    targets = np.arange(SAMPLES) % 3
    activations = means[targets] + rng.normal(size=(SAMPLES, 16))
    logits = activations @ means.T
    logits[np.arange(SAMPLES), targets] += bonus
    metadata = pd.DataFrame(index=range(SAMPLES))
    if tag is not None:
        logits[:, 0] += 10.0 * tag
        metadata["scan|ner"] = np.where(tag, "A", "B")
    explained = logits[np.arange(SAMPLES), targets]
    return FeatureTable(
        contributions=(activations * means[targets]).astype(np.float32),
        activations=activations.astype(np.float32),
        logits=logits.astype(np.float32),
        targets=targets,
        predictions=logits.argmax(1),
        explained=targets,
        cams=np.repeat(explained[:, None, None] / 4, 4, 1).reshape(-1, 2, 2).astype(np.float32),
        sample_ids=np.array([f"{split}{row}" for row in range(SAMPLES)]),
        indices=np.arange(SAMPLES),
        fingerprints=np.arange(SAMPLES) + 10_000 * seed,
        metadata=metadata,
        properties=pd.DataFrame(index=range(SAMPLES)),
        layer="features",
        task="multiclass",
        cam="hirescam",
    )


def judged(**tables):
    pictured = tables["validation"].take(np.arange(2))
    context = AnalysisContext(tables, tuple(NAMES))
    return analyze_tables(context, Probes(pictured, pictured, None))


@pytest.fixture(scope="module")
def report():
    """Sound."""
    unused = np.random.default_rng(3).random(SAMPLES) < 0.5
    train, validation = table("train", 1), table("validation", 2)
    return judged(train=train, validation=replace(validation, metadata=pd.DataFrame({"site": unused})))


def section(text, family):
    return text.split(f"## {family.capitalize()}\n")[1].split("\n\n")[0]


def test_a_sound_report_says_so_in_its_first_line(report):
    text = summary(report)
    assert text.splitlines()[0] == "# No alarm in five indicators."
    assert "**Quiet:** overfitting" in text
    assert "##" not in text


def test_overfitting_names_classes_and_epoch(report):
    more = np.where(np.arange(SAMPLES) % 3 == 1, 9.0, 3.0)
    found = judged(train=table("train", 1, more), validation=report.tables["validation"])
    found = replace(
        found, trend={"overfitting": [TrendPoint(0, 0.0, 0.2), TrendPoint(2, 0.5, 8.0), TrendPoint(4, 1.0, 9.0)]}
    )
    assert found.alarms == ["overfitting"]
    text = summary(found)
    assert text.startswith("# One of five indicators raises an alarm: overfitting.\n")
    words = section(text, "overfitting")
    assert f"by {found.metrics['ifa/overfitting/score']:.2f} standard deviations" in words
    assert "It is widest for class “dog”" in words
    assert "left its null in epoch 2" in words
    assert "from before epoch 2" in words
    assert "Practically certain" in words


def test_confounding_names_candidate_class_and_cost():
    rng = np.random.default_rng(1)
    first = np.arange(SAMPLES) % 3 == 0
    tags = [np.where(rng.random(SAMPLES) < 0.9, first, ~first) for _ in range(2)]
    found = judged(train=table("train", 1, tag=tags[0]), validation=table("validation", 2, tag=tags[1]))
    assert found.alarms == ["confounding"]
    row = found.confounders.iloc[0]
    words = section(summary(found), "confounding")
    assert "the metadata column “scan\\|ner”" in words
    assert f"{row['score']:.1%} of the evidence between the classes" in words
    assert f"goes with their class {row['accuracy_aligned']:.1%}" in words
    assert f"of the {row['conflicting']} whose value points away from it {row['accuracy_conflicting']:.1%}" in words
    assert "Balance its values over the classes" in words


def test_outliers_are_counted_by_kind(report):
    rows = report.samples.assign(kind="", duplicate_of="")
    inside = rows.index[rows["split"] == "validation"]
    rows.loc[inside[:12], "kind"] = ["mislabelled"] * 7 + ["foreign"] * 2 + ["near-duplicate"] * 3
    rows.loc[inside[9:12], "duplicate_of"] = "5"
    rows.loc[inside[3], "score"] = 99.0
    found = {"score": 0.04, "z": 6.0, "health": 0.2, "details": {"label_noise": 0.05}, "tables": {"samples": rows}}
    words = section(summary(with_finding(report, "outliers", **found)), "outliers")
    assert "12 of 240 validation samples (5.0%)" in words
    assert "7 whose label is probably wrong" in words
    assert "2 foreign" in words
    assert "3 near copies of training samples" in words
    assert "out of the ordinary" not in words
    assert f"first to look at: “{rows.loc[inside[3], 'sample_id']}”" in words
    assert "About 5.0% of the labels are wrong" in words
    assert "Check these labels first" in words
    assert "copies of training samples out of the validation split" in words


def test_channels_to_spare_are_counted(report):
    validation = report.tables["validation"]
    activations = validation.activations.copy()
    activations[:, 4:8], activations[:, 8:] = activations[:, :4], 0.0
    found = judged(validation=replace(validation, activations=activations))
    words = section(summary(found), "redundancy")
    assert "12 of 16 channels could go" in words
    assert "8 do not vary and 4 repeat another" in words
    assert "about 4 channels would do" in words


def test_what_cannot_be_told_comes_with_its_reason(report):
    found = judged(validation=table("validation", 2))
    findings = {**found.findings, "confounding": undecided("there is no metadata column to test")}
    text = summary(replace(found, findings=findings))
    assert text.startswith("# No alarm, but confounding cannot be told.")
    assert "**Confounding** cannot be told: there is no metadata column to test; hand over what you know" in text
    assert "**Overfitting** cannot be told: there are no training samples; hand over a training loader." in text


def test_headline_counts(report):
    bad, unknown = Finding(1.0, 9.0, 0.1), undecided("no")
    findings = {**report.findings, "outliers": bad, "confounding": bad, "consistency": unknown}
    expected = "Two of five indicators raise an alarm: confounding and outliers; consistency cannot be told"
    assert headline(replace(report, findings=findings)) == expected


@pytest.mark.parametrize("z", [0.0, 1e9])
@pytest.mark.parametrize("name", [name for name in NETS if name != "stacks"])
def test_every_task_is_told_without_a_gap(name, z):
    """Whatever alarms, on whatever there is: no number is missing, no row is asked for that does not exist."""
    model, x = build(name)
    x = torch.randn(24, *x.shape[1:])
    with torch.no_grad():
        output = model(x)
    targets = torch.randn(24) if name == "signal" else torch.arange(24) % 2
    if name == "segmentation":
        targets = torch.randint(0, 3, (24, *output.shape[2:]))
    batches = DataLoader(TensorDataset(x, targets), 8)
    found = analyze(model, batches, batches, probes=2)
    for family in families():
        found = with_finding(found, family, score=0.5, z=z, health=0.1, details={})
    text = summary(replace(found, trend={family: [TrendPoint(3, 1.0, 9.0)] for family in families()}))
    assert text.startswith("# Five of five indicators raise an alarm")
    assert not re.search(r"\b(nan|inf|None)\b", text), text
    assert len(text) < 8000


def test_long_and_evil_names_stay_short_and_harmless(report):
    evil = "<b>[x](http://y) `*_\n# | ~~" + "\u202e" + "é" * 10_000
    rows = report.samples.assign(sample_id=evil, kind="foreign")
    candidates = report.confounders.assign(source=evil, origin="metadata")
    alarm = {"score": 0.5, "z": 9.0, "health": 0.1, "details": {}}
    hostile = with_finding(report, "outliers", **alarm, tables={"samples": rows})
    hostile = with_finding(hostile, "confounding", **alarm, note=evil, tables={"confounders": candidates})
    hostile = replace(hostile, class_names=(evil,) * 3)
    text = summary(hostile, evil)
    assert len(text) < 8000
    assert "\u202e" not in text
    assert not set("<[]~") & set(re.sub(r"\\.", "", text))
