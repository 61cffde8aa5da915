"""Draw the page of samples: outliers, and the images at both ends of each confounder candidate."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.report.examples import candidate_groups, duplicate_row, leading_candidates, outlier_rows, rows_of
from lightning_ifa.report.figures.cam_overlay import Place, draw_panels, picture_layer, sample_panels, strip
from lightning_ifa.report.labels import describe_candidate, sample_label
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import BAD, INK, QUIET, head, plain, scale_bar, sheet, write

WIDTH = 13.0
ACROSS, DOWN = 6, 2
CELL, SIDE = 2.1, 0.93  # inches of an outlier's cell, and of one of its pictures
CANDIDATE = 2.05  # inches of a candidate's block

WORDS = {
    "mislabelled": "label in doubt",
    "corrupted": "damaged image",
    "foreign": "foreign",
    "atypical": "atypical",
    "near-duplicate": "near copy of",
    "duplicate": "copy of",
}


def gallery_page(report: AnalysisResult, title: str = "Outliers and confounder candidates") -> Figure:
    """Draw the most suspicious samples beside their maps, and below them each leading candidate's two ends.

    Where inputs may not be shown, there are their maps only. A leaked sample stands beside its training duplicate.
    """
    outliers, candidates = outlier_rows(report, ACROSS * DOWN), leading_candidates(report)
    rows = max(1, -(-len(outliers) // ACROSS))
    below = 1.35 + rows * 1.65 + 0.25
    figure = sheet(WIDTH, below + max(len(candidates), 0.35) * CANDIDATE + 0.1, plain(title, 80))
    layer = picture_layer(figure)
    scale_bar(figure, report.scale.low, report.scale.high, WIDTH - 3.3, 0.32, 3.0)
    head(figure, 0.3, 0.75, f"Outliers: {len(report.outliers)} listed",
         "each sample beside its map; the most suspicious first, leaked ones in turn")  # fmt: skip
    for number, found in enumerate(outliers):
        _draw_outlier(figure, layer, report, found, 0.3 + number % ACROSS * CELL, 1.35 + number // ACROSS * 1.65)
    if not candidates:
        text = "no metadata column and no plain background to sort images by"
        head(figure, 0.3, below, "Confounder candidates", text)
    for number, source in enumerate(candidates):
        _draw_candidate(figure, layer, report, source, below + number * CANDIDATE)
    return figure


def _draw_outlier(figure: Figure, layer: Axes, report: AnalysisResult, found: Place, left: float, top: float) -> None:
    split, row = found
    sample = rows_of(report, split).iloc[row]
    duplicate = duplicate_row(report, split, row)
    panels = sample_panels(report, found)
    if duplicate is not None:
        panels = [panels[0], sample_panels(report, ("train", duplicate))[0]]
    draw_panels(layer, panels, left, top, SIDE)
    kind = WORDS.get(str(sample["kind"]), str(sample["kind"]))
    name = f"{kind} {sample['duplicate_of']}" if duplicate is not None else kind
    write(figure, left, top + SIDE + 0.05, plain(name, 24), 9, BAD, weight="bold")
    label = sample_label(report.tables[split], row, report.class_names)
    write(figure, left, top + SIDE + 0.21, plain(label, 26), 9, INK)
    score = "" if duplicate is not None else f" · {sample['score']:.1f} sd"
    write(figure, left, top + SIDE + 0.37, plain(f"{split} {sample['sample_id']}", 22) + score, 8, QUIET)


def _draw_candidate(figure: Figure, layer: Axes, report: AnalysisResult, source: str, top: float) -> None:
    candidate = report.confounders[report.confounders["source"] == source].iloc[0]
    features = ", ".join(map(str, candidate["features"]))
    channels = f"; acts through channels {features}" if features else ""
    head(figure, 0.3, top, f"Candidate: {plain(source)}", plain(describe_candidate(report, candidate) + channels, 150))
    for number, group in enumerate(candidate_groups(report, source)):
        panels = [strip(sample_panels(report, ("validation", int(row))), 0) for row in group.rows]
        left = 0.3 + number * 6.35
        write(figure, left, top + 0.5, plain(group.name, 50), 9, INK, weight="bold")
        draw_panels(layer, panels, left, top + 0.7, 0.74)
        for place_number, row in enumerate(group.rows):
            label = sample_label(report.tables["validation"], int(row), report.class_names)
            write(figure, left + place_number * 1.526, top + 1.49, plain(label, 18), 8.5, QUIET)
