"""Overfitting: is the evidence for the true class stronger on training samples than on validation samples?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.base import (
    MOST_NAMED,
    Explanation,
    Finding,
    Indicator,
    Null,
    Rows,
    Statistic,
    describe_certainty,
    normal_null,
    undecided,
)
from lightning_ifa.indicators.context import AnalysisContext, TrendPoint, evidence, table_strata
from lightning_ifa.statistics.generalization_gap import (
    SplitSample,
    cut_at_median,
    gap_spread,
    gaps_by_class,
    gaps_by_feature,
    left_null,
    shift_auc,
    standardised_gap,
)
from lightning_ifa.statistics.significance import UNDECIDED, Z_LIMIT, detectable, health
from lightning_ifa.text import join_sentences, join_words, start_sentence

GAP_LIMIT = 0.35
"""Standardised gap above which overfitting is called; measured values of sound networks in docs/indicators.md."""

SURE_GAP, ERRORS = 0.28, 1.5
"""Few samples must show more: the gap less 1.5 standard errors must exceed 0.28, which binds below 900 a split."""

SHIFT_LIMIT = 0.70
"""Two-sample AUC above which the splits differ in kind, so that a gap is no sign of overfitting."""


AUGMENTED = (
    "the training inputs are augmented at random, which hides a gap; augment in on_after_batch_transfer while "
    "training, or give a clean training loader (train_dataloader= of the callback)"
)

CLOSER = {"regression": "predictions are closer to the truth", "custom": "the score is higher"}


class Overfitting(Indicator):
    """The gap of the evidence between the splits; see ``overfitting``."""

    name = "overfitting"
    meaning = "evidence on training samples beyond that on validation samples, in standard deviations"
    limit = GAP_LIMIT

    def missing(self, context: AnalysisContext) -> str:
        """A training split."""
        return "" if "train" in context.tables else "there are no training samples; hand over a training loader"

    def assess(self, context: AnalysisContext) -> Finding:
        """Compare the splits; augmented training samples can show a gap, but not its absence."""
        train, val = (_split_sample(context.tables[split], context.strata[split]) for split in ("train", "validation"))
        found = overfitting(train, val, context.seed)
        if context.augmented_train is not None:
            details = {**found.details, **augmentation_gap(context.tables["train"], context.augmented_train)}
            found = replace(found, details=details)
        return undecided(AUGMENTED, found.details) if context.augmented and not found.alarm else found

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Name the classes and channels with the widest gap, and when it began."""
        if finding.undecided:
            return Explanation(finding.note)
        what = CLOSER.get(context.validation.task, "the evidence for the true class is stronger")
        trend = context.trend.get(self.name, ())
        found = [
            f"On training samples {what} than on validation samples, by {finding.score:.2f} standard deviations on "
            f"average (alarm above {finding.limit:.2f}).",
            _describe_classes(context),
            _describe_channels(context),
            _describe_start(trend),
        ]
        more, start = "train with more data, augmentation or weight decay", first_epoch(trend)
        advice = f"{start_sentence(more)}, or stop earlier."
        if start is not None and start > trend[0].epoch:
            advice = f"Go back to a checkpoint from before epoch {start}, or {more}."
        return Explanation(join_sentences(found), describe_certainty(finding), advice)

    def null(self, finding: Finding, context: AnalysisContext) -> Null | None:
        """Normal around 0: exchangeable splits."""
        return normal_null(finding, finding.details.get("margin_gap", finding.score))

    def statistic(self, finding: Finding, context: AnalysisContext) -> Statistic | None:
        """The margin gap of some of the rows."""
        tables, labels = context.both_splits
        strengths = {split: evidence(table) for split, table in tables.items()}

        def gap(rows: Rows, train_rows: Rows) -> float:
            chosen = {"train": train_rows, "validation": rows}
            known = {split: part[labels[split][part] >= 0] for split, part in chosen.items()}
            train, val = ((strengths[split][part], labels[split][part]) for split, part in known.items())
            return max(float(np.nan_to_num(standardised_gap(*train, *val)[0])), 0.0)

        return gap

    def trend_metrics(self, trend: Sequence[TrendPoint]) -> Mapping[str, float]:
        """``left_null``: the epoch at which the score left its null."""
        start = first_epoch(trend)
        return {} if start is None else {"left_null": float(start)}


def first_epoch(trend: Sequence[TrendPoint]) -> int | None:
    """Give the epoch at which the score left its null, for two analyses in a row; None: it has not."""
    position = left_null([point.z for point in trend])
    return None if position is None else trend[position].epoch


def class_gaps(context: AnalysisContext) -> pd.DataFrame:
    """Tabulate in which classes (regression: target bins) the gap between the splits lies, largest first.

    Columns ``class``, ``gap`` (of the margin, in standard deviations within the class), ``z``, ``train`` and
    ``validation`` (how many samples); no row without a training split.
    """
    (train, groups), (validation, held_out) = context.comparable_rows
    return gaps_by_class(evidence(train), groups, evidence(validation), held_out)


