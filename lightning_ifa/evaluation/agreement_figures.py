"""Figures of agreement: map levels and logits, scale and images, importance in two places, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.errors import DataError
from lightning_ifa.evaluation.cam_check import MapCheck
from lightning_ifa.evaluation.layers import mean_map
from lightning_ifa.indicators.context import importance_mask
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import BAD, GOOD, HEAT, INK, TRAIN, UNKNOWN, VALIDATION, canvas, dress, flat_map
from lightning_ifa.statistics.bland_altman import BlandAltman, bland_altman
from lightning_ifa.statistics.importance import Importance, importance
from lightning_ifa.statistics.intensity_scale import common_scale, scale_percentiles

MOST_CLASSES = 4
MOST_PROBES = 6


def level_figure(check: MapCheck, method: str, title: str = "Map sum and logit") -> Figure:
    """Draw each class's map sum against its logit over all samples, with correlation and the sum's AUROC.

    Args:
        check: What ``check_maps`` gave.
        method: Name of the CAM method.
        title: Title of the figure.

    Raises:
        DataError: The check has no such method.
    """
    part = check.levels[check.levels["method"] == method]
    if part.empty:
        raise DataError(f"the check has no method {method!r}; it has {sorted(set(check.levels['method']))}")
    part = part[part["layer"] == part["layer"].iloc[0]]
    classes = list(dict.fromkeys(part["class"]))[:MOST_CLASSES]
    figure = canvas(3.2 * len(classes) + 0.6, 3.4, title)
    for axes, number in zip(figure.subplots(1, len(classes), squeeze=False)[0], classes, strict=True):
        own = part[part["class"] == number]
        for member, colour, label in ((False, UNKNOWN, "others"), (True, VALIDATION, "of this class")):
            shown = own[own["member"] == member]
            axes.scatter(shown["logit"], shown["level"], s=9, c=colour, alpha=0.7, lw=0, label=label)
        words = f"r = {_correlation(own):.2f}, AUROC {_auroc(own):.2f}"
        dress(axes, f"class {number}: {words}", "logit", "sum of the map")
    axes.legend(fontsize=7, frameon=False)
    return figure


def percentile_figure(report: AnalysisResult, title: str = "Where the common scale's ends come from") -> Figure:
    """Draw the distribution of the validation maps' maxima and minima, their percentiles, and the scale's ends."""
    cams = report.tables["validation"].cams
    flat, table = cams.reshape(len(cams), -1), scale_percentiles(cams)
    figure = canvas(6.4, 3.4, title)
    axes = figure.subplots()
    for name, values, colour in (("maxima", flat.max(1), BAD), ("minima", flat.min(1), TRAIN)):
        ordered = np.sort(values)
        axes.plot(
            ordered, np.arange(1, len(ordered) + 1) / len(ordered) * 100, color=colour, label=f"{name} of the maps"
        )
        axes.scatter(table.loc[name], list(table.columns), s=18, color=colour)
    for end in (report.scale.low, report.scale.high):
        axes.axvline(end, color=INK, lw=1, ls="--")
    dress(axes, "dots: 25, 50, 75, 90, 99 %; lines: ends of the scale", "evidence a position", "% of the images below")
    axes.legend(fontsize=7, frameon=False)
    return figure


def bland_altman_figure(
    report: AnalysisResult, classes: tuple[int, int] | None = None, title: str = "Agreement of importance"
) -> Figure:
    """Draw the agreement of the channels' importance (Bland and Altman): training against validation, or two classes.

    Args:
        report: The report.
        classes: Two classes of the validation split to compare; None compares the splits, class by class.
        title: Title of the figure.

    Raises:
        DataError: There is no training split, or a class has no correctly classified sample.
    """
    pairs = _class_pair(report, classes) if classes else _split_pairs(report)
    figure = canvas(3.4 * len(pairs) + 0.6, 3.4, title)
    for axes, (name, found) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items(), strict=True):
        axes.scatter(found.mean, found.difference, s=10, c=VALIDATION, lw=0)
        for place in found.outside:
            axes.annotate(str(place), (found.mean[place], found.difference[place]), fontsize=6, color=INK)
        for level, line in ((found.bias, "-"), (found.low, "--"), (found.high, "--")):
            axes.axhline(level, color=INK, lw=1, ls=line)
        dress(axes, name, "mean importance, logits", "difference, logits")
    return figure


def cascade_figure(cascade: pd.DataFrame, title: str = "Weights made random from the last layer on") -> Figure:
    """Draw what ``randomise_cascade`` gave."""
    figure = canvas(max(5.0, 0.5 * len(cascade) + 2), 3.6, title)
    axes = figure.subplots()
    names = ["trained", *cascade["layer"].iloc[1:]]
    lines = {"similarity": VALIDATION, "absolute_similarity": BAD, "rank_similarity": GOOD}
    for name, colour in lines.items():
        axes.plot(range(len(names)), cascade[name], "o-", ms=4, color=colour, label=name.replace("_", " "))
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    dress(axes, "", "random down to this layer", "likeness to the trained network's maps")
    axes.legend(fontsize=7, frameon=False)
    return figure


def layers_figure(
    reports: Mapping[str, AnalysisResult], title: str = "The same samples at several layers, and their mean"
) -> Figure:
    """Draw the first validation samples' maps of each layer and their mean, each row on its own common scale."""
    tables = {name: report.tables["validation"] for name, report in reports.items()}
    rows: dict[str, Any] = {name: table.cams for name, table in tables.items()} | {"mean": mean_map(reports)}
    first = next(iter(tables.values()))
    shown = min(MOST_PROBES, len(first))
    figure = canvas(1.5 * shown + 0.8, 1.6 * len(rows) + 0.5, title)
    grid: Any = figure.subplots(len(rows), shown, squeeze=False)
    for line, (name, cams) in zip(grid, rows.items(), strict=True):
        scale = common_scale(cams)
        for axes, cam in zip(line, cams, strict=False):
            axes.imshow(scale.apply(flat_map(cam)), cmap=HEAT, vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, fontsize=8, parse_math=False)
    return figure


