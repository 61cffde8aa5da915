"""Lay an analysis out as the files, images and tags that its MLflow run will hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lightning_ifa.report.figures.probe_card import contact_sheet
from lightning_ifa.report.files import SUMMARY_FILE, pictures_may_fail, probe_pictures, write_data, write_pictures
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.tables import TABLES
from lightning_ifa.tracking.checkpoint import Moment, record
from lightning_ifa.tracking.images import LOGGED_IMAGES, write_image
from lightning_ifa.tracking.job import ARTIFACTS, JOB_FILE, Job
from lightning_ifa.tracking.names import key_at, metrics_at, slug
from lightning_ifa.tracking.run import Run

SHEET_KEY, PROBE_KEY = "ifa/probes", "ifa/xai"


def write_job(
    report: AnalysisResult,
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
    write_data(report, root, moment.epoch)
    if pictures:
        write_pictures(report, root, moment.epoch)
    if not place:
        job.tables, job.tags = list(TABLES), record(report, moment.step, run.run_id).tags | LOGGED_IMAGES
        job.verdict = (files / SUMMARY_FILE).read_text(encoding="utf-8")
    if unlogged:
        metrics = metrics_at(place, report.metrics)
        job.metrics = [(key, value, job.timestamp, moment.step) for key, value in metrics.items()]
    with pictures_may_fail():
        probes = probe_pictures(report)
        write_image(files, contact_sheet(probes), key_at(place, SHEET_KEY), moment.epoch, job.timestamp)
        if singles:
            _write_each(report, probes, files, moment, place, job.timestamp)
    job.save(folder)


def write_picture_job(report: AnalysisResult, folder: Path, run: Run, moment: Moment, *, place: str = "") -> None:
    """Write a job of the pictures that ``write_job`` left out; arguments as there."""
    write_pictures(report, _root(folder / ARTIFACTS, place), moment.epoch)
    Job(run.run_id, run.tracking_uri).save(folder)


def write_singles(
    report: AnalysisResult, folder: Path, run: Run, moment: Moment, *, place: str = "", name: str = JOB_FILE
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
    with pictures_may_fail():
        _write_each(report, probe_pictures(report), folder / ARTIFACTS, moment, place, job.timestamp)
    job.save(folder, name)


def _root(files: Path, place: str) -> Path:
    return files / "ifa" / place if place else files


def probe_keys(report: AnalysisResult, place: str = "") -> list[str]:
    """Image keys of the probes."""
    return [key_at(place, f"{PROBE_KEY}/{slug(str(sample_id))}") for sample_id in report.probes.table.sample_ids]


def _write_each(
    report: AnalysisResult, pictures: Sequence[Image.Image], files: Path, moment: Moment, place: str, timestamp: int
) -> None:
    for key, picture in zip(probe_keys(report, place), pictures, strict=True):
        write_image(files, picture, key, moment.epoch, timestamp)
