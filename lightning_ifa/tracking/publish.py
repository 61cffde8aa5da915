"""Lay an analysis out as the files, images and tags that its MLflow run will hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lightning_ifa import __version__
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.html import write_html
from lightning_ifa.report.overlay import probe_picture
from lightning_ifa.report.overview import overview
from lightning_ifa.report.summary import summary
from lightning_ifa.tracking.job import ARTIFACTS, Job
from lightning_ifa.tracking.names import slug
from lightning_ifa.tracking.run import SCALE_FILE, Run

OUTLIERS_FILE, CONFOUNDERS_FILE = "ifa_outliers.json", "ifa_confounders.json"


@dataclass(frozen=True)
class Moment:
    """When an analysis was made.

    Attributes:
        epoch: Zero-based.
        step: At which Lightning logs the same analysis' metrics.
    """

    epoch: int
    step: int


def write_files(report: FeatureReport, folder: Path, moment: Moment) -> None:
    """Write what belongs at the run's root, replaced at each analysis, and the epoch's archive.

    Args:
        report: The report.
        folder: Receives ``ifa_overview.png``, ``ifa_summary.md``, ``ifa_report.html``, the tables, the scale and
            ``ifa/epoch_0003/`` with the FeatureTables.
        moment: When it was made.
    """
    archive = folder / "ifa" / f"epoch_{moment.epoch:04d}"
    archive.mkdir(parents=True, exist_ok=True)
    title = f"Integrated feature analysis, epoch {moment.epoch}"
    overview(report, title).savefig(folder / "ifa_overview.png", dpi=110)
    (folder / "ifa_summary.md").write_text(summary(report, title), encoding="utf-8")
    write_html(report, folder / "ifa_report.html", title)
    _write_table(report.outliers, folder / OUTLIERS_FILE)
    _write_table(report.confounders, folder / CONFOUNDERS_FILE)
    (folder / SCALE_FILE).write_text(json.dumps(report.scale.to_dict()), encoding="utf-8")
    for split, table in report.tables.items():
        table.save(archive / f"{split}.npz")


def write_job(report: FeatureReport, folder: Path, run: Run, moment: Moment) -> None:
    """Write a complete job for the sink: files, probe images, tags.

    Args:
        report: The report.
        folder: The job's folder.
        run: Where it will be uploaded.
        moment: When it was made.
    """
    write_files(report, folder / ARTIFACTS, moment)
    probes = folder / "probes"
    probes.mkdir(exist_ok=True)
    images = {}
    for row, sample_id in enumerate(report.probes.table.sample_ids):
        name = slug(str(sample_id))
        probe_picture(report, row).save(probes / f"{name}.png")
        images[f"probes/{name}.png"] = f"ifa/xai/{name}"
    validation = report.tables["validation"]
    tags = {
        "ifa.version": __version__,
        "ifa.layer": validation.layer,
        "ifa.cam": validation.cam,
        "ifa.step": str(moment.step),
        "ifa.dataset_digest": report.digest,
    }
    Job(run.run_id, run.tracking_uri, moment.step, images, [OUTLIERS_FILE, CONFOUNDERS_FILE], tags).save(folder)


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    frame.to_json(path, orient="split", index=False)
