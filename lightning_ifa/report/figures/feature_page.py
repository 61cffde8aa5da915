"""Draw the page about features: their importance for each class, and the distribution of their contributions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from lightning_ifa.indicators.context import table_strata
from lightning_ifa.report import style
from lightning_ifa.report.examples import rank_features
from lightning_ifa.report.figures.violins import draw_violins
from lightning_ifa.report.labels import class_label, strongest_class
from lightning_ifa.report.result import AnalysisResult

WIDTH = 13.0
MOST_CHANNELS = 40
MOST_CLASSES = 10
VIOLINS = 4


def feature_page(report: AnalysisResult, title: str = "Features") -> Figure:
    """Draw the importance matrix of the most important channels, and violins of four by class and split."""
    classes = min(len(report.importance.classes), MOST_CLASSES)
    high = max(0.9, 0.24 * classes)
    figure = style.sheet(WIDTH, high + 7.3, style.plain(title, 80))
    channels = rank_features(report)
    text = (
        "mean contribution of a class less that of all, units of the score; blank where within two standard errors "
        f"of zero; the {min(MOST_CHANNELS, len(channels))} most important of {len(channels)} channels"
    )
    style.head(figure, 0.3, 0.75, "Importance of the features for the classes", text)
    _draw_importance(figure, report, channels[:MOST_CHANNELS], high)
    for number, channel in enumerate(_choose_violins(report)):
        left, top = 0.75 + (number % 2) * 6.3, high + 2.1 + (number // 2) * 2.7
        _draw_violins(figure, report, channel, left, top)
    return figure


def draw_importance(
    axes: Axes, report: AnalysisResult, channels: NDArray[np.int64], rows: NDArray[np.int64]
) -> AxesImage:
    """Draw the importance difference of some channels and classes; values within two standard errors stay blank."""
    found = report.importance
    values = (found.difference if len(found.classes) > 1 else found.matrix)[np.ix_(rows, channels)]
    error = np.nan_to_num(found.standard_error[np.ix_(rows, channels)])
    reach = float(np.abs(values).max(initial=0.0)) or 1.0
    shown = np.ma.masked_where(np.abs(values) <= 2 * error, values)
    image = axes.imshow(shown, cmap=style.DIVERGING, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    names = [style.plain(report.class_names[int(found.classes[row])], 16) for row in rows]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xticks(range(len(channels)), [str(channel) for channel in channels])
    return image


def _draw_importance(figure: Figure, report: AnalysisResult, channels: NDArray[np.int64], high: float) -> None:
    rows = np.sort(np.argsort(-report.importance.counts, kind="stable")[:MOST_CLASSES])
    axes = style.place(figure, 1.5, 1.3, WIDTH - 2.5, high)
    if not len(rows):
        style.bare(axes)
        axes.text(0, 0.5, "no sample is classified correctly", color=style.INK, family=style.FAMILY)
        return
    image = draw_importance(axes, report, channels, rows)
    style.dress(axes, "", "channel, most important first", "")
    axes.tick_params(axis="x", labelsize=7, labelrotation=90 if len(channels) > 30 else 0)
    axes.set_facecolor("#F4F5F6")
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, cax=style.place(figure, WIDTH - 0.85, 1.3, 0.12, high))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=style.INK, length=2)


def _choose_violins(report: AnalysisResult) -> list[int]:
    """Choose the channels that overfit most, then the most important ones."""
    overfitted = report.table("overfitting_features")["feature"].head(VIOLINS // 2).astype(int)
    return list(dict.fromkeys([*overfitted.tolist(), *rank_features(report).tolist()]))[:VIOLINS]


def _draw_violins(figure: Figure, report: AnalysisResult, channel: int, left: float, top: float) -> None:
    served, strength = strongest_class(report, channel)
    text = f"evidence {'for' if strength >= 0 else 'against'} {style.plain(served, 20)}" if served else ""
    style.head(figure, left - 0.45, top, f"Channel {channel}", text)
    groups, names = _class_contributions(report, channel)
    axes = style.place(figure, left, top + 0.5, 5.55, 1.55)
    axes.axhline(0, color=style.FAINT, lw=0.8, zorder=0)
    draw_violins(axes, groups)
    style.dress(axes, "", "", "contribution to the label")
    rotation = 25 if max(map(len, names), default=0) > 5 else 0
    axes.set_xticks(range(len(names)), names, parse_math=False, rotation=rotation)
    for number, (split, colour) in enumerate(style.SPLIT_COLOURS.items() if len(report.tables) > 1 else ()):
        style.write(figure, left + 4.2 + 0.55 * number, top + 0.21, split, 8.5, colour, weight="bold")


def _class_contributions(
    report: AnalysisResult, channel: int
) -> tuple[list[dict[str, NDArray[np.float32]]], list[str]]:
    """Give the contributions of the classes with most samples, split by split, and the classes' names."""
    labels = table_strata(report.tables)
    found, counts = np.unique(labels["validation"][labels["validation"] >= 0], return_counts=True)
    shown = np.sort(found[np.argsort(-counts, kind="stable")[:MOST_CLASSES]])
    groups = [
        {split: report.tables[split].contributions[rows == label, channel] for split, rows in labels.items()}
        for label in shown
    ]
    return groups, [class_label(report, int(label)) for label in shown]
