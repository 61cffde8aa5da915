"""The five families on one axis: the first thing to look at."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.indicators.base import Finding
from lightning_ifa.report.markdown import verdict
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import BAD, FAINT, FAMILY, GOOD, QUIET, UNKNOWN, WASH, bare, place, write
from lightning_ifa.statistics.significance import Z_LIMIT

LEFT, RIGHT = -0.75, 3.0
"""Ends of the axis, in units of the limit; a score beyond is drawn at the end with its multiple written out."""

MARGIN = 2.75  # inches for signs, names and verdicts left of the axes
SIGNS = {"ALARM": "!", "cannot be told": "?", "nothing found": "✓"}


def colour_of(finding: Finding) -> str:
    """Green, red or gray; every verdict has a sign and words as well."""
    return BAD if finding.alarm else UNKNOWN if finding.undecided else GOOD


def draw_indicators(
    figure: Figure, report: AnalysisResult, left: float, top: float, width: float, height: float
) -> None:
    """One row a family: its null as a gray hill, its score as a dot, the alarm limit as one line for all.

    A small triangle below the axis marks the smallest score that would have alarmed with a chance of 80 %.

    Sign, name and verdict stand left of it, in letters that survive a thumbnail.

    Args:
        figure: A sheet.
        report: The report.
        left: Left edge of the panel, inches.
        top: Upper edge of the panel, inches.
        width: Width of the panel, inches.
        height: Height of the panel, inches.
    """
    families = list(report.findings)
    axes = place(figure, left + MARGIN, top, width - MARGIN, height)
    bare(axes)
    axes.set_xlim(LEFT, RIGHT)
    axes.set_ylim(len(families) - 0.5, -0.7)
    axes.axvspan(1, RIGHT, color="#FBEDE6", zorder=0)
    axes.axvline(1, color=BAD, lw=1.2, zorder=2)
    axes.axvline(0, color=FAINT, lw=1, zorder=1)
    step = height / (len(families) + 0.2)
    for row, family in enumerate(families):
        _draw_row(axes, report, family, row)
        _write_row(figure, family, report.findings[family], left, top + (row + 0.7) * step)
    options: dict[str, Any] = {"fontsize": 8, "family": FAMILY, "va": "bottom"}
    axes.text(1.04, -0.78, "alarm limit", color=BAD, ha="left", **options)
    axes.text(-0.04, -0.78, "nothing found", color=QUIET, ha="right", **options)


def _write_row(figure: Figure, family: str, finding: Finding, left: float, middle: float) -> None:
    colour = colour_of(finding)
    badge = {"boxstyle": "circle,pad=0.28", "fc": colour, "ec": "none"}
    write(figure, left + 0.22, middle, SIGNS[verdict(finding)], 17, "white", weight="bold", ha="center", va="center",
          bbox=badge)  # fmt: skip
    write(figure, left + 0.56, middle - 0.12, family, 17, weight="bold", va="center")
    words, ink = _verdict(finding, finding.score / finding.limit), colour if finding.alarm else QUIET
    write(figure, left + 0.57, middle + 0.17, words, 8.5, ink, va="center")


def _draw_row(axes: Axes, report: AnalysisResult, family: str, row: int) -> None:
    finding, colour = report.findings[family], colour_of(report.findings[family])
    base = row + 0.3
    axes.plot([LEFT, RIGHT], [base, base], color=WASH, lw=1, zorder=1)
    if finding.undecided:
        axes.text(0.06, row + 0.05, "no verdict possible", fontsize=8, color=QUIET, family=FAMILY, va="center")
        return
    expected = report.null(family)
    if expected is not None:
        axes.fill_between(expected.position, base, base - 0.72 * expected.density, color="#C3C9D0", lw=0, zorder=1)
        axes.plot([expected.bound] * 2, [base - 0.12, base + 0.12], color=QUIET, lw=1.2, zorder=3)
    else:
        axes.text(-0.06, base - 0.12, "counted: no null", fontsize=7.5, color=QUIET, family=FAMILY, ha="right")
    least = finding.detectable / finding.limit
    if least < RIGHT:
        axes.plot([least], [base + 0.07], marker="^", ms=5, color=QUIET, lw=0, zorder=2)
    limits = finding.score / finding.limit
    beyond = limits > RIGHT - 0.12
    shown = min(limits, RIGHT - 0.12)
    axes.plot([0, shown], [base, base], color=colour, lw=4, solid_capstyle="butt", zorder=3)
    axes.plot([shown], [base], marker=">" if beyond else "o", ms=11, color=colour, mec="white", mew=1.2, zorder=4)
    text = f"{finding.score:.3f}" + (f" = {limits:.1f} × limit" if limits > 1 else "")
    across = shown < 1 < shown + 0.5  # the limit's line
    ha = "right" if shown > RIGHT - 1 or across else "left"
    axes.text(shown + (0 if ha == "right" else 0.1), base - 0.3, text, fontsize=9, fontweight="bold", color=colour,
              ha=ha, va="center", family=FAMILY, zorder=5)  # fmt: skip


def _verdict(finding: Finding, limits: float) -> str:
    if finding.alarm and finding.z:
        return f"{verdict(finding)}, {finding.z:.0f} sd above its null"
    if not finding.alarm and not finding.undecided and limits > 1:
        return "above the limit, but no more than chance"
    if not finding.alarm and not finding.undecided and finding.z >= Z_LIMIT:
        return "below the limit, though no chance"
    return verdict(finding)
