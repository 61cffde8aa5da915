"""What a person sees in MLflow: the dashboard, the same probes side by side, the tables, the report."""

from __future__ import annotations

import pytest
from browser_names import EVIL, RUNS

MLFLOWS_OWN = "mlflow/users/current"  # asked for by every page of a server without authentication

PROBES_SHOWN = """
  [...document.images].filter((image) => image.naturalWidth > 0 && image.src.includes("ifa~xai~"))
    .map((image) => { const url = new URL(image.src);
      const [, probe, step] = url.searchParams.get("path").match(/ifa~xai~([^+]+)[+]step[+](\\d+)/);
      return [probe, Number(step),
              url.searchParams.get("run_id") ?? url.searchParams.get("run_uuid")]; })
"""


def errors(page):
    return [error for error in page.errors if MLFLOWS_OWN not in error]


def test_the_saved_view_opens_on_health_and_every_runs_latest_probes(trained, chromium):
    chromium.resize(1600, 2600)
    chromium.open(trained.view)
    chromium.wait_for("document.body.innerText.includes('ifa/health/overfitting')", "health of the runs")
    text = chromium.evaluate("document.body.innerText")
    assert {"overfitting", "confounding", "The same probes"} <= set(map(str.strip, text.splitlines()))
    wanted = {
        (file.path.split("ifa~xai~")[1].split("+")[0], 1, run)
        for run in trained.runs.values()
        for file in trained.client.list_artifacts(run, "images")
        if "ifa~xai~" in file.path
    }
    assert len(wanted) == 2 * 8
    chromium.wait_for(f"({PROBES_SHOWN}).length >= {len(wanted)}", "probe images of both runs")
    assert {tuple(shown) for shown in chromium.evaluate(PROBES_SHOWN)} == wanted
    assert not errors(chromium)


def test_tables_of_both_runs_stand_side_by_side(trained, chromium):
    chromium.open("about:blank")
    chromium.open(f"{trained.uri}/#/experiments/{trained.experiment}/runs?compareRunsMode=ARTIFACT")
    wanted = ["Group by:", "ifa_", *RUNS]
    chromium.wait_for(f"{wanted}.every((word) => document.body.innerText.includes(word))", "table of both runs")
    assert not errors(chromium)


@pytest.fixture
def report(trained, chromium):
    """The report of the first run in MLflow's artifact viewer: the page, and its frame's context."""
    chromium.resize(1600, 1200)
    chromium.open("about:blank")
    run = trained.runs[RUNS[0]]
    chromium.open(f"{trained.uri}/#/experiments/{trained.experiment}/runs/{run}/artifacts/ifa_report.html")
    filled = "document.querySelectorAll('#features tbody tr').length > 1"
    return chromium, chromium.frame_context(filled, "table of features")


def test_the_report_runs_in_mlflows_frame_and_sorts(report):
    page, frame = report
    column = "[...document.querySelectorAll('#features tbody tr')].map((row) => Number(row.cells[2].dataset.value))"
    click = "document.querySelectorAll('#features th button')[2].click()"
    before = page.evaluate(column, frame)
    page.evaluate(click, frame)
    assert page.evaluate(column, frame) == sorted(before, reverse=True)
    page.evaluate(click, frame)
    assert page.evaluate(column, frame) == sorted(before)
    assert not errors(page)


def test_the_report_filters_outliers_and_shows_a_features_distribution(report):
    page, frame = report
    shown = "[...document.querySelectorAll('#outliers tbody tr')].filter((row) => !row.hidden).length"
    every = page.evaluate(shown, frame)
    assert every > 0
    page.evaluate(
        "(() => { const box = document.querySelector('.controls[data-for=outliers] input'); box.value = 'no such';"
        " box.dispatchEvent(new Event('input', { bubbles: true })); })()",
        frame,
    )
    assert page.evaluate(shown, frame) == 0
    chosen = page.evaluate(
        "(() => { const row = document.querySelectorAll('#features tbody tr')[1];"
        " row.dispatchEvent(new Event('mouseenter')); return row.dataset.feature; })()",
        frame,
    )
    assert page.evaluate("document.querySelector('#feature h3').textContent", frame) == f"Channel {chosen}"
    assert page.evaluate("document.querySelectorAll('#feature svg path').length", frame) == 2
    assert not errors(page)


def test_markup_in_a_class_name_stays_text(report):
    page, frame = report
    assert page.evaluate("document.title", frame) != "owned"
    assert EVIL[:8] in page.evaluate("document.body.innerText", frame)
    assert page.evaluate("document.scripts.length", frame) == 2
