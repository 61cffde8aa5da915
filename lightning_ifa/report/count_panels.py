"""Panels that say how many features it takes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.redundancy import component_variances
from lightning_ifa.report.features import evidence_kept
from lightning_ifa.report.style import FAINT, TRAIN, UNKNOWN, dress, head, place

WIDTH = 2.35
ENOUGH = 0.95


def draw_selection(figure: Figure, report: FeatureReport, left: float, top: float) -> None:
    """Draw how much of the evidence the most important channels carry, and how much random ones do."""
    best, drawn = evidence_kept(report)
    enough = int(np.argmax(best >= ENOUGH)) + 1 if (best >= ENOUGH).any() else len(best)
    head(
        figure, left, top, "How many features are enough", f"{enough} of {len(best)} carry the evidence (r ≥ {ENOUGH})"
    )
    axes = place(figure, left + 0.4, top + 0.6, WIDTH, 1.15)
    count = np.arange(1, len(best) + 1)
    axes.plot(count, best, color=TRAIN, lw=2, label="most important")
    axes.plot(count, drawn, color=UNKNOWN, lw=1.4, ls="--", label="random")
    axes.axhline(ENOUGH, color=FAINT, lw=1)
    axes.set_ylim(0, 1.04)
    _count_axis(axes, "channels kept", "correlation")
    axes.legend(fontsize=8, frameon=False, loc="lower right", handlelength=1.5)


def draw_spectrum(figure: Figure, report: FeatureReport, left: float, top: float) -> None:
    """Draw the share of the activations' variance in the first principal components."""
    variances = component_variances(report.tables["validation"].activations)
    reached = np.cumsum(variances) / max(float(variances.sum()), 1e-300)
    needed = int((reached < ENOUGH).sum() + 1)
    head(figure, left, top, "How many dimensions are used", f"{needed} of {len(reached)} hold 95 % of the variance")
    axes = place(figure, left + 0.4, top + 0.6, WIDTH, 1.15)
    axes.plot(np.arange(1, len(reached) + 1), reached, color=TRAIN, lw=2)
    axes.axhline(ENOUGH, color=FAINT, lw=1)
    axes.set_ylim(0, 1.04)
    _count_axis(axes, "principal components", "variance")


def _count_axis(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    dress(axes, "", xlabel, ylabel)
