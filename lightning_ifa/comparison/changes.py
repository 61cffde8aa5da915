"""What changed in each family's score, and whether other samples of the same kind would have shown it too."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.indicators import registry
from lightning_ifa.indicators.base import Finding
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.resampling import bootstrap_draws, bootstrap_error, share_error

NOISE, BETTER, WORSE, UNDECIDED_CHANGE = "inside the noise", "better", "worse", "cannot be told"

SIGNIFICANT = 2.576
"""Standard errors; 99 % a family, so about 95 % for the five families together (Bonferroni)."""

NEGLIGIBLE = 0.01
"""Share of a family's alarm line below which a change is none, such as one by rounding."""

COLUMNS = ["family", "first", "other", "change", "low", "high", "interval", "verdict"]

Draws = Mapping[str, NDArray[np.float64]]
"""Family to its score on resampled rows, ``(200,)``; missing are families that the tables do not determine."""


def resample_scores(report: AnalysisResult, seed: int = 0) -> Draws:
    """Compute a run's scores on 200 resamples of its rows, drawn within classes.

    Confounding is that of the candidate which is strongest on all samples.

    Args:
        report: The run's report.
        seed: Seed of the resampling.
    """
    _, labels = report.context.both_splits
    rows = [bootstrap_draws(labels[split], seed + number) for number, split in enumerate(("validation", "train"))]
    found = {}
    for family, finding in report.findings.items():
        statistic = (
            None if _is_unmeasured(finding) else registry.indicator_of(family).statistic(finding, report.context)
        )
        if statistic is not None:
            found[family] = np.array([statistic(*drawn) for drawn in zip(*rows, strict=True)])
    return found


def changes(
    first: AnalysisResult, other: AnalysisResult, draws: tuple[Draws, Draws], undecided: Collection[str] = ()
) -> pd.DataFrame:
    """Tabulate the change of every family's score from one run to another.

    The interval says what other samples of the same kind would have shown; the errors of both runs add up as if each
    had samples of its own. That is wider than shared samples need, and leaves room for what another seed of the same
    training changes. Redundancy is a share of channels, and hardly depends on the samples, but differs from one
    training to the next: its interval is that of a share of so many channels.

    Args:
        first: Report of the run compared to.
        other: Report of the other run.
        draws: Resampled scores of both runs.
        undecided: Families that were undecided in one of the runs.

    Returns:
        One row a family: ``family``, ``first``, ``other``, ``change``, ``low``, ``high``, ``interval``, ``verdict``;
        an interval that holds 0 is ``"inside the noise"``, as is a change below 1 % of the alarm line; a score that
        grew beyond it is ``"worse"``.
    """
    rows: list[dict[str, Any]] = []
    for family in registry.families():
        if family not in first.findings or family not in other.findings:
            continue
        pair = first.findings[family], other.findings[family]
        change = pair[1].score - pair[0].score
        error, how = float("nan"), "none"
        if family not in undecided and not any(map(_is_unmeasured, pair)):
            error, how = _error((first, other), draws, family)
        low, high = change - SIGNIFICANT * error, change + SIGNIFICANT * error
        inside = low <= 0 <= high or abs(change) < NEGLIGIBLE * registry.indicator_of(family).limit
        verdict = UNDECIDED_CHANGE if np.isnan(error) else NOISE if inside else BETTER if change < 0 else WORSE
        row = (family, pair[0].score, pair[1].score, change, low, high, how, verdict)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _is_unmeasured(finding: Finding) -> bool:
    """Whether a finding is no number: one that is undecided for want of samples still has its score."""
    return finding.undecided and not finding.z


def _error(reports: tuple[AnalysisResult, ...], draws: tuple[Draws, ...], family: str) -> tuple[float, str]:
    """Standard error of a change, and how it was found; NaN where the tables do not determine it."""
    indicator = registry.indicator_of(family)
    scores = [report.findings[family] for report in reports]
    counts = [indicator.share_of(found, report.context) for found, report in zip(scores, reports, strict=True)]
    if all(counts):
        errors = (share_error(found.score, count or 0) for found, count in zip(scores, counts, strict=True))
        return math.hypot(*errors), "over channels"
    if any(family not in drawn for drawn in draws):
        return float("nan"), "none"
    return math.hypot(*(bootstrap_error(drawn[family]) for drawn in draws)), "bootstrap"
