"""Panels of the overview: both splits compared, the strongest candidate, selection curves and the spectrum."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from lightning_ifa.indicators.confounder_table import judged_candidates
from lightning_ifa.indicators.overfitting import Overfitting
from lightning_ifa.report import style
from lightning_ifa.report.examples import candidate_groups, leading_candidates
from lightning_ifa.report.feature_views import center_contributions, evidence_kept
from lightning_ifa.report.figures.cam_overlay import draw_strip
from lightning_ifa.report.labels import describe_candidate
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.channel_redundancy import component_variances
from lightning_ifa.statistics.confounder_candidates import RELIANCE_LIMIT

WIDTH = 5.15
BINS = 36


def draw_evidence(figure: Figure, report: AnalysisResult, left: float, top: float) -> None:
    """Draw the evidence for the truth of every sample, a curve a split; overfitting pulls them apart."""
    finding = report.findings.get(Overfitting.name)
    gap = "margin over the next class; for regression, minus the absolute error"
    if finding is not None and not finding.undecided:
        gap = f"training lies {finding.details['margin_gap']:+.2f} sd from validation, within classes"
    style.head(figure, left, top, "Evidence for the truth", gap)
    axes = style.place(figure, left, top + 0.55, WIDTH, 1.25)
    parts = report.samples.groupby("split", sort=False)["evidence"]
    values = {str(split): part.dropna().to_numpy(np.float64) for split, part in parts}
    _draw_splits(axes, values)
    axes.legend(fontsize=8, frameon=False, loc="upper left", handlelength=1.2)


def draw_overfitted(figure: Figure, report: AnalysisResult, left: float, top: float) -> None:
    """Draw the contributions of the channel with the largest share of the gap, a curve a split."""
    found = report.table("overfitting_features")
    if found.empty:
        text = "cannot be told without training samples of the same classes"
        style.head(figure, left, top, "Overfitted features", text)
        return
    worst = found.iloc[0]
    text = f"{worst['share']:.0%} of the gap; within classes training lies {worst['gap']:+.2f} sd from validation"
    style.head(figure, left, top, f"Most overfitted feature: channel {int(worst['feature'])}", text)
    axes = style.place(figure, left, top + 0.55, WIDTH, 1.05)
    _draw_splits(axes, center_contributions(report, int(worst["feature"])))
    label = "contribution less the mean of its class, units of the score"
    axes.set_xlabel(label, fontsize=8, color=style.QUIET, family=style.FAMILY)


def _draw_splits(axes: Axes, values: dict[str, NDArray[np.float64]]) -> None:
    """Draw the distributions of both splits over one range; the extreme thousandths are left out."""
    together = np.concatenate(list(values.values())) if values else np.empty(0)
    if not len(together):
        style.bare(axes)
        return
    low, high = np.quantile(together, (0.002, 0.998))
    edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    for split, found in values.items():
        colour = style.SPLIT_COLOURS[str(split)]
        height = np.histogram(found, edges)[0] / max(len(found), 1)
        axes.stairs(height, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(height, edges, color=colour, lw=1.6, label=str(split))
        axes.axvline(float(found.mean()), color=colour, lw=1.4, ls=(0, (3, 2)))
    style.dress(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


COUNT_WIDTH = 2.35
ENOUGH = 0.95


def draw_selection(figure: Figure, report: AnalysisResult, left: float, top: float) -> None:
    """Draw how much of the evidence the most important channels carry, and how much random ones do."""
    best, drawn = evidence_kept(report)
    if np.isnan(best).all():
        style.head(
            figure, left, top, "How many features are enough", "cannot be told: no sample is classified correctly"
        )
        return
    enough = int(np.argmax(best >= ENOUGH)) + 1 if (best >= ENOUGH).any() else len(best)
    text = f"{enough} of {len(best)} carry the evidence (r ≥ {ENOUGH})"
    style.head(figure, left, top, "How many features are enough", text)
    axes = style.place(figure, left + 0.4, top + 0.6, COUNT_WIDTH, 1.15)
    count = np.arange(1, len(best) + 1)
    axes.plot(count, best, color=style.TRAIN, lw=2, label="most important")
    axes.plot(count, drawn, color=style.UNKNOWN, lw=1.4, ls="--", label="random")
    _dress_counts(axes, "channels kept", "correlation")
    axes.legend(fontsize=8, frameon=False, loc="lower right", handlelength=1.5)


def draw_spectrum(figure: Figure, report: AnalysisResult, left: float, top: float) -> None:
    """Draw the share of the activations' variance in the first principal components."""
    variances = component_variances(report.tables["validation"].activations)
    reached = np.cumsum(variances) / max(float(variances.sum()), 1e-300)
    needed = int((reached < ENOUGH).sum() + 1)
    text = f"{needed} of {len(reached)} hold 95 % of the variance"
    style.head(figure, left, top, "How many dimensions are used", text)
    axes = style.place(figure, left + 0.4, top + 0.6, COUNT_WIDTH, 1.15)
    axes.plot(np.arange(1, len(reached) + 1), reached, color=style.TRAIN, lw=2)
    _dress_counts(axes, "principal components", "variance")


def _dress_counts(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Give axes of a share against a count a logarithmic scale, the line of what is enough, and labels."""
    axes.axhline(ENOUGH, color=style.FAINT, lw=1)
    axes.set_ylim(0, 1.04)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    style.dress(axes, "", xlabel, ylabel)


MOST_CANDIDATES = 6


def draw_candidates(figure: Figure, report: AnalysisResult, left: float, top: float) -> None:
    """Draw the share of the evidence that follows each candidate, and images at both ends of the strongest."""
    frame = judged_candidates(report.confounders).head(MOST_CANDIDATES)
    if frame.empty:
        style.head(figure, left, top, "Confounder candidates", "no metadata column and no plain background to test")
        return
    best = frame.iloc[0]
    title = f"Strongest candidate: {style.plain(str(best['source']))}"
    style.head(figure, left, top, title, describe_candidate(report, best))
    axes = style.place(figure, left + 1.45, top + 0.6, 1.35, 1.15)
    rows = list(range(len(frame)))
    colours = [style.FAINT if o == "content" else style.BAD if s > RELIANCE_LIMIT else style.GOOD
               for o, s in zip(frame["origin"], frame["score"], strict=True)]  # fmt: skip
    axes.barh(rows, frame["score"].clip(lower=0), color=colours, height=0.66)
    axes.axvline(RELIANCE_LIMIT, color=style.BAD, lw=1.2)
    axes.set_yticks(rows, [style.plain(str(name), 20) for name in frame["source"]], parse_math=False)
    axes.invert_yaxis()
    style.dress(axes, "", "share of the evidence\n(gray: part of the object)")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    leading = leading_candidates(report, 1)
    for number, group in enumerate(candidate_groups(report, leading[0]) if leading else []):
        area = style.place(figure, left + 3.15, top + 0.72 + number * 0.78, 2.7, 0.52)
        draw_strip(area, report, [("validation", int(row)) for row in group.rows], style.plain(group.name, 40))
