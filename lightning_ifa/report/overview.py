"""The one-page overview of a report."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.confounding import RELIANCE_LIMIT
from lightning_ifa.indicators.outliers import THRESHOLD
from lightning_ifa.report.overlay import probe_caption, probe_panels
from lightning_ifa.report.style import BAD, DIVERGING, FAINT, GOOD, HEAT, INK, SPLIT_COLOURS, UNKNOWN, dress

MOST_CHANNELS = 24
MOST_SUSPECTS = 8
SHORT_BAR = 0.3  # a bar that its text would not fit in


def overview_png(report: FeatureReport, title: str) -> bytes:
    """Draw the overview as a PNG file's content."""
    buffer = io.BytesIO()
    overview(report, title).savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def overview(report: FeatureReport, title: str = "Integrated feature analysis") -> Figure:
    """Draw the overview: health, evidence of both splits, suspects, probes on the common scale, outliers, features.

    Args:
        report: The report.
        title: Shown on top.

    Returns:
        A figure with its own canvas, independent of pyplot.
    """
    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, x=0.01, ha="left", fontweight="bold", color=INK)
    rows: Any = figure.subfigures(3, 1, height_ratios=(3, 2.6, 3))
    top = rows[0].subplots(1, 3)
    draw_health(top[0], report)
    draw_evidence(top[1], report)
    draw_suspects(top[2], report)
    _draw_probes(rows[1], report)
    bottom = rows[2].subplots(1, 2, width_ratios=(1, 2))
    draw_outliers(bottom[0], report)
    draw_importance(bottom[1], report)
    return figure


def draw_health(axes: Axes, report: FeatureReport) -> None:
    """One bar a family, 1 = good; below the line is an alarm, exactly on it cannot be told."""
    families = list(report.findings)[::-1]
    for row, family in enumerate(families):
        finding = report.findings[family]
        colour = BAD if finding.alarm else UNKNOWN if finding.undecided else GOOD
        axes.barh(row, finding.health, color=colour, height=0.62)
        text = "cannot be told" if finding.undecided else f"score {finding.score:.3f}"
        beside = finding.health < SHORT_BAR
        x, ink = (finding.health + 0.02, INK) if beside else (0.02, "white")
        axes.text(x, row, text, va="center", fontsize=8, color=ink, fontweight="bold")
    axes.axvline(0.5, color=INK, lw=1, ls="--")
    axes.set_yticks(range(len(families)), families)
    axes.set_xlim(0, 1)
    dress(axes, "Health", "below 0.5 = alarm, 1 = nothing found")


def draw_evidence(axes: Axes, report: FeatureReport) -> None:
    """Distribution of the evidence for the truth in each split; overfitting pulls them apart."""
    bins: Any = np.histogram_bin_edges(report.samples["evidence"].dropna(), bins=40)
    for split, rows in report.samples.groupby("split"):
        values = rows["evidence"].to_numpy()
        axes.hist(values, bins, density=True, histtype="stepfilled", alpha=0.45, label=str(split),
                  color=SPLIT_COLOURS[str(split)])  # fmt: skip
    axes.set_yticks([])
    axes.legend(fontsize=8, frameon=False)
    finding = report.findings.get("overfitting")
    verdict = "" if finding is None or finding.undecided else f": gap {finding.score:.2f} sd, z {finding.z:.1f}"
    dress(
        axes,
        f"Evidence for the true class{verdict}",
        "margin over the next class; for regression, minus the absolute error",
    )


def draw_suspects(axes: Axes, report: FeatureReport) -> None:
    """Share of the evidence that runs through each suspect; faint ones may well belong to the class."""
    frame = report.confounders.dropna(subset="score")
    frame = frame.sort_values("origin", key=lambda origin: origin == "content", kind="stable")
    frame = frame.head(MOST_SUSPECTS)[::-1]
    labels = []
    for row, (source, origin, score) in enumerate(zip(frame["source"], frame["origin"], frame["score"], strict=True)):
        colour = FAINT if origin == "content" else BAD if score > RELIANCE_LIMIT else GOOD
        axes.barh(row, score, color=colour, height=0.62)
        labels.append(f"{source} ({origin})")
    axes.axvline(RELIANCE_LIMIT, color=INK, lw=1, ls="--")
    axes.set_yticks(range(len(labels)), labels)
    dress(axes, "Confounder suspects", f"share of the evidence, alarm above {RELIANCE_LIMIT}")


def draw_outliers(axes: Axes, report: FeatureReport) -> None:
    """Outlier score of each sample, in robust standard deviations."""
    # the colours of the splits are explained beside the evidence
    for split, rows in report.samples.groupby("split"):
        values = np.sort(rows["score"].dropna().to_numpy())[::-1]
        if not len(values):
            continue
        axes.set_xscale("log")
        axes.plot(
            np.arange(1, len(values) + 1) / len(values),
            values,
            color=SPLIT_COLOURS[str(split)],
        )
    axes.axhline(THRESHOLD, color=INK, lw=1, ls="--")
    dress(axes, f"Outliers: {len(report.outliers)} listed", "share of samples", "outlier score, robust sd")


def draw_importance(axes: Axes, report: FeatureReport) -> None:
    """Importance difference of the most telling channels: which features speak for which class."""
    importance = report.importance
    if len(importance.classes):
        strongest = np.argsort(-np.abs(importance.difference).max(0))[:MOST_CHANNELS]
        values = importance.difference[:, strongest]
        names = [report.class_names[k] for k in importance.classes]
        reach = float(np.abs(values).max())
        image = axes.imshow(values, cmap=DIVERGING, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(strongest)), [str(channel) for channel in strongest])
        axes.set_yticks(range(len(names)), names)
        axes.figure.colorbar(image, ax=axes, label="logits")
    dress(axes, "Importance difference: mean contribution of a class minus that of all", "channel", "class")


def _draw_probes(figure: Any, report: FeatureReport) -> None:
    count = len(report.probes.table)
    grid = figure.subplots(1, count + 1, width_ratios=[*[1] * count, 0.06])
    for row, axes in enumerate(np.atleast_1d(grid)[:-1]):
        axes.imshow(np.concatenate(probe_panels(report, row)[:2], axis=0))
        axes.set_title(probe_caption(report, row), fontsize=8, color=INK)
        axes.axis("off")
    scale = report.scale
    mappable = ScalarMappable(Normalize(scale.low, scale.high), HEAT)
    bar = figure.colorbar(mappable, cax=grid[-1])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("evidence a position", fontsize=8)
    figure.suptitle("Probes on the common intensity scale", fontsize=10, x=0.01, ha="left", fontweight="bold")
