"""Pictures and texts of a report: complete, readable without colour, and safe."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from changed_reports import with_finding
from models import PoolNet, SignalNet, VolumeNet, loader, trained
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.indicators.base import undecided
from lightning_ifa.report.figures.cam_overlay import overlay, probe_panels
from lightning_ifa.report.figures.images import DIM, gray_plane
from lightning_ifa.report.figures.overview import overview
from lightning_ifa.report.figures.probe_card import probe_picture
from lightning_ifa.report.markdown import summary

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)  # the weights that the training starts from
    return analyze(trained(PoolNet()), loader(60, seed=5), loader(90, seed=1), class_names=[EVIL, "b|c", "d"])


def alarmed(report):
    evil = report.confounders.assign(source=EVIL, origin="metadata", score=0.2)
    found = {"score": 0.2, "z": 9.0, "health": 0.1, "details": {}, "subject": EVIL, "tables": {"confounders": evil}}
    return with_finding(report, "confounding", **found)


def test_page_is_self_contained_and_escaped(report, tmp_path):
    alarmed(report).to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2  # the numbers and the package's own
    assert "alert(1)</" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(
        r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[^\"'> ]", re.sub(r"<script.*", "", page, flags=re.S)
    )
    assert len(page) < 3_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_summary_tells_the_verdicts_and_keeps_names_from_becoming_markup(report):
    text = summary(dataclasses.replace(alarmed(report), warnings=(f"{EVIL} | x",)))
    assert "| confounding | ALARM | 0.200 |" in text
    assert EVIL not in text
    assert "\\<script\\>" in text
    unknown = dataclasses.replace(report, findings={"overfitting": undecided("there is no training data")})
    assert "**Overfitting** cannot be told: there is no training data." in summary(unknown)


def test_overview_is_drawn_without_touching_pyplot(report):
    from matplotlib import pyplot

    before = dict(pyplot.rcParams), pyplot.get_fignums()
    figure = overview(alarmed(report))
    figure.canvas.draw()
    assert (dict(pyplot.rcParams), pyplot.get_fignums()) == before


def test_a_null_is_drawn_in_units_of_the_limit_that_judged(report):
    report = with_finding(report, "overfitting", health=0.6)  # so few samples give no verdict, hence no null
    other = with_finding(report, "overfitting", limit=2 * report.findings["overfitting"].limit)
    assert other.null("overfitting").bound == pytest.approx(report.null("overfitting").bound / 2)


def test_misclassified_probe_shows_both_classes(report):
    label = report.probes.table.explained

    def panels(guess):
        predicted = dataclasses.replace(report.probes.predicted, explained=guess)
        probes = dataclasses.replace(report.probes, predicted=predicted)
        return probe_panels(dataclasses.replace(report, probes=probes), 0)

    assert len(panels(label)) == 2
    assert len(panels((label + 1) % 3)) == 3


def test_no_evidence_leaves_the_dimmed_image_and_much_evidence_is_hot(report):
    cold = overlay(report, 0, np.full_like(report.probes.table.cams[0], report.scale.low))
    hot = overlay(report, 0, np.full_like(report.probes.table.cams[0], report.scale.high))
    assert np.allclose(cold, DIM * probe_panels(report, 0)[0].astype(float), atol=1)
    assert hot.mean() > cold.mean() + 50


def test_pictures_without_pixels(report):
    hidden = dataclasses.replace(report, probes=dataclasses.replace(report.probes, images=None))
    cold = overlay(hidden, 0, np.full_like(report.probes.table.cams[0], report.scale.low))
    assert len(np.unique(cold)) == 1
    assert len(probe_panels(hidden, 0)) == 1


@pytest.mark.parametrize(
    ("model", "x", "y"),
    [
        (SignalNet(), torch.randn(40, 2, 30), torch.randn(40)),
        (VolumeNet(), torch.randn(40, 1, 6, 7, 8), torch.arange(40) % 2),
        (PoolNet(n_in=3), torch.rand(40, 3, 12, 18), torch.arange(40) % 3),
    ],
)
def test_signals_volumes_and_colour_images_are_drawn(model, x, y):
    report = analyze(model, DataLoader(TensorDataset(x, y), 16))
    picture = probe_picture(report, 0)
    assert picture.mode == "RGB"
    overview(report).canvas.draw()


def test_slice_of_a_volume_goes_through_the_maximum():
    image, cam = np.zeros((1, 6, 4, 4), dtype=np.float32), np.zeros((3, 2, 2))
    image[0, 4, 1, 1], cam[2, 0, 0] = 1, 1
    assert gray_plane(image, cam).max() == 255
