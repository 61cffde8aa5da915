"""The panel of confounder suspects."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_ifa.exhibits import judged_suspects, leading_suspects, suspect_groups
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.confounding import RELIANCE_LIMIT
from lightning_ifa.report.strips import draw_strip
from lightning_ifa.report.style import BAD, FAINT, GOOD, dress, head, place, plain

MOST_SUSPECTS = 6


def draw_suspects(figure: Figure, report: FeatureReport, left: float, top: float) -> None:
    """Draw how much of the evidence runs through each suspect, and images at both ends of the strongest."""
    frame = judged_suspects(report).head(MOST_SUSPECTS)
    if frame.empty:
        head(figure, left, top, "Confounder suspects", "no metadata column and no plain background to test")
        return
    best = frame.iloc[0]
    head(figure, left, top, f"Strongest suspect: {plain(str(best['source']))}", told_of(report, best))
    axes = place(figure, left + 1.45, top + 0.6, 1.35, 1.15)
    rows = list(range(len(frame)))
    colours = [FAINT if o == "content" else BAD if s > RELIANCE_LIMIT else GOOD
               for o, s in zip(frame["origin"], frame["score"], strict=True)]  # fmt: skip
    axes.barh(rows, frame["score"].clip(lower=0), color=colours, height=0.66)
    axes.axvline(RELIANCE_LIMIT, color=BAD, lw=1.2)
    axes.set_yticks(rows, [plain(str(name), 20) for name in frame["source"]], parse_math=False)
    axes.invert_yaxis()
    dress(axes, "", "share of the evidence\n(gray: part of the object)")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    named = leading_suspects(report, 1)
    for number, group in enumerate(suspect_groups(report, named[0]) if named else []):
        area = place(figure, left + 3.15, top + 0.72 + number * 0.78, 2.7, 0.52)
        draw_strip(area, report, [("validation", int(row)) for row in group.rows], plain(group.name, 40))


def told_of(report: FeatureReport, suspect: pd.Series[Any]) -> str:
    """What was found about a suspect, in one line."""
    worst = int(suspect["worst_class"])
    told = f"{max(suspect['score'], 0):.1%} of the evidence between classes runs through it"
    if not 0 <= worst < len(report.class_names):
        return told
    return f"{told}, {suspect['worst_score']:.0%} of that of class {plain(report.class_names[worst], 16)}"
