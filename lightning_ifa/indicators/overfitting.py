"""Overfitting: is the evidence for the true class stronger on training samples than on validation samples?"""

from __future__ import annotations

import numpy as np

from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.statistics.generalization_gap import SplitSample, _hard, shift_auc, standardised_gap
from lightning_ifa.statistics.significance import health

GAP_LIMIT = 0.35
"""Standardised gap above which overfitting is called; measured values of sound networks in docs/indicators.md."""

SURE_GAP, ERRORS = 0.28, 1.5
"""Few samples must show more: the gap less 1.5 standard errors must exceed 0.28, which binds below 900 a split."""

SHIFT_LIMIT = 0.70
"""Two-sample AUC above which the splits differ in kind, so that a gap is no sign of overfitting."""


def overfitting(train: SplitSample, val: SplitSample, seed: int = 0) -> Finding:
    """Judge overfitting by the standardised margin gap, unless the splits differ in kind.

    Score: ``margin_gap`` clipped at 0 (dimensionless; 0 good, alarm beyond ``limit``: 0.35, or 0.28 and 1.5 standard
    errors where that is more). Null: exchangeable splits, z ~ N(0, 1).
    Beside it ``hard_gap``, the same of margins cut at their median: it ranks mild overfitting better among networks
    trained on the same data; no one limit holds for it on every data set, so it decides nothing.
    Cannot be told: under a covariate shift (``shift`` above 0.70), since every train-validation distance then
    fires; without a class that has two samples on both sides.

    Args:
        train: Labelled training samples.
        val: Labelled validation samples.
        seed: Of the cross-validation folds.
    """
    gap, z = standardised_gap(train.margins, train.strata, val.margins, val.strata)
    if np.isnan(gap):
        return undecided("no class has two labelled samples in both splits")
    hard_train, hard_val = _hard(train.margins, val.margins)
    hard_gap, _ = standardised_gap(hard_train, train.strata, hard_val, val.strata)
    intensity_gap, _ = standardised_gap(train.intensity, train.strata, val.intensity, val.strata)
    shift = shift_auc(train.activations, train.strata, val.activations, val.strata, seed)
    limit = max(GAP_LIMIT, SURE_GAP + ERRORS * (gap / z if z else 0.0))
    details = {"margin_gap": gap, "hard_gap": hard_gap, "intensity_gap": intensity_gap, "shift": shift, "limit": limit}
    noise = np.sqrt((len(train.margins) + len(val.margins)) / (12.0 * len(train.margins) * len(val.margins)))
    if shift > max(SHIFT_LIMIT, 0.5 + 3 * noise):
        return undecided(
            f"training and validation images differ in kind (two-sample AUC {shift:.2f}), so a gap between them is no "
            "sign of overfitting; is the training set augmented? then give train_dataloader= a clean one",
            details,
        )
    return Finding(max(gap, 0.0), z, health(gap, limit, z), details)
