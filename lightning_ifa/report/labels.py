"""Words for classes, samples, channels and runs, as figures and pages show them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.report.style import BAD, INK, QUIET, plain


def class_label(report: AnalysisResult, label: int) -> str:
    """A class by its name, or a bin of a regression's targets by its number; short enough for an axis."""
    if report.tables["validation"].targets.dtype.kind == "f":
        return f"bin {label + 1}"
    if report.tables["validation"].has_one_object:
        return f"size {label}" if label else "no object"
    return plain(report.class_names[label], 12) if label < len(report.class_names) else str(label)


def strongest_class(report: AnalysisResult, channel: int) -> tuple[str, float]:
    """The class for or against which a channel is the strongest evidence, and its importance there."""
    found = report.importance
    if not len(found.classes):
        return "", 0.0
    values = found.difference[:, channel] if len(found.classes) > 1 else found.matrix[:, channel]
    strongest = int(np.abs(values).argmax())
    return report.class_names[int(found.classes[strongest])], float(values[strongest])


def sample_label(table: FeatureTable, row: int, names: tuple[str, ...]) -> str:
    """A sample's label, and what it was taken for where that is something else."""
    if table.targets.dtype.kind == "f":
        return f"{table.targets[row]:.3g}, predicted {table.predictions[row]:.3g}"
    target, guess = int(table.targets[row]), int(table.predictions[row])
    label = names[target] if 0 <= target < len(names) else "unlabelled"
    return label if target == guess or not 0 <= guess < len(names) else f"{label} → {names[guess]}"


def is_misclassified(report: AnalysisResult, row: int) -> bool:
    """Whether a probe was taken for another class than the explained one."""
    return bool(report.probes.predicted.explained[row] != report.probes.table.explained[row])


def describe_data(report: AnalysisResult) -> str:
    """What was analysed, in one line."""
    table = report.tables["validation"]
    samples = " and ".join(f"{len(found):,} {split}" for split, found in report.tables.items())
    layer = f"layer {plain(table.layer, 60)}, {table.contributions.shape[1]} channels"
    return f"{layer} · {plain(describe_method(table))} · {samples} samples · data {report.digest}"


def describe_method(table: FeatureTable) -> str:
    """Name the CAM method, and the rule by which gradients were taken if it is not the plain one."""
    return f"{table.cam}, norms and attention held fixed" if table.gradient == "conservative" else table.cam


def probe_caption(report: AnalysisResult, row: int) -> str:
    """A probe's label, its evidence, and what it was taken for."""
    table, names = report.probes.table, report.class_names
    if table.targets.dtype.kind == "f":
        return f"{table.targets[row]:.3g}, predicted {table.predictions[row]:.3g}"
    text = f"{plain(names[int(table.explained[row])], 12)}: {table.intensity[row]:.1f}"
    guess = plain(names[int(report.probes.predicted.explained[row])], 8)
    return f"{text} → {guess}" if is_misclassified(report, row) else text


LONGEST_NAME = 13


def probe_lines(report: AnalysisResult, row: int) -> list[tuple[str, str]]:
    """Say what a probe is, how strong its evidence is, and what it was taken for: lines and their colours."""
    table, predicted = report.probes.table, report.probes.predicted
    if table.targets.dtype.kind == "f":
        return [(f"true {table.targets[row]:.3g}", INK), (f"predicted {table.predictions[row]:.3g}", INK)]
    names = report.class_names
    own = [
        (plain(names[int(table.explained[row])], LONGEST_NAME), INK),
        (f"evidence {table.intensity[row]:.1f}", QUIET),
    ]
    if not is_misclassified(report, row):
        return own
    guess = plain(names[int(predicted.explained[row])], LONGEST_NAME)
    return [*own, (f"→ {guess}", BAD), (f"evidence {predicted.intensity[row]:.1f}", QUIET)]


def describe_candidate(report: AnalysisResult, candidate: pd.Series[Any]) -> str:
    """What was found about a candidate, in one line."""
    worst = int(candidate["worst_class"])
    text = f"{max(candidate['score'], 0):.1%} of the evidence between classes depends on it"
    if not 0 <= worst < len(report.class_names):
        return text
    return f"{text}, {candidate['worst_score']:.0%} of that of class {plain(report.class_names[worst], 16)}"
