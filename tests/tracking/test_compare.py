"""Runs compared out of a real store: what was archived is what is compared."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from models import PoolNet, loader, trained

import lightning_ifa
from lightning_ifa.analysis import analyze
from lightning_ifa.cli import main
from lightning_ifa.comparison import changes
from lightning_ifa.errors import DataError, TrackingError
from lightning_ifa.indicators.base import undecided
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.job import upload
from lightning_ifa.tracking.job_writer import write_job
from lightning_ifa.tracking.run import Run


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """How sure a change is has tests of its own."""
    monkeypatch.setattr(changes, "bootstrap_draws", partial(changes.bootstrap_draws, draws=10))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A store with runs of two seeds, of other data, and of none; the first run has an earlier epoch as well."""
    folder = tmp_path_factory.mktemp("archive")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("x", artifact_location=(folder / "artifacts").as_uri())
    reports = [
        analyze(trained(PoolNet(), seed=seed), loader(90, seed=5), loader(90, seed=1), probes=2) for seed in (0, 1)
    ]
    other = analyze(trained(PoolNet(), seed=2), loader(60, seed=6), probes=2)
    runs = {}
    for name, found in {
        "first": [other, reports[0]], "second": [reports[1]], "other": [other], "empty": [],
        "untold": [replace(reports[1], findings={**reports[1].findings, "overfitting": undecided("augmented")})],
    }.items():  # fmt: skip
        run = client.create_run(experiment, run_name=name)
        runs[name] = run.info.run_id
        for epoch, report in enumerate(found, 9):
            run_of = Run(run.info.run_id, client.tracking_uri)
            write_job(report, folder / "job", run_of, Moment(epoch, epoch), pictures=False)
            upload(folder / "job")
            if "overfitting" in report.findings:
                health = report.findings["overfitting"].health
                client.log_metric(run.info.run_id, "ifa/health/overfitting", health, step=epoch)
    return client, runs


def compared(archive, *names, **options):
    client, runs = archive
    return lightning_ifa.compare(*(runs[name] for name in names), tracking_uri=client.tracking_uri, **options)


def test_the_latest_analyses_are_compared(archive):
    found = compared(archive, "first", "second")
    assert [name.split()[0] for name in found.names] == ["first", "second"]
    assert found.feature_similarity["samples"][0] == 90
    assert not found.notes
    assert compared(archive, "first", "second").changes.equals(found.changes)


def test_a_family_that_the_run_could_not_tell_stays_untold(archive):
    found = compared(archive, "first", "untold").changes.set_index("family")
    assert found.loc["overfitting", "verdict"] == "cannot be told"
    assert found.loc["consistency", "verdict"] != "cannot be told"


def test_what_does_not_compare_is_refused(archive):
    client, runs = archive
    with pytest.raises(DataError, match="do not compare"):
        compared(archive, "first", "other")
    with pytest.raises(DataError, match="named twice"):
        compared(archive, "first", "first")
    with pytest.raises(TrackingError, match="archived no FeatureTables"):
        compared(archive, "first", "empty")
    with pytest.raises(TrackingError, match="not found"):
        lightning_ifa.compare(runs["first"], "0" * 32, tracking_uri=client.tracking_uri)


def test_the_command_line_prints_logs_and_writes(archive, tmp_path):
    client, runs = archive
    page = tmp_path / "compare.html"
    arguments = ["compare", runs["first"], runs["second"], "--tracking-uri", client.tracking_uri]
    for _ in range(2):  # the second time in place of the first
        done = CliRunner().invoke(main, [*arguments, "--log-to", runs["second"], "--html", str(page),
                                         "--figure", str(tmp_path / "compare.png")])  # fmt: skip
        assert done.exit_code == 0, done.output
    assert "compared to first" in done.output
    assert "within classes" in done.output
    assert page.read_text().startswith("<!doctype html>")
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    files = {file.path for file in client.list_artifacts(runs["second"])}
    assert {"ifa_compare.json", "ifa_compare.png", "ifa_compare.html"} <= files
    logged = json.loads(Path(client.download_artifacts(runs["second"], "ifa_compare.json", str(tmp_path))).read_text())
    assert set(logged) >= {"columns", "data"}
    tables = json.loads(client.get_run(runs["second"]).data.tags["mlflow.loggedArtifacts"])
    assert tables.count({"path": "ifa_compare.json", "type": "table"}) == 1
    refused = CliRunner().invoke(main, [*arguments[:2], runs["other"], *arguments[3:]])
    assert refused.exit_code == 2
    assert "not compared" in refused.output
    forced = CliRunner().invoke(main, [*arguments[:2], runs["other"], *arguments[3:], "--force"])
    assert forced.exit_code == 0
    assert "note: " in forced.output
