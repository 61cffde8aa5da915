"""Lay an analysis out as the files, images and tags that its MLflow run will hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from PIL import Image

from lightning_ifa.report.figures.probe_card import add_heading, contact_sheet
from lightning_ifa.report.files import (
    SUMMARY_FILE,
    TABLES,
    alarm_pictures,
    pictures_may_fail,
    probe_pictures,
    write_data,
    write_pictures,
)
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.tracking.checkpoint import Moment, record
from lightning_ifa.tracking.datasets import describe_inputs
from lightning_ifa.tracking.images import LOGGED_IMAGES, write_image
from lightning_ifa.tracking.job import ARTIFACTS, JOB_FILE, Job, begin
from lightning_ifa.tracking.names import key_at, slug
from lightning_ifa.tracking.run import Run
from lightning_ifa.tracking.saved_view import ViewWish

SHEET_KEY, PROBE_KEY, OWN_MAP_KEY = "ifa/probes", "ifa/xai", "ifa/own_map"


def write_job(
    report: AnalysisResult,
    folder: Path,
    run: Run,
    moment: Moment,
    *,
    prefix: str = "",
    pictures: bool = True,
    single_images: bool = False,
    metrics: Mapping[str, float] | None = None,
    doubtful: bool = False,
    sources: Mapping[str, str] | None = None,
    view: ViewWish | None = None,
    shown: Collection[str] | None = None,
) -> set[str]:
    """Write a complete job for the spool: files, the contact sheet of the probes, tags, description.

    Args:
        report: The report.
        folder: The job's folder.
        run: The run that the job will be uploaded to.
        moment: Epoch and step of the analysis.
        prefix: Prefix of keys and paths, for what is not the run's main analysis: such a job has no tags, tables or
            description.
        pictures: Whether to write the pictures at the run's root.
        single_images: Whether to write each probe as an image of its own, too.
        metrics: The metrics that go with the job, by their keys in the run, since no logger brings them there.
        doubtful: Whether it is not known if the run has them already.
        sources: Split to what its samples come from, where they are to become inputs of the run.
        view: The saved view that the experiment is to have.
        shown: Keys of the images that the run has of earlier analyses. An image of another key goes to step 0 too,
            where MLflow's sliders stand at first, with its epoch written above it. None: no image does.

    Returns:
        Keys of the sheet and of the maps of alarms, as far as they could be drawn.
    """
    begin(folder)
    files = folder / ARTIFACTS
    job = Job.of(run, tags=dict(LOGGED_IMAGES), view=view)
    if sources is not None:
        job.inputs = describe_inputs(report, sources, prefix)
    root = _root(folder, prefix)
    write_data(report, root, moment.epoch)
    if pictures:
        write_pictures(report, root, moment.epoch)
    if not prefix:
        job.tables = [name for name in TABLES if (files / name).exists()]
        job.tags = record(report, moment.step, run.run_id).tags | LOGGED_IMAGES
        if (files / SUMMARY_FILE).exists():
            job.verdict = (files / SUMMARY_FILE).read_text(encoding="utf-8")
    job.metrics = [(key, value, job.timestamp, moment.step) for key, value in (metrics or {}).items()]
    job.doubtful = doubtful
    images: dict[str, Image.Image] = {}
    with pictures_may_fail():
        for number, picture in enumerate(alarm_pictures(report)):
            key = OWN_MAP_KEY if not number else f"{OWN_MAP_KEY}_{number}"
            images[key_at(prefix, key)] = picture
    with pictures_may_fail():
        probes = probe_pictures(report)
        images[key_at(prefix, SHEET_KEY)] = contact_sheet(probes)
        for key, picture in images.items():
            write_image(files, picture, key, moment.epoch, job.timestamp)
            if moment.epoch and shown is not None and key not in shown:
                write_image(files, add_heading(picture, f"epoch {moment.epoch}"), key, 0, job.timestamp)
        if single_images:
            _write_each(report, probes, files, moment, prefix, job.timestamp)
    job.save(folder)
    return set(images)


def write_picture_job(report: AnalysisResult, folder: Path, run: Run, moment: Moment, *, prefix: str = "") -> None:
    """Write a job of the pictures that ``write_job`` left out; arguments as there."""
    begin(folder)
    write_pictures(report, _root(folder, prefix), moment.epoch)
    Job.of(run).save(folder)


def write_single_images(
    report: AnalysisResult, folder: Path, run: Run, moment: Moment, *, prefix: str = "", name: str = JOB_FILE
) -> None:
    """Write a job of each probe as an image of its own; arguments as for ``write_job``.

    Under another ``name`` for the job's description nothing is uploaded until that file is renamed.
    """
    begin(folder)
    job = Job.of(run, tags=dict(LOGGED_IMAGES))
    with pictures_may_fail():
        _write_each(report, probe_pictures(report), folder / ARTIFACTS, moment, prefix, job.timestamp)
    job.save(folder, name)


def probe_keys(report: AnalysisResult, prefix: str = "") -> list[str]:
    """Give the image keys of the probes."""
    return [key_at(prefix, f"{PROBE_KEY}/{slug(str(sample_id))}") for sample_id in report.probes.table.sample_ids]


def _root(folder: Path, prefix: str) -> Path:
    return folder / ARTIFACTS / "ifa" / prefix if prefix else folder / ARTIFACTS


def _write_each(
    report: AnalysisResult, pictures: Sequence[Image.Image], files: Path, moment: Moment, prefix: str, timestamp: int
) -> None:
    for key, picture in zip(probe_keys(report, prefix), pictures, strict=True):
        write_image(files, picture, key, moment.epoch, timestamp)