def channel_gaps(context: AnalysisContext) -> pd.DataFrame:
    """Tabulate which features carry the gap, largest share first.

    Columns ``feature``, ``gap`` (of its contribution, in standard deviations within classes), ``z``, ``share`` (of the
    gap of all; shares sum to 1); no row without a training split.
    """
    (train, groups), (validation, held_out) = context.comparable_rows
    return gaps_by_feature(train.contributions, groups, validation.contributions, held_out)


Overfitting.derived = {"overfitting_classes": class_gaps, "overfitting_features": channel_gaps}


def augmentation_gap(clean: FeatureTable, augmented: FeatureTable) -> dict[str, float]:
    """Tell how far augmentation moves the evidence of the same samples, in units of the gap between the splits."""
    same = clean.take(np.searchsorted(clean.indices, augmented.indices))
    if not np.array_equal(same.targets, augmented.targets) or clean.task == "custom":
        return {}
    labels = table_strata({"train": same})["train"]
    gap, _ = standardised_gap(evidence(same), labels, evidence(augmented), labels)
    return {"augmentation_gap": gap} if np.isfinite(gap) else {}


def _split_sample(table: FeatureTable, labels: NDArray[np.int64]) -> SplitSample:
    """Take the labelled rows' part in the comparison of splits."""
    known = labels >= 0
    return SplitSample(evidence(table)[known], table.intensity[known], table.activations[known], labels[known])


def _describe_classes(context: AnalysisContext) -> str:
    gaps = class_gaps(context)
    gaps = gaps[gaps["z"] > Z_LIMIT].head(MOST_NAMED)
    if gaps.empty or context.validation.task == "custom":
        return ""
    parts = [f"{context.class_label(int(row['class']))} ({row['gap']:.2f})" for row in gaps.to_dict("records")]
    return f"It is widest for {join_words(parts)}."


def _describe_channels(context: AnalysisContext) -> str:
    gaps = channel_gaps(context)
    gaps = gaps[(gaps["z"] > Z_LIMIT) & (gaps["share"] > 0)].head(MOST_NAMED)
    return f"The channels that carry most of it: {join_words([str(c) for c in gaps['feature']])}." if len(gaps) else ""


def _describe_start(trend: Sequence[TrendPoint]) -> str:
    start = first_epoch(trend)
    if start is None:
        return "It showed at the latest analysis only; the next one tells whether it stays." if trend else ""
    if start == trend[0].epoch:
        return f"It was there at the first analysis already, in epoch {start}."
    return f"It left its null in epoch {start}: from then on it is more than chance."


def overfitting(train: SplitSample, val: SplitSample, seed: int = 0) -> Finding:
    """Judge overfitting by the standardised margin gap, unless the splits differ in kind.

    Score: ``margin_gap`` clipped at 0 (dimensionless; 0 good, alarm beyond ``limit``: 0.35, or 0.28 and 1.5 standard
    errors where that is more). Null: exchangeable splits, z ~ N(0, 1).
    Beside it ``hard_gap``, the same of margins cut at their median: it ranks mild overfitting better among networks
    trained on the same data; no one limit holds for it on every data set, so it decides nothing.
    Cannot be told: under a covariate shift (``shift`` above 0.70), since every train-validation distance then
    fires; without a class that has two samples on both sides; where nothing was found among so few samples that chance
    alone could hide a gap of 0.35 (three of its standard deviations are more), about 150 in each split.

    Args:
        train: Labelled training samples.
        val: Labelled validation samples.
        seed: Seed of the cross-validation folds.
    """
    gap, z = standardised_gap(train.margins, train.strata, val.margins, val.strata)
    if np.isnan(gap):
        return undecided("no class has two labelled samples in both splits")
    hard_train, hard_val = cut_at_median(train.margins, val.margins)
    hard_gap, _ = standardised_gap(hard_train, train.strata, hard_val, val.strata)
    intensity_gap, _ = standardised_gap(train.intensity, train.strata, val.intensity, val.strata)
    shift = shift_auc(train.activations, train.strata, val.activations, val.strata, seed)
    spread = gap_spread(train.strata, val.strata)
    limit = max(GAP_LIMIT, SURE_GAP + ERRORS * spread)
    details = {"margin_gap": gap, "hard_gap": hard_gap, "intensity_gap": intensity_gap, "shift": shift, "limit": limit}
    noise = np.sqrt((len(train.margins) + len(val.margins)) / (12.0 * len(train.margins) * len(val.margins)))
    if shift > max(SHIFT_LIMIT, 0.5 + 3 * noise):
        return undecided(
            f"training and validation images differ in kind (two-sample AUC {shift:.2f}), so a gap between them is no "
            "sign of overfitting; is the training set augmented? then give train_dataloader= a clean one",
            details,
        )
    least = detectable(spread, limit)
    found = Finding(max(gap, 0.0), z, health(gap, limit, z), details, limit=limit, detectable=least)
    if found.alarm or Z_LIMIT * spread <= GAP_LIMIT:
        return found
    few = (
        f"{len(train.margins):,} training and {len(val.margins):,} validation samples show only a gap of {least:.2f} "
        f"standard deviations or more with any certainty, and {GAP_LIMIT} is too much already; analyse more samples"
    )
    return replace(found, health=UNDECIDED, note=few)
