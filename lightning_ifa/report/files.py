"""The files that make up a report, and how each is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from lightning_ifa.indicators.confounder_table import order_candidates
from lightning_ifa.report.figures.cam_overlay import own_map_panels
from lightning_ifa.report.figures.channel_page import channel_page
from lightning_ifa.report.figures.feature_page import feature_page
from lightning_ifa.report.figures.gallery_page import gallery_page
from lightning_ifa.report.figures.group_page import group_page
from lightning_ifa.report.figures.overview import overview_png
from lightning_ifa.report.figures.probe_card import contact_sheet, probe_picture
from lightning_ifa.report.figures.slice_page import slice_page
from lightning_ifa.report.html.page import write_html
from lightning_ifa.report.markdown import summary
from lightning_ifa.report.nifti import NIFTI_FOLDER, write_nifti
from lightning_ifa.report.prevention import list_for_review
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import png
from lightning_ifa.report.tables import as_json, cams_table, outliers_table

log = logging.getLogger(__name__)
SUMMARY_FILE, OVERVIEW_FILE, PAGE_FILE = "ifa_summary.md", "ifa_overview.png", "ifa_report.html"
FEATURES_FILE, GALLERY_FILE, SHEET_FILE = "ifa_features.png", "ifa_gallery.png", "ifa_probes.png"
GROUPS_FILE, SLICES_FILE, CHANNELS_FILE = "ifa_groups.png", "ifa_slices.png", "ifa_channels.png"
OUTLIERS_FILE, CONFOUNDERS_FILE, CAMS_FILE = "ifa_outliers.json", "ifa_confounders.json", "ifa_cams.json"
SCALE_FILE, REVIEW_FILE = "ifa_scale.json", "ifa_review.csv"

TABLES = (OUTLIERS_FILE, CONFOUNDERS_FILE, CAMS_FILE)
"""Tables that MLflow lays side by side for several runs."""


def write_data(report: AnalysisResult, folder: Path, epoch: int) -> None:
    """Write the tables and words that belong at the run's root, replaced at each analysis, and the epoch's archive.

    A file that cannot be written is missing, and nothing else is.

    Args:
        report: The report.
        folder: The folder that receives tables, scale, summary, and ``ifa/epoch_0003/`` with the FeatureTables.
        epoch: Zero-based epoch in which it was made.
    """
    archive = folder / "ifa" / f"epoch_{epoch:04d}"
    archive.mkdir(parents=True, exist_ok=True)
    for split, table in report.tables.items():
        with pictures_may_fail():
            table.save(archive / f"{split}.npz")
    if len(report.hidden):
        with pictures_may_fail():
            report.hidden.to_parquet(archive / "hidden.parquet")
    texts: dict[str, Callable[[], str]] = {
        OUTLIERS_FILE: lambda: as_json(outliers_table(report)),
        CONFOUNDERS_FILE: lambda: as_json(order_candidates(report.confounders)),
        CAMS_FILE: lambda: as_json(cams_table(report)),
        SCALE_FILE: lambda: json.dumps(report.scale.to_dict()),
        REVIEW_FILE: lambda: list_for_review(report).to_csv(index=False),
        SUMMARY_FILE: lambda: summary(report, epoch_title(epoch)),
    }
    for name, text in texts.items():
        with pictures_may_fail():
            (folder / name).write_text(text(), encoding="utf-8")


def write_pictures(report: AnalysisResult, folder: Path, epoch: int) -> None:
    """Write the pictures that belong at the run's root; one that cannot be drawn is missing, and nothing else is.

    Args:
        report: The report.
        folder: The folder that receives overview, page, feature page and gallery, and maps of volumes if asked for.
        epoch: Zero-based epoch in which it was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = epoch_title(epoch)
    picture: bytes | None = None
    with pictures_may_fail():
        picture = overview_png(report, title)
        (folder / OVERVIEW_FILE).write_bytes(picture)
    with pictures_may_fail():
        write_html(report, folder / PAGE_FILE, picture, title)
    with pictures_may_fail():
        (folder / FEATURES_FILE).write_bytes(png(feature_page(report, f"{title}: features")))
    with pictures_may_fail():
        (folder / GALLERY_FILE).write_bytes(png(gallery_page(report, f"{title}: samples")))
    if report.probes.grids is not None:
        with pictures_may_fail():
            write_nifti(report, folder / NIFTI_FOLDER)
    with pictures_may_fail():
        if len(report.subgroups):
            (folder / GROUPS_FILE).write_bytes(png(group_page(report, f"{title}: groups")))
    with pictures_may_fail():
        if len(report.slices):
            (folder / SLICES_FILE).write_bytes(png(slice_page(report, f"{title}: slices")))
    with pictures_may_fail():
        if report.channel_maps.maps:
            (folder / CHANNELS_FILE).write_bytes(png(channel_page(report, f"{title}: channels")))


def write_sheet(report: AnalysisResult, folder: Path) -> None:
    """Write the contact sheet of the probes as ``ifa_probes.png``, for runs without MLflow."""
    with pictures_may_fail():
        contact_sheet(probe_pictures(report)).save(folder / SHEET_FILE)


def epoch_title(epoch: int) -> str:
    """The title of an analysis within a training."""
    return f"Integrated feature analysis, epoch {epoch}"


def probe_pictures(report: AnalysisResult) -> list[Image.Image]:
    """Draw each probe."""
    return [probe_picture(report, row) for row in range(len(report.probes.table))]


def alarm_pictures(report: AnalysisResult) -> list[Image.Image]:
    """Draw the own map of each candidate that alarms."""
    subjects = [finding.subject for finding in report.findings.values() if finding.alarm and finding.subject]
    found = [own_map_panels(report, subject) for subject in subjects]
    return [contact_sheet([Image.fromarray(panel) for panel in panels]) for panels in found if panels]


@contextmanager
def pictures_may_fail() -> Iterator[None]:
    """Log a file that cannot be written, as a picture that cannot be drawn, and go on."""
    try:
        yield
    except Exception:  # whatever a plotting library throws: the numbers are worth more than their picture
        log.warning("a file of the feature analysis could not be made", exc_info=True)
