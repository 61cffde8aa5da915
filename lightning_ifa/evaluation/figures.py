"""Figures about maps: the effect of the common scale, the importance matrix, and which maps can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from lightning_ifa.evaluation.cam_check import MapCheck
from lightning_ifa.report.examples import rank_features
from lightning_ifa.report.figures.feature_page import draw_importance
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import DIVERGING, HEAT, INK, canvas, colour_bar, dress, flat_map


def scale_figure(
    report: AnalysisResult, title: str = "The same maps, stretched one by one and on the common scale"
) -> Figure:
    """Draw each probe's map on its own range above the same map on the common scale, with the colour bar.

    Stretched one by one, an image without evidence glows like any other; on the common scale it stays dark.
    """
    table, scale = report.probes.table, report.scale
    figure = canvas(1.5 * len(table) + 1.4, 3.9, title)
    grid: Any = figure.subplots(2, len(table), squeeze=False)
    for column, cam in enumerate(table.cams):
        level = flat_map(cam)
        grid[0, column].imshow(level, cmap=HEAT)
        grid[1, column].imshow(scale.apply(level), cmap=HEAT, vmin=0, vmax=1)
        grid[0, column].set_title(f"{table.sample_ids[column]}", fontsize=7, color=INK, parse_math=False)
        grid[1, column].set_title(f"sum {table.intensity[column]:.1f}", fontsize=7, color=INK)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    grid[0, 0].set_ylabel("each its own", fontsize=8)
    grid[1, 0].set_ylabel("common scale", fontsize=8)
    bars = ((0, 1, "own minimum to maximum"), (scale.low, scale.high, "evidence a position"))
    for row, (low, high, label) in enumerate(bars):
        colour_bar(figure, low, high, 7, label, ax=grid[row].tolist(), fraction=0.02, pad=0.01)
    return figure


def importance_figure(report: AnalysisResult, title: str = "Importance of every channel for every class") -> Figure:
    """Draw the whole importance difference; entries within two standard errors of zero are left blank."""
    classes, channels = report.importance.classes, rank_features(report)
    figure = canvas(min(3 + 0.12 * len(channels), 16), 1.6 + 0.25 * max(len(classes), 1), title)
    axes = figure.subplots()
    if len(classes):
        image = draw_importance(axes, report, channels, np.arange(len(classes)))
        figure.colorbar(image, ax=axes, label="logits")
    dress(axes, "blank: within two standard errors of zero", "channels, most important first", "class")
    axes.set_xticks([])
    return figure


def trust_figure(check: MapCheck, title: str = "Which maps follow the logit") -> Figure:
    """Draw, for each layer, the correlation of map sum and logit by CAM method and display transform."""
    mean = check.agreement[check.agreement["reading"] == "mean"]
    layers = list(dict.fromkeys(mean["layer"]))
    figure = canvas(4.6 * len(layers) + 0.6, 3.8, title)
    for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        part = mean[mean["layer"] == layer]
        cells = part.pivot(index="method", columns="transform", values="pearson")
        cells = cells.loc[list(dict.fromkeys(part["method"])), list(dict.fromkeys(part["transform"]))]
        sns.heatmap(cells, ax=axes, cmap=DIVERGING, vmin=-1, vmax=1, annot=True, fmt=".2f", annot_kws={"size": 7},
                    cbar=layer == layers[-1], cbar_kws={"label": "Pearson, mean over classes"})  # fmt: skip
        dress(axes, f"Layer {layer}")
        axes.tick_params(axis="y", labelrotation=0)
    return figure
