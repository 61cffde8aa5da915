"""The page: whatever names the user chose, they are text; rows and numbers are those of the report."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from changed_reports import with_table
from PIL import Image
from reports import MARKUP, small_report

from lightning_ifa.report.html.data import choose_features, page_data, picture, safe_json, transparent
from lightning_ifa.report.html.page import write_html
from lightning_ifa.report.html.sections import number, outliers, table, text, verdicts
from lightning_ifa.statistics.subgroups import LEAST_SIZE


class Page(HTMLParser):
    """The elements of a page: tags with their attributes, the words, and table rows by the table's id."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.words, self.rows, self.scripts = [], [], {}, []
        self._table = self._inside = None
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self._inside = tag
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self._table = self.rows.setdefault(dict(attributes)["id"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag == "td":
            self._table[-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "td":
            self._table[-1][-1] += data
        self.words.append(data)

    def handle_endtag(self, tag):
        self._inside = None

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(small_report(), path, png_of(np.zeros((4, 4, 3), np.uint8)), "<i>epoch 3</i>")
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text("utf-8"))


def png_of(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def body(found):
    """Rows of a table without its head."""
    return [row for row in found if row]


def test_names_of_the_user_are_text_and_no_element(page):
    assert not {"i", "u"} & {name for name, _ in page.tags}
    labels = {"Left out:", "Found:", "How sure:", "To try:"}  # in bold; the class named <b>cat</b> is not
    assert len(page.of("b")) == len([words for words in page.words if words in labels]) == len(labels)
    for name in (MARKUP, "<i>age</i>", "<i>epoch 3</i>", "<u>age</u> has too few values"):
        assert any(name in words for words in page.words), name


def test_only_our_own_script_may_run(page):
    (policy,) = [found["content"] for found in page.of("meta") if "http-equiv" in found]
    data, script = page.scripts
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{mark}'" in policy
    assert "default-src 'none'" in policy
    assert set(json.loads(data)) == {"features", "thumbs"}


def test_rows_of_outliers_are_the_suspicious_samples(page):
    rows = body(page.rows["outliers"])
    assert [row[1] for row in rows] == ["validation2", "train0", "validation4", "validation1"]
    assert rows[0][2:8] == ["validation", "corrupted", "9.00", "0.01", f"{MARKUP} → dog", "3.00"]
    assert rows[-1][8] == "train2"


def test_every_kind_of_outlier_can_be_chosen(page):
    options = [found for found in page.of("option") if "value" not in found]
    assert len(options) == 4
    assert [found["data-kind"] for found in page.of("tr") if "data-kind" in found] == [
        "corrupted", "foreign", "mislabelled", "duplicate",
    ]  # fmt: skip


def test_candidates_that_are_judged_come_before_the_content(page):
    rows = body(page.rows["candidates"])
    assert [row[0] for row in rows] == ["site", "brightness", "shape", "<i>age</i>"]  # the last could not be tested
    assert rows[0][2:7] == ["30.0%", "9.0", "0.40", "0.800", "0.400"]
    assert rows[3][2] == "–"


def test_groups_of_the_metadata_are_listed_and_logged(tmp_path):
    found = small_report()
    site = np.where(np.arange(len(found.tables["validation"])) % 2, "<b>north</b>", "south")
    known = replace(found.tables["validation"], metadata=pd.DataFrame({"site": site}))
    found = replace(found, tables={**found.tables, "validation": known})
    write_html(found, tmp_path / "page.html", None)
    rows = body(Page((tmp_path / "page.html").read_text("utf-8")).rows["subgroups"])
    assert sorted(row[1] for row in rows) == ["<b>north</b>", "south"]
    right = {name: known.correct[site == name].mean() for name in set(site)}
    assert {row[1]: row[3] for row in rows} == {name: f"{share:.3f}" for name, share in right.items()}
    large = len(known) >= 2 * LEAST_SIZE
    assert ("ifa/subgroups/gap" in found.metrics) == large


def test_features_are_ranked_and_know_their_class(page):
    rows = body(page.rows["features"])
    assert sorted(row[0] for row in rows) == ["0", "1", "2"]
    assert {row[0]: (row[1], row[2]) for row in rows} == {
        "2": (MARKUP, "-2.000"), "0": (MARKUP, "+1.500"), "1": ("dog", "+0.750"),
    }  # fmt: skip


def test_each_probe_has_a_caption_and_mistakes_a_second_map(page):
    captions = [words for words in page.words if words.startswith(f"{MARKUP}: ")]
    assert captions == [f"{MARKUP}: 1.0", f"{MARKUP}: 3.0 → dog"]
    assert len([found for found in page.of("img") if found.get("class") == "common"]) == 3
    assert len([found for found in page.of("span") if found.get("class") == "wrong"]) == 1


def test_nothing_is_loaded_from_elsewhere(page):
    sources = [found["src"] for found in page.of("img")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not page.of("link")
    assert all("src" not in found for found in page.of("script"))


def test_the_page_has_pictures_of_all_samples_that_it_points_at(report, page):
    content = json.loads(page.scripts[0])
    pointed = {name for found in page.of("td") for name in found.get("data-thumb", "").split()}
    assert pointed == {"validation/2", "validation/1", "validation/4", "train/0", "train/2"}
    assert pointed <= set(content["thumbs"])
    assert content["features"]["0"]["samples"] == ["validation/0", "validation/1", "validation/2"]
    assert content == page_data(report, choose_features(report))


def test_distributions_are_shares_of_each_split(report):
    for found in page_data(report, [0, 1])["features"].values():
        assert set(found["counts"]) == {"validation", "train"}
        assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in found["counts"].values())
        assert found["low"] < found["high"]


def test_an_alarm_is_explained_and_every_family_has_a_card(report):
    found = Page(verdicts(report))
    kinds = [card["class"] for card in found.of("section")]
    assert kinds == ["card bad", "card good", "card bad", "card good", "card ", "card good"]
    assert any("“site”" in words for words in found.words)
    assert "There are too few samples" in found.words
    quiet = replace(report, findings={"overfitting": report.findings["overfitting"]})
    assert [card["class"] for card in Page(verdicts(quiet)).of("section")] == ["card good"]


def test_without_outliers_there_is_neither_table_nor_filter(report):
    assert outliers(with_table(report, "samples", report.samples.assign(kind=""))) == "<p>None.</p>"


def test_cells_sort_by_their_number_and_escape_their_text():
    found = table(
        "t", ("name", "share"), [("", [text('<"&>'), number(0.25, ".1%")]), ("", [text("x"), number(np.nan)])]
    )
    assert '<td>&lt;&quot;&amp;&gt;</td><td class="number" data-value="0.25">25.0%</td>' in found
    assert ">–</td>" in found
    assert re.findall(r"<th [^>]*>", found) == ['<th scope="col">', '<th class="number" scope="col">']


def test_json_cannot_end_its_element():
    content = {"name": "</script><!--&"}
    assert not set("<>&") & set(safe_json(content))
    assert json.loads(safe_json(content)) == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        safe_json(float("nan"))


@pytest.mark.parametrize(("make", "channels"), [(picture, 3), (transparent, 4)])
def test_pictures_come_back_from_their_address(make, channels):
    pixels = np.full((5, 7, channels), 100, np.uint8)
    head, content = make(pixels).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)


def test_noise_is_kept_as_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert picture(noise).startswith("data:image/jpeg;base64,")
