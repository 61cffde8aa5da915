"""Every indicator, and a sixth known here only, through everything that shows, stores or compares families."""

import re
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from models import PoolNet, loader, trained

from lightning_ifa import FeatureReport, analyze
from lightning_ifa.analysis import analyze_tables
from lightning_ifa.comparison import compare_tables
from lightning_ifa.indicators import registry
from lightning_ifa.indicators.base import Explanation, Finding, Indicator, undecided
from lightning_ifa.indicators.context import AnalysisContext, TrendPoint
from lightning_ifa.indicators.registry import INDICATORS, assess_all, extend_trend, families
from lightning_ifa.report.markdown import headline, summary
from lightning_ifa.statistics.significance import health
from lightning_ifa.tracking.saved_view import _state


class Brightness(Indicator):
    """A toy: how far the mean map level lies above zero."""

    name = "brightness"
    meaning = "mean level of the maps"
    limit = 0.5
    derived: ClassVar = {"levels": lambda context: pd.DataFrame({"level": context.validation.cams.reshape(-1)[:3]})}

    def assess(self, context):
        level = float(self.levels(context).mean()) + 1.0
        rows = pd.DataFrame({"sample_id": context.validation.sample_ids[:2], "channels": [[1, 2], []]})
        return Finding(level, 5.0, health(level, self.limit, 5.0), {"level": level}, tables={"bright": rows})

    def explain(self, finding, context):
        return Explanation(f"The maps are bright: {finding.score:.2f}.", "Quite sure.", "Dim the lights.")

    def statistic(self, finding, context):
        levels = self.levels(context)
        return lambda rows, _: float(levels[rows].mean()) + 1.0

    def levels(self, context):
        return np.abs(context.validation.cams.astype(float)).reshape(len(context.validation), -1).mean(1)

    def trend_metrics(self, trend):
        return {"analyses": float(len(trend))}


class Broken(Brightness):
    """A toy that cannot be computed."""

    name = "broken"

    def assess(self, context):
        raise ZeroDivisionError("no light")


@pytest.fixture(scope="module")
def data():
    return trained(PoolNet()), loader(60, seed=5), loader(90, seed=1)


@pytest.fixture(scope="module")
def sound(data):
    return analyze(*data)


def fail(context):
    raise MemoryError


@pytest.fixture
def sixth(monkeypatch):
    monkeypatch.setattr(registry, "INDICATORS", (*INDICATORS, Brightness()))


def tables_of(report):
    return AnalysisContext(report.tables, report.class_names)


def test_names_are_unique_and_words(data):
    names = families()
    assert len(set(names)) == len(names) == 5
    assert all(name.isidentifier() and name == name.lower() for name in names)


@pytest.mark.parametrize("indicator", [*INDICATORS, Brightness()], ids=lambda indicator: indicator.name)
def test_an_indicator_keeps_its_promises(indicator, sound):
    context = tables_of(sound)
    assert not indicator.missing(context)
    found = indicator.assess(context)
    found = replace(found, limit=indicator.limit if np.isnan(found.limit) else found.limit)
    assert all(map(np.isfinite, (found.score, found.z, found.health, *found.details.values())))
    assert found.score >= 0
    assert 0 <= found.health <= 1
    assert indicator.limit > 0
    assert set(indicator.empty_tables(context)) == set(found.tables) - {"bright"}
    alarm = replace(found, score=9.0, z=9.0, health=0.1)
    for shown in (alarm, undecided("no reason")):
        words = indicator.explain(shown, context)
        assert words.found
        assert bool(words.certainty) == bool(words.advice and shown.alarm) or indicator.name == "brightness"
    assert indicator.null(replace(found, z=0.0, details={}), context) is None or indicator.name == "outliers"
    statistic = indicator.statistic(found, context)
    if statistic is not None:
        everything = [np.arange(len(context.tables[split])) for split in ("validation", "train")]
        assert statistic(*everything) == pytest.approx(found.score, abs=1e-9)


def test_a_sixth_family_goes_through_everything(sixth, data, tmp_path):
    report = analyze(*data)
    assert list(report.findings) == [*(indicator.name for indicator in INDICATORS), "brightness"]
    assert report.alarms[-1] == "brightness"
    assert re.match(r"\w+ of six indicators raises? an alarm: .*brightness", headline(report))
    text = summary(report)
    assert "## Brightness" in text
    assert "Dim the lights." in text
    assert "| brightness | ALARM |" in text
    assert report.metrics["ifa/brightness/level"] == report.metrics["ifa/brightness/score"] > 1
    assert report.metrics["ifa/health/brightness"] < 0.5
    assert report.null("brightness").bound > 0
    assert len(report.table("levels")) == 3
    report.to_html(tmp_path / "page.html")  # with the overview, which it draws
    assert "mean level of the maps" in (tmp_path / "page.html").read_text(encoding="utf-8")
    report.save(tmp_path / "report")
    again = FeatureReport.load(tmp_path / "report")
    assert again.metrics == report.metrics
    assert again.table("bright")["channels"].tolist() == [[1, 2], []]
    assert "ifa/health/brightness" in str(_state([], 0))
    compared = compare_tables({"a": report.tables, "b": report.tables})
    row = compared.changes.set_index("family").loc["brightness"]
    assert row["verdict"] == "inside the noise"
    assert row["interval"] == "bootstrap"


def test_a_family_that_fails_cannot_be_told_and_takes_no_other_with_it(monkeypatch, sound):
    monkeypatch.setattr(registry, "INDICATORS", (Broken(), *INDICATORS))
    report = analyze_tables(tables_of(sound), sound.probes)
    assert report.findings["broken"].undecided
    assert "ZeroDivisionError: no light" in report.findings["broken"].note
    assert any("broken" in text and "no light" in text for text in report.warnings)
    for family, finding in sound.findings.items():
        assert report.findings[family].score == finding.score
    assert report.metrics["ifa/health/broken"] == 0.5
    assert "cannot be told" in headline(report)


@pytest.mark.parametrize("indicator", INDICATORS, ids=lambda indicator: indicator.name)
def test_a_report_stands_whichever_family_fails(indicator, monkeypatch, sound):
    monkeypatch.setattr(indicator, "assess", fail, raising=False)
    report = analyze_tables(tables_of(sound), sound.probes)
    assert report.findings[indicator.name].undecided
    assert len(report.samples) == 150
    assert set(report.confounders.columns) >= {"source", "score", "note"}
    summary(report)


def test_a_report_of_families_that_all_fail_is_drawn(monkeypatch, sound, tmp_path):
    for indicator in INDICATORS:
        monkeypatch.setattr(indicator, "assess", fail, raising=False)
    report = analyze_tables(tables_of(sound), sound.probes)
    assert all(finding.undecided for finding in report.findings.values())
    report.to_html(tmp_path / "page.html")  # with the overview, which it draws


def test_warnings_of_one_family_reach_the_report(sound):
    table = sound.tables["validation"]
    grouped = replace(table, metadata=pd.DataFrame({"group": np.arange(len(table)) % 3}))
    _, found = assess_all(AnalysisContext({"validation": grouped}))
    assert any("with 3 values nothing can be significant" in text for text in found)


def test_trends_grow_by_one_point_a_family():
    trend = extend_trend({}, 0, {"a": Finding(np.float64(0.5), 1.0, 0.9)})
    trend = extend_trend(trend, 2, {"a": Finding(0.7, 4.0, 0.4)})
    assert trend == {"a": [TrendPoint(0, 0.5, 1.0), TrendPoint(2, 0.7, 4.0)]}
    assert type(trend["a"][0].score) is float
