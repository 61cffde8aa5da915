"""Pictures of a decomposition: selection curves, the spectrum, the principal features."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ifa.decomposition.decompose import Decomposition
from lightning_ifa.indicators.redundancy import Redundancy
from lightning_ifa.report import style
from lightning_ifa.report.figures.images import gray_plane
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.channel_redundancy import component_variances
from lightning_ifa.statistics.channel_selection import ENOUGH_PERFORMANCE, ENOUGH_SIMILARITY
from lightning_ifa.statistics.intensity_scale import common_scale

SHOWN = {
    "channels, difference, zero": ("most important channels, rest zero", style.TRAIN, "-"),
    "channels, difference, mean": ("most important channels, rest their mean", style.TRAIN, "--"),
    "channels, difference, refill": ("most important channels, rest predicted", style.BAD, "-"),
    "channels, random, zero": ("random channels, rest zero", style.UNKNOWN, "-"),
    "channels, random, refill": ("random channels, rest predicted", style.UNKNOWN, ":"),
    "components, joint, mean": ("principal components", style.GOOD, "-"),
    "channels per class, difference, zero": ("most important channels of each class, rest zero", style.VALIDATION, "-"),
}
"""Curve to its legend, colour and line style; other curves are in the table only."""

MOST_PROBES = 6


def selection_figure(decomposition: Decomposition, title: str = "How many features are enough") -> Figure:
    """Draw performance and map similarity against the share kept; bands hold 90 % of the random draws."""
    figure = style.canvas(11, 4.4, title)
    left, right = figure.subplots(1, 2)
    for axes, what, full, limit in (
        (left, "performance", decomposition.full, ENOUGH_PERFORMANCE * decomposition.full),
        (right, "similarity", 1.0, ENOUGH_SIMILARITY),
    ):
        for name, part in decomposition.curves.groupby("curve", sort=False):
            if name in SHOWN:
                label, colour, line = SHOWN[str(name)]
                axes.plot(part["share"], part[what], color=colour, ls=line, lw=1.5, label=label)
                band = part[f"{what}_low"], part[f"{what}_high"]
                axes.fill_between(part["share"], *band, color=colour, alpha=0.15, lw=0)
        axes.axhline(limit, color=style.INK, lw=1, ls="--")
        axes.set_xscale("log")
        axes.set_ylim(min(0.0, 1.05 * full), 1.05 * full if full > 0 else 0.1)
    measure = decomposition.measure.capitalize()
    style.dress(left, f"{measure}, line at 99 % of the full network", "share of features kept")
    style.dress(right, f"Similarity of maps, line at {ENOUGH_SIMILARITY}", "share of features kept", "correlation")
    right.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def spectrum_figure(report: AnalysisResult, title: str = "How many dimensions the layer uses") -> Figure:
    """Draw the variance of the activations in the first components, and the similarity of the channels."""
    activations = report.tables["validation"].activations
    figure = style.canvas(10, 3.8, title)
    left, right = figure.subplots(1, 2)
    variances = component_variances(activations)
    reached = np.cumsum(variances) / max(float(variances.sum()), 1e-300)
    left.plot(np.arange(1, len(reached) + 1), reached, color=style.TRAIN)
    for share in (0.95, 0.99):
        left.axhline(share, color=style.FAINT, lw=1, ls="--")
    left.set_xscale("log")
    style.dress(left, f"Variance of {activations.shape[1]} channels", "principal components", "share of the variance")
    alive = activations[:, activations.std(0) > 0]
    if alive.shape[1] > 1:
        similar = np.abs(np.corrcoef(alive, rowvar=False))
        np.fill_diagonal(similar, 0)
        right.hist(similar.max(1), np.linspace(0, 1, 41).tolist(), color=style.TRAIN)
    finding = report.findings[Redundancy.name]
    style.dress(right, f"Redundancy score {finding.score:.2f}", "correlation with the most similar channel", "channels")
    return figure


def principal_figure(
    report: AnalysisResult, decomposition: Decomposition, method: str = "pca", title: str = "Principal features"
) -> Figure:
    """Draw one row a component of ``"pca"`` or ``"nmf"``: its classes, its map of the probes, its strongest samples.

    All maps share one symmetric colour scale, so that a component without effect looks like nothing.
    """
    found = decomposition.principal[method]
    count, probes = len(found.serves), min(MOST_PROBES, len(found.maps))
    strongest = 0 if found.images is None else found.images.shape[1]
    figure = style.canvas(2.6 + 1.15 * (probes + strongest), 1.2 + 1.15 * count, f"{title} ({method.upper()})")
    ratios = [2.0] + [1.0] * (probes + strongest)
    grid: Any = figure.subplots(count, len(ratios), squeeze=False, width_ratios=ratios)
    scale = common_scale(found.maps.reshape(-1, *found.maps.shape[2:]), "diverging")
    for j in range(count):
        _draw_label(grid[j, 0], report, found.components.shares[j], j, found.serves[j], found.strongest[j])
        for p in range(probes):
            image = style.flat_map(found.maps[p, j])
            shown = grid[j, 1 + p].imshow(image, cmap=style.DIVERGING, vmin=scale.low, vmax=scale.high)
        for s in range(strongest):
            assert found.images is not None
            grid[j, 1 + probes + s].imshow(gray_plane(found.images[j, s], found.maps[0, j]), cmap="gray")
        for axes in grid[j]:
            axes.axis("off")
    for p in range(probes):
        grid[0, 1 + p].set_title(f"probe {report.probes.table.sample_ids[p]}", fontsize=7, color=style.INK)
    if strongest:
        grid[0, 1 + probes].set_title("strongest", fontsize=7, color=style.INK)
    bar = figure.colorbar(shown, ax=grid[:, 1 : 1 + probes].ravel().tolist(), fraction=0.03, pad=0.01)
    bar.set_label("evidence a position", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_label(
    axes: Axes, report: AnalysisResult, share: float, number: int, serves: list[int], strongest: Any
) -> None:
    classes = ", ".join(report.class_names[k] for k in serves[:4]) or "no class above the others"
    lines = (f"{number + 1}: {share:.0%}", f"serves {classes}", f"samples {', '.join(map(str, strongest[:3]))}")
    axes.text(0, 0.5, "\n".join(lines), va="center", fontsize=7, color=style.INK, parse_math=False)
