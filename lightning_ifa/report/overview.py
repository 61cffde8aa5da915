"""The one-page overview of a report."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.count_panels import draw_selection, draw_spectrum
from lightning_ifa.report.families import draw_families
from lightning_ifa.report.overlay import misclassified, probe_panels
from lightning_ifa.report.planes import Pixels, fitted
from lightning_ifa.report.split_panels import draw_evidence, draw_overfitted
from lightning_ifa.report.strips import strip
from lightning_ifa.report.style import (
    BAD,
    HEAT,
    INK,
    bare,
    head,
    place,
    plain,
    png,
    sheet,
    write,
)
from lightning_ifa.report.summary import headline
from lightning_ifa.report.suspect_panel import draw_suspects

WIDTH, HEIGHT = 13.0, 11.3
MOST_PROBES = 8


def overview_png(report: FeatureReport, title: str) -> bytes:
    """Draw the overview as a PNG file's content."""
    return png(overview(report, title))


def overview(report: FeatureReport, title: str = "Integrated feature analysis") -> Figure:
    """Draw the overview: what was found, and for each finding what is behind it.

    The families with their nulls, the evidence of both splits, the most overfitted feature, the probes on the common
    scale, the strongest suspect with its images, how many features carry the evidence, the spectrum.

    Args:
        report: The report.
        title: Shown below the verdict.

    Returns:
        A figure with its own canvas, independent of pyplot.
    """
    figure = sheet(WIDTH, HEIGHT, headline(report), f"{plain(title, 80)} · {described(report)}")
    draw_families(figure, report, 0.3, 1.0, 6.85, 3.85)
    draw_evidence(figure, report, 7.55, 0.95)
    draw_overfitted(figure, report, 7.55, 3.1)
    _draw_probes(figure, report)
    draw_suspects(figure, report, 0.3, 9.0)
    draw_selection(figure, report, 6.6, 9.0)
    draw_spectrum(figure, report, 9.95, 9.0)
    return figure


def described(report: FeatureReport) -> str:
    """What was analysed, in one line."""
    table = report.tables["validation"]
    samples = " and ".join(f"{len(found):,} {split}" for split, found in report.tables.items())
    layer = f"layer {plain(table.layer, 60)}, {table.contributions.shape[1]} channels"
    return f"{layer} · {plain(table.cam)} · {samples} samples · data {report.digest}"


def _draw_probes(figure: Figure, report: FeatureReport) -> None:
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
        colour, weight = (BAD, "bold") if misclassified(report, row) else (INK, "normal")
        middle, below = 0.3 + row * step + side / 2, 5.72 + high * side + 0.1
        write(figure, middle, below, caption(report, row), 9, colour, ha="center", weight=weight)
    bar_axes = place(figure, WIDTH - 0.72, 5.72, 0.13, high * side + 0.04)
    bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), HEAT), cax=bar_axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)


def _columns(columns: Sequence[Sequence[Pixels]], side: int, space: int) -> Pixels:
    """Stack each column's panels and put the columns beside each other: one picture is drawn faster than sixteen."""
    stacked = [strip([fitted(panel, side, side).swapaxes(0, 1) for panel in column], 4) for column in columns]
    return strip([column.swapaxes(0, 1) for column in stacked], space)


def caption(report: FeatureReport, row: int) -> str:
    """A probe's label, its evidence, and what it was taken for."""
    table, names = report.probes.table, report.class_names
    if table.targets.dtype.kind == "f":
        return f"{table.targets[row]:.3g}, predicted {table.predictions[row]:.3g}"
    text = f"{plain(names[int(table.explained[row])], 12)}: {table.intensity[row]:.1f}"
    guess = plain(names[int(report.probes.predicted.explained[row])], 8)
    return f"{text} → {guess}" if misclassified(report, row) else text
