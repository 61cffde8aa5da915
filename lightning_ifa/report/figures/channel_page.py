"""Draw what a few channels see: crops and maps of the samples that drive them, and for whom they speak."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_ifa.report import style
from lightning_ifa.report.examples import shown_channels
from lightning_ifa.report.figures.cam_overlay import draw_panels, picture_layer
from lightning_ifa.report.figures.channel_views import Split, describe_field, driving_panels, list_splits
from lightning_ifa.report.result import AnalysisResult

WIDTH = 13.0
HIGH = 2.25  # inches of a channel's row
SIDE = 0.86  # inches of a picture
COLOURS = (style.BAD, style.TRAIN)


def channel_page(report: AnalysisResult, title: str = "What channels see") -> Figure:
    """Draw one row a channel: its mean contribution by class and side of the suspect, crops and maps beside it."""
    channels = shown_channels(report)
    figure = style.sheet(WIDTH, 1.6 + HIGH * len(channels), style.plain(title, 80))
    layer = picture_layer(figure)
    style.head(figure, 0.3, 0.75, "For whom a few channels speak, and where they look",
               "left, mean contribution to the explained class, with two standard errors; right, the samples to which "
               "the channel contributes most:")  # fmt: skip
    style.write(figure, 0.3, 1.13, describe_field(report), 8.5, style.QUIET)
    for number, (channel, why) in enumerate(channels.items()):
        top = 1.6 + HIGH * number
        style.head(figure, 0.3, top, f"Channel {channel}", style.plain(why, 60))
        splits = list_splits(report, channel)
        _draw_splits(style.place(figure, 1.6, top + 0.5, 3.3, HIGH - 1.05), splits)
        for place, pair in enumerate(driving_panels(report, channel, round(100 * SIDE))):
            for step, panel in enumerate(pair):
                draw_panels(layer, [panel], 5.35 + place * 1.25, top + 0.15 + step * (SIDE + 0.1), SIDE)
    return figure


def _draw_splits(axes: Axes, splits: list[Split]) -> None:
    labels = list(dict.fromkeys(found.label for found in splits))
    sides = list(dict.fromkeys(found.side for found in splits))
    axes.axvline(0, color=style.FAINT, lw=0.8, zorder=0)
    for number, side in enumerate(sides):
        part = [found for found in splits if found.side == side]
        shift = 0.16 * (2 * number - len(sides) + 1)
        rows = [labels.index(found.label) + shift for found in part]
        reach = [2 * found.error if found.error == found.error else 0.0 for found in part]
        axes.errorbar([found.mean for found in part], rows, xerr=reach, fmt="o", ms=4, lw=1.3,
                      color=COLOURS[number % 2] if side else style.INK, label=style.plain(side, 26))  # fmt: skip
    axes.set_ylim(len(labels) - 0.5, -0.5)
    style.dress(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    if sides != [""]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.03, 0.97), ncols=2, fontsize=7.5, frameon=False,
                    handlelength=0.8, columnspacing=1.0, handletextpad=0.4)  # fmt: skip
