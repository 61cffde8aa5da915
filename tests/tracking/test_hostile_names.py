"""Names that mean harm: nothing lands outside the folder, and MLflow takes every key."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from changed_reports import with_finding
from mlflow import MlflowClient
from models import PoolNet, loader, trained

from lightning_ifa.analysis import analyze
from lightning_ifa.comparison.compare import compare_tables
from lightning_ifa.comparison.rendering import comparison_html, comparison_png
from lightning_ifa.report.files import TABLES, write_data, write_pictures, write_sheet
from lightning_ifa.tracking.checkpoint import Moment
from lightning_ifa.tracking.job import upload
from lightning_ifa.tracking.job_writer import write_job
from lightning_ifa.tracking.run import Run

SCRIPT = "<script>alert(1)</script>"
NAMES = ["../../x", "/etc/passwd", "a\nb", "a/b//c", "💥", "x" * 10_000, SCRIPT, "..", "$x_{$", ""]


def renamed(table, names):
    """The table with its first samples called otherwise."""
    ids = table.sample_ids.astype(object)
    ids[: len(names)] = names
    return replace(table, sample_ids=np.asarray(ids, dtype=str))


@pytest.fixture(scope="module")
def report():
    found = analyze(
        trained(PoolNet()), loader(60, seed=5), loader(60, seed=1), probes=10, class_names=[SCRIPT, "../../x", "a\nb"]
    )
    tables = {split: renamed(table, NAMES) for split, table in found.tables.items()}
    probes = replace(
        found.probes, table=renamed(found.probes.table, NAMES), predicted=renamed(found.probes.predicted, NAMES)
    )
    samples = found.samples.assign(sample_id=np.concatenate([t.sample_ids for t in tables.values()]))
    samples.loc[:5, "kind"] = "foreign"
    samples.loc[samples["sample_id"] == SCRIPT, ["kind", "score", "duplicate_of"]] = ["near-duplicate", 99.0, "../../x"]
    candidates = found.confounders.assign(source=SCRIPT, note=f"{SCRIPT} | \n# x")
    alarm = {"score": 0.5, "z": 9.0, "health": 0.1, "details": {}}
    found = with_finding(found, "outliers", **alarm, tables={"samples": samples})
    found = with_finding(found, "confounding", **alarm, subject=SCRIPT, tables={"confounders": candidates})
    return replace(found, tables=tables, probes=probes)


def test_hostile_samples_and_classes_reach_the_run_and_nothing_else(report, store, tmp_path):
    client = MlflowClient(store)
    run = client.create_run(client.create_experiment("x", artifact_location=(tmp_path / "in/store").as_uri()))
    job = tmp_path / "in" / "spool" / "job"
    job.mkdir(parents=True)
    write_job(report, job, Run(run.info.run_id, store), Moment(0, 0), single_images=True, metrics=report.metrics)
    upload(job)
    outside = {path.name for path in tmp_path.iterdir()} - {"in", "mlflow.db"}
    assert not outside
    assert not list((tmp_path / "in" / "spool").iterdir())
    images = [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "images")]
    assert len({name.split("+")[0] for name in images if name.startswith("ifa~xai~")}) == len(NAMES)
    assert max(map(len, images)) < 255
    data = client.get_run(run.info.run_id).data
    assert set(report.metrics) == set(data.metrics)
    told = Path(client.download_artifacts(run.info.run_id, "ifa_summary.md", str(tmp_path / "in"))).read_text()
    assert told.strip() in data.tags["mlflow.note.content"]
    assert "script" in told  # it is told of
    assert not set("<>") & set(re.sub(r"\\.", "", told))
    assert [line for line in told.splitlines() if line.startswith("# ")] == [told.splitlines()[0]]
    page = Path(client.download_artifacts(run.info.run_id, "ifa_report.html", str(tmp_path / "in"))).read_text()
    assert SCRIPT not in page
    cams = Path(client.download_artifacts(run.info.run_id, "ifa_cams.json", str(tmp_path / "in"))).read_text()
    assert [row[0] for row in json.loads(cams)["data"]] == NAMES


def test_files_and_pictures_without_mlflow(report, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_sheet(report, folder)
    write_data(report, folder, 0)
    write_pictures(report, folder, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    root = {"ifa", "ifa_probes.png", "ifa_overview.png", "ifa_features.png", "ifa_gallery.png", "ifa_channels.png",
            "ifa_summary.md", "ifa_report.html", "ifa_review.csv", "ifa_scale.json", *TABLES}  # fmt: skip
    assert {path.name for path in folder.iterdir()} == root


def test_a_comparison_of_runs_with_such_names(report):
    labels = {SCRIPT: report.tables, "../../x\n💥": report.tables, "x" * 10_000: report.tables}
    found = compare_tables(labels)
    assert set(NAMES) & set(found.probe_ids)
    picture = comparison_png(found)
    assert picture.startswith(b"\x89PNG")
    page = comparison_html(found, picture)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert found.changes.to_json(orient="split")
