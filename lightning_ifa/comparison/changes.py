"""What changed in each family's score, and whether other samples of the same kind would have shown it too."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.feature_report import FAMILIES, FeatureReport
from lightning_ifa.indicators.limits import LIMITS
from lightning_ifa.indicators.outliers import NULL_SHARE
from lightning_ifa.sides import table_strata
from lightning_ifa.statistics.completeness import completeness
from lightning_ifa.statistics.confounder_candidates import find_candidates
from lightning_ifa.statistics.generalization_gap import standardised_gap
from lightning_ifa.statistics.resampling import Rows, bootstrap_draws, bootstrap_error, share_error

NOISE, BETTER, WORSE, UNDECIDED_CHANGE = "inside the noise", "better", "worse", "cannot be told"

SIGNIFICANT = 2.576
"""Standard errors; 99 % a family, so about 95 % for the five families together (Bonferroni)."""

NEGLIGIBLE = 0.01
"""Share of a family's alarm line below which a change is none, such as one by rounding."""

COLUMNS = ["family", "first", "other", "change", "low", "high", "interval", "verdict"]

Statistic = Callable[[Rows, Rows], float]
"""A score as a function of the validation rows and the training rows that count."""

Draws = Mapping[str, NDArray[np.float64]]
"""Family to its score on resampled rows, ``(200,)``; missing are families that the tables do not determine."""


def resample_scores(report: FeatureReport, seed: int = 0) -> Draws:
    """Compute a run's scores on 200 resamples of its rows, drawn within classes.

    Confounding is that of the candidate which is strongest on all samples.

    Args:
        report: The run's report.
        seed: Seed of the resampling.
    """
    labels = _labels(report)
    rows = [bootstrap_draws(labels[split], seed + number) for number, split in enumerate(("validation", "train"))]
    told = [name for name, finding in report.findings.items() if name != "redundancy" and not finding.undecided]
    statistics = {family: _statistic(report, family, labels) for family in told}
    return {
        family: np.array([statistic(*drawn) for drawn in zip(*rows, strict=True)])
        for family, statistic in statistics.items()
        if statistic is not None
    }


def changes(
    first: FeatureReport, other: FeatureReport, draws: tuple[Draws, Draws], undecided: Collection[str] = ()
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
    for family in FAMILIES:
        if family not in first.findings or family not in other.findings:
            continue
        pair = first.findings[family], other.findings[family]
        change = pair[1].score - pair[0].score
        error, how = float("nan"), "none"
        if family not in undecided and not any(finding.undecided for finding in pair):
            error, how = _error((first, other), draws, family)
        low, high = change - SIGNIFICANT * error, change + SIGNIFICANT * error
        inside = low <= 0 <= high or abs(change) < NEGLIGIBLE * LIMITS[family]
        verdict = UNDECIDED_CHANGE if np.isnan(error) else NOISE if inside else BETTER if change < 0 else WORSE
        row = (family, pair[0].score, pair[1].score, change, low, high, how, verdict)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _error(reports: tuple[FeatureReport, ...], draws: tuple[Draws, ...], family: str) -> tuple[float, str]:
    """Standard error of a change, and how it was found; NaN where the tables do not determine it."""
    if family == "redundancy":
        shares = [share_error(r.findings[family].score, r.tables["validation"].activations.shape[1]) for r in reports]
        return math.hypot(*shares), "over channels"
    if any(family not in drawn for drawn in draws):
        return float("nan"), "none"
    return math.hypot(*(bootstrap_error(drawn[family]) for drawn in draws)), "bootstrap"


def _labels(report: FeatureReport) -> dict[str, Rows]:
    """Class or target bin of each row of the validation and the training table; none without a training table."""
    return table_strata({"train": report.tables["validation"].take(np.arange(0)), **report.tables})


def _statistic(report: FeatureReport, family: str, labels: Mapping[str, Rows]) -> Statistic | None:
    table = report.tables["validation"]
    samples = {split: report.samples[report.samples["split"] == split] for split in report.tables}
    if family == "overfitting":
        return partial(_gap, {split: frame["evidence"].to_numpy() for split, frame in samples.items()}, labels)
    if family == "outliers":
        judged = samples["validation"]["score"].notna().to_numpy()
        return partial(_excess, (samples["validation"]["kind"] != "").to_numpy(), judged)
    if family == "consistency":
        logit = table.logits[np.arange(len(table)), table.explained]
        return partial(_residue, logit, table.intensity, table.explained)
    return _reliance(report, labels["validation"])


def _gap(evidence: Mapping[str, NDArray[Any]], labels: Mapping[str, Rows], rows: Rows, train_rows: Rows) -> float:
    chosen = {"train": train_rows, "validation": rows}
    known = {split: part[labels[split][part] >= 0] for split, part in chosen.items()}
    train, val = ((evidence[split][part], labels[split][part]) for split, part in known.items())
    return max(float(np.nan_to_num(standardised_gap(*train, *val)[0])), 0.0)


def _excess(flagged: NDArray[np.bool_], judged: NDArray[np.bool_], rows: Rows, _: Rows) -> float:
    return max(float(flagged[rows][judged[rows]].mean()) - NULL_SHARE, 0.0)


def _residue(logit: NDArray[Any], intensity: NDArray[Any], explained: Rows, rows: Rows, _: Rows) -> float:
    complete = completeness(logit[rows], intensity[rows], explained[rows])
    return float(np.clip(1 - np.nan_to_num(complete, nan=1.0), 0, 1))


def _reliance(report: FeatureReport, labels: Rows) -> Statistic | None:
    """The reliance on the candidate that is strongest on all samples; None if the tables do not hold its values."""
    judged = report.confounders[(report.confounders["origin"] != "content") & report.confounders["score"].notna()]
    table = report.tables["validation"]
    if judged.empty:
        return None
    source, origin = judged.iloc[0][["source", "origin"]]
    frame = table.metadata if origin == "metadata" else table.properties
    if source not in frame:
        return None
    regression = table.task == "regression"

    def reliance(rows: Rows, _: Rows) -> float:
        known = rows[labels[rows] >= 0]
        part = {origin: frame[[source]].iloc[known].reset_index(drop=True)}
        targets = table.targets[known] if regression else None
        (candidate,) = find_candidates(table.logits[known], labels[known], part, targets)
        return float(max(candidate.strength(len(judged))[0], 0.0)) if candidate.tested else 0.0

    return reliance
