"""Panels that set the two splits against each other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.features import centred
from lightning_ifa.report.style import FAMILY, QUIET, SPLIT_COLOURS, bare, dress, head, place

WIDTH = 5.15
BINS = 36


def draw_evidence(figure: Figure, report: FeatureReport, left: float, top: float) -> None:
    """Draw the evidence for the truth of every sample, a curve a split; overfitting pulls them apart."""
    finding = report.findings.get("overfitting")
    gap = "margin over the next class; for regression, minus the absolute error"
    if finding is not None and not finding.undecided:
        gap = f"training lies {finding.details['margin_gap']:+.2f} sd from validation, within classes"
    head(figure, left, top, "Evidence for the truth", gap)
    axes = place(figure, left, top + 0.55, WIDTH, 1.25)
    parts = report.samples.groupby("split", sort=False)["evidence"]
    values = {str(split): part.dropna().to_numpy(np.float64) for split, part in parts}
    _draw_splits(axes, values)
    axes.legend(fontsize=8, frameon=False, loc="upper left", handlelength=1.2)


def draw_overfitted(figure: Figure, report: FeatureReport, left: float, top: float) -> None:
    """Draw the contributions of the channel that carries most of the gap, a curve a split."""
    found = report.overfitting_features
    if found.empty:
        head(figure, left, top, "Overfitted features", "cannot be told without training samples of the same classes")
        return
    worst = found.iloc[0]
    told = (
        f"carries {worst['share']:.0%} of the gap; within classes training lies {worst['gap']:+.2f} sd from validation"
    )
    head(figure, left, top, f"Most overfitted feature: channel {int(worst['feature'])}", told)
    axes = place(figure, left, top + 0.55, WIDTH, 1.05)
    _draw_splits(axes, centred(report, int(worst["feature"])))
    axes.set_xlabel(
        "contribution less the mean of its class, units of the score", fontsize=8, color=QUIET, family=FAMILY
    )


def _draw_splits(axes: Axes, values: dict[str, NDArray[np.float64]]) -> None:
    """Distributions of both splits over one range; the extreme thousandths are left out."""
    together = np.concatenate(list(values.values())) if values else np.empty(0)
    if not len(together):
        bare(axes)
        return
    low, high = np.quantile(together, (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    for split, found in values.items():
        colour = SPLIT_COLOURS[str(split)]
        height = np.histogram(found, edges)[0] / max(len(found), 1)
        axes.stairs(height, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(height, edges, color=colour, lw=1.6, label=str(split))
        axes.axvline(float(found.mean()), color=colour, lw=1.4, ls=(0, (3, 2)))
    dress(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
