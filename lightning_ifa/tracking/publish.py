"""Lay an analysis out as the files, images and tags that its MLflow run will hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_ifa import __version__
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.html import write_html
from lightning_ifa.report.overlay import probe_picture
from lightning_ifa.report.overview import overview_png
from lightning_ifa.report.summary import summary
from lightning_ifa.tracking.job import ARTIFACTS, Job
from lightning_ifa.tracking.names import slug
from lightning_ifa.tracking.run import SCALE_FILE, Run

log = logging.getLogger(__name__)

OUTLIERS_FILE, CONFOUNDERS_FILE = "ifa_outliers.json", "ifa_confounders.json"


@dataclass(frozen=True)
class Moment:
    """When an analysis was made.

    Attributes:
        epoch: Zero-based; the step of images, since epochs compare between runs of different batch sizes.
        step: At which Lightning logs the same analysis' metrics.
    """

    epoch: int
    step: int


def write_files(report: FeatureReport, folder: Path, moment: Moment) -> None:
    """Write what belongs at the run's root, replaced at each analysis, and the epoch's archive.

    Data comes first: if a picture cannot be drawn, it is missing, and nothing else is.

    Args:
        report: The report.
        folder: Receives the tables, the scale, ``ifa/epoch_0003/`` with the FeatureTables, ``ifa_summary.md``,
            ``ifa_overview.png`` and ``ifa_report.html``.
        moment: When it was made.
    """
    archive = folder / "ifa" / f"epoch_{moment.epoch:04d}"
    archive.mkdir(parents=True, exist_ok=True)
    for split, table in report.tables.items():
        table.save(archive / f"{split}.npz")
    report.outliers.to_json(folder / OUTLIERS_FILE, orient="split", index=False)
    report.confounders.to_json(folder / CONFOUNDERS_FILE, orient="split", index=False)
    (folder / SCALE_FILE).write_text(json.dumps(report.scale.to_dict()), encoding="utf-8")
    title = f"Integrated feature analysis, epoch {moment.epoch}"
    (folder / "ifa_summary.md").write_text(summary(report, title), encoding="utf-8")
    with _pictures_may_fail():
        picture = overview_png(report, title)
        (folder / "ifa_overview.png").write_bytes(picture)
        write_html(report, folder / "ifa_report.html", picture, title)


def write_job(report: FeatureReport, folder: Path, run: Run, moment: Moment, place: str = "") -> None:
    """Write a complete job for the sink: files, probe images, tags.

    Args:
        report: The report.
        folder: The job's folder.
        run: Where it will be uploaded.
        moment: When it was made.
        place: Where in the run, for what is not the main analysis of it: such have no tags and list no tables.
    """
    if place:
        write_files(report, folder / ARTIFACTS / "ifa" / place, moment)
        Job(run.run_id, run.tracking_uri, moment.epoch, _write_probes(report, folder, f"ifa/{place}/xai")).save(folder)
        return
    write_files(report, folder / ARTIFACTS, moment)
    validation = report.tables["validation"]
    tags = {
        "ifa.version": __version__,
        "ifa.layer": validation.layer,
        "ifa.cam": validation.cam,
        "ifa.step": str(moment.step),
        "ifa.dataset_digest": report.digest,
    }
    images = _write_probes(report, folder)
    Job(run.run_id, run.tracking_uri, moment.epoch, images, [OUTLIERS_FILE, CONFOUNDERS_FILE], tags).save(folder)


def _write_probes(report: FeatureReport, folder: Path, root: str = "ifa/xai") -> dict[str, str]:
    """Draw each probe; give file to image key."""
    (folder / "probes").mkdir(exist_ok=True)
    images = {}
    with _pictures_may_fail():
        for row, sample_id in enumerate(report.probes.table.sample_ids):
            name = slug(str(sample_id))
            probe_picture(report, row).save(folder / "probes" / f"{name}.png")
            images[f"probes/{name}.png"] = f"{root}/{name}"
    return images


@contextmanager
def _pictures_may_fail() -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever a plotting library throws: the numbers are worth more than their picture
        log.warning("a picture of the feature analysis could not be drawn", exc_info=True)
