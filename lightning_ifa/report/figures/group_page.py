"""Draw how well the network does in each group of the metadata: accuracy with its interval, the worst group first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.report import style
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.metadata_groups import LEAST_SIZE

WIDTH = 10.0
MOST_GROUPS = 30
LINE = 0.27  # inches of a group's line
WORDS = {"too few": f"under {LEAST_SIZE}: not judged", "as expected": ""}
COLOURS = {"worse": style.BAD, "better": style.TRAIN, "as expected": style.INK, "too few": style.FAINT}


def group_page(report: AnalysisResult, title: str = "Groups of the metadata") -> Figure:
    """Draw the groups, the worst first; those too small to be judged come last, in gray."""
    groups = report.subgroups.head(MOST_GROUPS)
    figure = style.sheet(WIDTH, 1.95 + LINE * len(groups), style.plain(title, 80))
    worse = int((report.subgroups["judgement"] == "worse").sum())
    text = f"{worse} of {len(report.subgroups)} groups have more errors than their classes explain"
    left_out = len(report.subgroups) - len(groups)
    more = f"; the first {MOST_GROUPS} are shown" if left_out else ""
    style.head(figure, 0.3, 0.75, "Accuracy in each group, with its 95 % interval", text + more)
    axes = style.place(figure, 4.0, 1.4, WIDTH - 6.1, LINE * len(groups))
    _draw_groups(axes, groups)
    for row, group in enumerate(groups.to_dict("records")):
        judgement = str(group["judgement"])
        top = 1.4 + LINE * (row + 0.5)
        name = style.plain(f"{group['column']} = {group['group']}", 46)
        words = f"n = {group['size']}   {WORDS.get(judgement, judgement)}"
        style.write(figure, 3.85, top, name, 8.5, COLOURS[judgement], ha="right", va="center")
        style.write(figure, WIDTH - 1.95, top, words, 8.5, COLOURS[judgement], va="center")
    return figure


def _draw_groups(axes: Axes, groups: pd.DataFrame) -> None:
    rows = np.arange(len(groups))
    axes.barh(rows[::2], 1, height=1, left=0, color=style.WASH, zorder=0)
    axes.scatter(groups["expected"], rows, marker="|", s=110, color=style.UNKNOWN, linewidths=1.6, zorder=2,
                 label="accuracy that its classes have")  # fmt: skip
    for judgement, colour in COLOURS.items():
        chosen = (groups["judgement"] == judgement).to_numpy()
        found = groups[chosen]
        reach = np.abs(found[["low", "high"]].to_numpy().T - found["accuracy"].to_numpy())
        axes.errorbar(found["accuracy"], rows[chosen], xerr=reach, fmt="o", ms=4.5, color=colour, lw=1.4, zorder=3)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    low = float(groups[["low", "expected"]].min().min())
    axes.set_xlim(max(0.0, low - 0.03), 1.01)
    style.dress(axes, "", "accuracy", "")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    legend = axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False, handlelength=0.8)
    for words in legend.get_texts():
        words.set_color(style.QUIET)
