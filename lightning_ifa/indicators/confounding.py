"""Confounding: how much of the evidence between classes runs through something that is not the class?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.statistics.confounder_candidates import RELIANCE_LIMIT, ConfounderCandidate
from lightning_ifa.statistics.significance import health


def confounding(candidates: list[ConfounderCandidate], supporting: Mapping[str, float] | None = None) -> Finding:
    """Judge by the candidate on which the network relies most; properties of the content are left out.

    Score: the largest reliance, or a fifth of the largest reliance of a single class, clipped at 0; 0.02 alarm if
    also significant after correction for the number of candidates and classes. Cannot be told: a metadata column
    that leaves nothing to compare within classes, or no candidate.

    Args:
        candidates: From ``find_candidates`` and ``swap_candidates``.
        supporting: Further numbers to report, which decide nothing.
    """
    tested = [s for s in candidates if s.tested and s.origin != "content"]
    hidden = [s.source for s in candidates if not s.identifiable]
    if not tested:
        reason = f": {hidden[0]} shows one value in every class" if hidden else ""
        return undecided(f"there is no metadata column to test, and no plain background{reason}", supporting)
    strengths = [s.strength(len(tested)) for s in tested]
    values = [health(score, RELIANCE_LIMIT, z) for score, z in strengths]
    worst = int(np.argmin(values))
    score, z = strengths[worst]
    details = {"suspects": float(len(tested)), "worst_class": tested[worst].worst_reliance, **(supporting or {})}
    finding = Finding(max(score, 0.0), z, values[worst], details, f"strongest candidate: {tested[worst].source}")
    if finding.alarm or not hidden:
        return finding
    return undecided(f"nearly every class shows one value of {', '.join(hidden)} only: use cannot be told", details)
