"""Lay an analysis out as the files, images and tags that its MLflow run will hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lightning_ifa.checkpoint import record
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.contact_sheet import contact_sheet
from lightning_ifa.report.feature_page import feature_page
from lightning_ifa.report.gallery_page import gallery_page
from lightning_ifa.report.html import write_html
from lightning_ifa.report.overview import overview_png
from lightning_ifa.report.probe_card import probe_picture
from lightning_ifa.report.style import png
from lightning_ifa.report.summary import summary
from lightning_ifa.tracking.images import LOGGED_IMAGES, write_image
from lightning_ifa.tracking.job import ARTIFACTS, JOB_FILE, Job
from lightning_ifa.tracking.names import key_at, metrics_at, slug
from lightning_ifa.tracking.run import SCALE_FILE, Run
from lightning_ifa.tracking.tables import CAMS_FILE, CONFOUNDERS_FILE, OUTLIERS_FILE, TABLES, as_json, cams_table

log = logging.getLogger(__name__)

SUMMARY_FILE, OVERVIEW_FILE, SHEET_FILE = "ifa_summary.md", "ifa_overview.png", "ifa_probes.png"
SHEET_KEY, PROBE_KEY = "ifa/probes", "ifa/xai"


@dataclass(frozen=True)
class Moment:
    """When an analysis was made.

    Attributes:
        epoch: Zero-based; the step of images, since epochs compare between runs of different batch sizes.
        step: At which Lightning logs the same analysis' metrics.
    """

    epoch: int
    step: int


def write_data(report: FeatureReport, folder: Path, moment: Moment) -> None:
    """Write the tables and words that belong at the run's root, replaced at each analysis, and the epoch's archive.

    Args:
        report: The report.
        folder: Receives the tables, the scale, ``ifa/epoch_0003/`` with the FeatureTables, and ``ifa_summary.md``.
        moment: When it was made.
    """
    archive = folder / "ifa" / f"epoch_{moment.epoch:04d}"
    archive.mkdir(parents=True, exist_ok=True)
    for split, table in report.tables.items():
        table.save(archive / f"{split}.npz")
    tables = {OUTLIERS_FILE: report.outliers, CONFOUNDERS_FILE: report.confounders, CAMS_FILE: cams_table(report)}
    for name, frame in tables.items():
        (folder / name).write_text(as_json(frame), encoding="utf-8")
    (folder / SCALE_FILE).write_text(json.dumps(report.scale.to_dict()), encoding="utf-8")
    (folder / SUMMARY_FILE).write_text(summary(report, _title(moment)), encoding="utf-8")


def write_pictures(report: FeatureReport, folder: Path, moment: Moment) -> None:
    """Write the pictures that belong at the run's root; one that cannot be drawn is missing, and nothing else is.

    Args:
        report: The report.
        folder: Receives ``ifa_overview.png``, ``ifa_report.html``, ``ifa_features.png`` and ``ifa_gallery.png``.
        moment: When it was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = _title(moment)
    with _pictures_may_fail():
        picture = overview_png(report, title)
        (folder / OVERVIEW_FILE).write_bytes(picture)
        write_html(report, folder / "ifa_report.html", picture, title)
        (folder / "ifa_features.png").write_bytes(png(feature_page(report, f"{title}: features")))
        (folder / "ifa_gallery.png").write_bytes(png(gallery_page(report, f"{title}: samples")))


def write_job(
    report: FeatureReport,
    folder: Path,
    run: Run,
    moment: Moment,
    *,
    place: str = "",
    pictures: bool = True,
    singles: bool = False,
    unlogged: bool = False,
) -> None:
    """Write a complete job for the sink: files, the contact sheet of the probes, tags, description.

    Args:
        report: The report.
        folder: The job's folder.
        run: Where it will be uploaded.
        moment: When it was made.
        place: Where in the run, for what is not its main analysis: such have no tags, tables or description.
        pictures: Also write the pictures at the run's root.
        singles: Also write each probe as an image of its own.
        unlogged: The metrics did not reach the run by the logger, so they go with the job.
    """
    files = folder / ARTIFACTS
    job = Job(run.run_id, run.tracking_uri, tags=dict(LOGGED_IMAGES))
    root = _root(files, place)
    write_data(report, root, moment)
    if pictures:
        write_pictures(report, root, moment)
    if not place:
        job.tables, job.tags = list(TABLES), record(report, moment.step, run.run_id).tags | LOGGED_IMAGES
        job.verdict = (files / SUMMARY_FILE).read_text(encoding="utf-8")
    if unlogged:
        metrics = metrics_at(place, report.metrics)
        job.metrics = [(key, value, job.timestamp, moment.step) for key, value in metrics.items()]
    with _pictures_may_fail():
        probes = _probe_pictures(report)
        write_image(files, contact_sheet(probes), key_at(place, SHEET_KEY), moment.epoch, job.timestamp)
        if singles:
            _write_each(report, probes, files, moment, place, job.timestamp)
    job.save(folder)


def write_picture_job(report: FeatureReport, folder: Path, run: Run, moment: Moment, *, place: str = "") -> None:
    """Write a job of the pictures that ``write_job`` left out; arguments as there."""
    write_pictures(report, _root(folder / ARTIFACTS, place), moment)
    Job(run.run_id, run.tracking_uri).save(folder)


def write_sheet(report: FeatureReport, folder: Path) -> None:
    """Write the contact sheet of the probes as ``ifa_probes.png``, for runs without MLflow."""
    with _pictures_may_fail():
        contact_sheet(_probe_pictures(report)).save(folder / SHEET_FILE)


def write_singles(
    report: FeatureReport, folder: Path, run: Run, moment: Moment, *, place: str = "", name: str = JOB_FILE
) -> None:
    """Write a job of each probe as an image of its own.

    Args:
        report: The report.
        folder: The job's folder.
        run: Where it will be uploaded.
        moment: When the report was made.
        place: Where in the run.
        name: Of the job's description; other than usual, and nothing is uploaded until the file is renamed.
    """
    job = Job(run.run_id, run.tracking_uri, tags=dict(LOGGED_IMAGES))
    with _pictures_may_fail():
        _write_each(report, _probe_pictures(report), folder / ARTIFACTS, moment, place, job.timestamp)
    job.save(folder, name)


def _title(moment: Moment) -> str:
    return f"Integrated feature analysis, epoch {moment.epoch}"


def _root(files: Path, place: str) -> Path:
    return files / "ifa" / place if place else files


def probe_keys(report: FeatureReport, place: str = "") -> list[str]:
    """Image keys of the probes."""
    return [key_at(place, f"{PROBE_KEY}/{slug(str(sample_id))}") for sample_id in report.probes.table.sample_ids]


def _probe_pictures(report: FeatureReport) -> list[Image.Image]:
    return [probe_picture(report, row) for row in range(len(report.probes.table))]


def _write_each(
    report: FeatureReport, pictures: Sequence[Image.Image], files: Path, moment: Moment, place: str, timestamp: int
) -> None:
    for key, picture in zip(probe_keys(report, place), pictures, strict=True):
        write_image(files, picture, key, moment.epoch, timestamp)


@contextmanager
def _pictures_may_fail() -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever a plotting library throws: the numbers are worth more than their picture
        log.warning("a picture of the feature analysis could not be drawn", exc_info=True)
