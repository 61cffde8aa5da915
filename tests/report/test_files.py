"""The files of a report: which there are, what they hold, and what one that cannot be drawn leaves of the others."""

from __future__ import annotations

import json

import numpy as np
import pytest
from changed_reports import with_table
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from reports import MARKUP, small_report

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.report.figures.gallery_page import gallery_page
from lightning_ifa.report.files import pictures_may_fail, write_data, write_pictures, write_sheet


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(small_report(), folder, epoch=3)
    return folder


def table(path):
    content = json.loads(path.read_text("utf-8"))
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_tables_words_and_the_epochs_archive(data):
    assert files_below(data) == {
        "ifa/epoch_0003/train.npz",
        "ifa/epoch_0003/validation.npz",
        "ifa_cams.json",
        "ifa_confounders.json",
        "ifa_outliers.json",
        "ifa_review.csv",
        "ifa_scale.json",
        "ifa_summary.md",
    }


def test_the_archive_holds_the_tables(report, data):
    for split, expected in report.tables.items():
        found = FeatureTable.load(data / "ifa" / "epoch_0003" / f"{split}.npz")
        assert found.digest == expected.digest
        np.testing.assert_array_equal(found.contributions, expected.contributions)


def test_outliers_are_listed_most_suspicious_first(data):
    rows = table(data / "ifa_outliers.json")
    assert [row["sample_id"] for row in rows] == ["validation2", "train0", "validation4", "validation1"]
    assert rows[-1]["duplicate_of"] == "train2"


def test_candidates_that_could_not_be_tested_are_listed_without_a_number(report, data):
    rows = table(data / "ifa_confounders.json")
    assert {row["source"] for row in rows} == set(report.confounders["source"])
    assert rows[-1]["score"] is None


def test_the_table_of_maps_has_numbers_that_compare(data):
    first, second = table(data / "ifa_cams.json")
    assert (first["sample_id"], second["sample_id"]) == ("validation0", "validation2")
    assert (first["evidence"], second["evidence"]) == (1.0, 3.0)
    assert (first["low"], first["high"], first["energy"]) == (0.25, 0.25, 0.25)
    assert (first["shown"], second["shown"]) == (0.0, 0.0)
    assert (first["logit"], second["logit"]) == (1.0, 0.0)


def test_the_scale_and_the_epoch_are_told(report, data):
    assert json.loads((data / "ifa_scale.json").read_text("utf-8")) == report.scale.to_dict()
    words = (data / "ifa_summary.md").read_text("utf-8")
    assert "epoch 3" in words
    assert MARKUP not in words


def test_pictures_are_images_of_their_own_names(report, tmp_path):
    without_copies = with_table(report, "samples", report.samples.assign(duplicate_of=""))
    write_pictures(without_copies, tmp_path / "new", epoch=0)
    write_sheet(report, tmp_path / "new")
    pictures = {"ifa_overview.png", "ifa_features.png", "ifa_gallery.png", "ifa_probes.png", "ifa_groups.png"}
    assert files_below(tmp_path / "new") == pictures | {"ifa_report.html"}
    for name in pictures:
        with Image.open(tmp_path / "new" / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100
    assert "epoch 0" in (tmp_path / "new" / "ifa_report.html").read_text("utf-8")


def test_a_picture_that_cannot_be_drawn_is_logged_and_nothing_is_raised(report, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lightning_ifa.report.files.gallery_page", lambda *_: 1 / 0)
    write_pictures(report, tmp_path, epoch=0)
    assert files_below(tmp_path) == {"ifa_overview.png", "ifa_report.html", "ifa_features.png", "ifa_groups.png"}
    assert "could not be made" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_picture_that_cannot_be_drawn_takes_no_other_with_it(report, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_ifa.report.files.feature_page", lambda *_: 1 / 0)
    monkeypatch.setattr("lightning_ifa.report.files.gallery_page", lambda *_: Figure())
    write_pictures(report, tmp_path, epoch=0)
    assert files_below(tmp_path) == {"ifa_overview.png", "ifa_report.html", "ifa_gallery.png", "ifa_groups.png"}


def test_a_copy_is_drawn_beside_its_training_sample(report):
    words = [text.get_text() for text in gallery_page(report).findobj(Text)]
    assert any("train2" in word for word in words)


def test_being_stopped_is_no_failed_picture():
    with pytest.raises(KeyboardInterrupt), pictures_may_fail():
        raise KeyboardInterrupt
