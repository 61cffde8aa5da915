"""Draw the one-page overview of a report."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_ifa.report.figures.cam_overlay import probe_panels, strip
from lightning_ifa.report.figures.images import Pixels, fit_pixels
from lightning_ifa.report.figures.indicator_panel import draw_indicators
from lightning_ifa.report.figures.panels import (
    draw_candidates,
    draw_evidence,
    draw_overfitted,
    draw_selection,
    draw_spectrum,
)
from lightning_ifa.report.labels import describe_data, is_misclassified, probe_caption
from lightning_ifa.report.markdown import headline
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import BAD, INK, bare, colour_bar, head, place, plain, png, sheet, write

WIDTH, HEIGHT = 13.0, 11.3
MOST_PROBES = 8


def overview_png(report: AnalysisResult, title: str) -> bytes:
    """Draw the overview as a PNG file's content."""
    return png(overview(report, title))


def overview(report: AnalysisResult, title: str = "Integrated feature analysis") -> Figure:
    """Draw the verdict, with the title below it, and panels that show what each finding rests on.

    The families with their nulls, the evidence of both splits, the most overfitted feature, the probes on the common
    scale, the strongest candidate with its images, the number of features needed, the spectrum. The figure has its own
    canvas, independent of pyplot.
    """
    figure = sheet(WIDTH, HEIGHT, headline(report), f"{plain(title, 80)} · {describe_data(report)}")
    draw_indicators(figure, report, 0.3, 1.0, 6.85, 3.85)
    draw_evidence(figure, report, 7.55, 0.95)
    draw_overfitted(figure, report, 7.55, 3.1)
    _draw_probes(figure, report)
    draw_candidates(figure, report, 0.3, 9.0)
    draw_selection(figure, report, 6.6, 9.0)
    draw_spectrum(figure, report, 9.95, 9.0)
    return figure


def _draw_probes(figure: Figure, report: AnalysisResult) -> None:
    scale, table = report.scale, report.probes.table
    shown = range(min(MOST_PROBES, len(table)))
    ends = f"{scale.low:.2g} to {scale.high:.2g} a position"
    head(figure, 0.3, 5.15, "The same evidence, the same colour",
         f"maps of the probes on one scale for all images and all runs, {ends}; below, the map's sum")  # fmt: skip
    side, step = 1.36, 1.46
    high = 1 if report.probes.images is None else 2
    axes = place(figure, 0.3, 5.72, len(shown) * step - step + side, high * side + 0.04)
    panels = [probe_panels(report, row)[:high] for row in shown]
    axes.imshow(_columns(panels, round(100 * side), round(100 * (step - side))), aspect="auto")
    bare(axes)
    for row in shown:
        colour, weight = (BAD, "bold") if is_misclassified(report, row) else (INK, "normal")
        middle, below = 0.3 + row * step + side / 2, 5.72 + high * side + 0.1
        write(figure, middle, below, probe_caption(report, row), 9, colour, ha="center", weight=weight)
    bar_axes = place(figure, WIDTH - 0.72, 5.72, 0.13, high * side + 0.04)
    colour_bar(figure, scale.low, scale.high, 8, cax=bar_axes)


def _columns(columns: Sequence[Sequence[Pixels]], side: int, space: int) -> Pixels:
    """Stack each column's panels and put the columns beside each other: one picture is drawn faster than sixteen."""
    stacked = [strip([fit_pixels(panel, side, side).swapaxes(0, 1) for panel in column], 4) for column in columns]
    return strip([column.swapaxes(0, 1) for column in stacked], space)