def _correlation(part: pd.DataFrame) -> float:
    varies = part["logit"].std() > 0 and part["level"].std() > 0
    return float(np.corrcoef(part["logit"], part["level"])[0, 1]) if varies else float("nan")


def _auroc(part: pd.DataFrame) -> float:
    return float(roc_auc_score(part["member"], part["level"])) if part["member"].nunique() == 2 else float("nan")


def _split_pairs(report: AnalysisResult) -> dict[str, BlandAltman]:
    if "train" not in report.tables:
        raise DataError("the report has no training split to compare with; pass train_loader to analyze")
    found = {split: _importance(table) for split, table in report.tables.items()}
    both = [c for c in found["validation"].classes if c in found["train"].classes][:MOST_CLASSES]
    return {
        f"{_class_name(report, c)}: training less validation": bland_altman(*(
            found[split].matrix[_row(found[split], c)] for split in ("train", "validation")
        ))
        for c in both
    }  # fmt: skip


def _class_pair(report: AnalysisResult, classes: tuple[int, int]) -> dict[str, BlandAltman]:
    found = _importance(report.tables["validation"])
    first, second = (found.matrix[_row(found, c)] for c in classes)
    names = [_class_name(report, c) for c in classes]
    return {f"{names[0]} less {names[1]}": bland_altman(first, second)}


def _importance(table: FeatureTable) -> Importance:
    return importance(table.contributions, table.explained, importance_mask(table))


def _row(found: Importance, number: int) -> int:
    place = np.flatnonzero(found.classes == number)
    if not len(place):
        raise DataError(f"class {number} has no correctly classified sample")
    return int(place[0])


def _class_name(report: AnalysisResult, number: int) -> str:
    return report.class_names[number] if 0 <= number < len(report.class_names) else str(number)
