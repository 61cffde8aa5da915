"""Outliers: which samples lie far from the training samples of their own class, and of which kind are they?"""

from __future__ import annotations

import numpy as np

from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.statistics.duplicates import Duplicates
from lightning_ifa.statistics.neighbour_outliers import KINDS, OutlierScores, outlier_kinds
from lightning_ifa.statistics.significance import health

NULL_SHARE = 0.01
EXCESS_LIMIT = 0.01


def outliers(scores: OutlierScores, duplicates: Duplicates | None = None) -> Finding:
    """Judge the validation split by its share of outliers and leaked samples beyond what clean data has.

    Score: share of samples with a score above 5 or a duplicate in the training split, minus the 1 % that clean data may
    have, clipped at 0; 0.01 alarm. Null: binomial with that 1 %. Cannot be told: no reference samples.

    Args:
        scores: Of the validation split.
        duplicates: Its copies in the training split, or None.
    """
    judged = np.isfinite(scores.score)
    n = int(judged.sum())
    if not n:
        return undecided("there are no reference samples to compare with")
    leaked = np.zeros(len(judged), dtype=bool) if duplicates is None else duplicates.match >= 0
    share = float((leaked | scores.suspicious)[judged].mean())
    z = (share - NULL_SHARE) / np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
    kinds = outlier_kinds(scores)
    details = {"share": share, "leaked_share": float(leaked.mean()), "label_noise": scores.noise}
    details |= {f"{kind}_share": float((kinds == kind).mean()) for kind in KINDS}
    score = max(share - NULL_SHARE, 0.0)
    return Finding(score, float(z), health(score, EXCESS_LIMIT, float(z)), details)
