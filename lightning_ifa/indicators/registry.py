"""All families of indicators, in the order in which they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_ifa.indicators.base import Finding, Indicator, undecided
from lightning_ifa.indicators.confounding import Confounding
from lightning_ifa.indicators.consistency import Consistency
from lightning_ifa.indicators.context import AnalysisContext, TrendPoint
from lightning_ifa.indicators.outliers import Outliers
from lightning_ifa.indicators.overfitting import Overfitting
from lightning_ifa.indicators.redundancy import Redundancy

INDICATORS: tuple[Indicator, ...] = (Overfitting(), Confounding(), Outliers(), Redundancy(), Consistency())


def families() -> list[str]:
    """Names of all families."""
    return [indicator.name for indicator in INDICATORS]


def indicator_of(family: str) -> Indicator:
    """Give the indicator of a family."""
    return next(indicator for indicator in INDICATORS if indicator.name == family)


def assess_all(context: AnalysisContext) -> tuple[dict[str, Finding], list[str]]:
    """Assess every family that can be; one that fails cannot be told, and takes no other with it.

    Returns:
        Findings by family, and warnings: what had to be left out, and why.
    """
    findings, warnings = {}, context.warnings
    for indicator in INDICATORS:
        if indicator.missing(context):
            continue
        try:
            warnings += indicator.warnings(context)
            found = indicator.assess(context)
        except Exception as error:  # whatever an indicator throws: the other families are worth having
            reason = f"its computation failed ({type(error).__name__}: {error})"
            warnings.append(f"{indicator.name}: {reason}")
            found = replace(undecided(reason), tables=indicator.empty_tables(context))
        findings[indicator.name] = replace(found, limit=indicator.limit if math.isnan(found.limit) else found.limit)
    return findings, warnings


def extend_trend(
    trend: Mapping[str, Sequence[TrendPoint]], epoch: int, findings: Mapping[str, Finding]
) -> dict[str, list[TrendPoint]]:
    """Add the findings of one more analysis of a training to each family's trend."""
    return {
        family: [*trend.get(family, ()), TrendPoint(epoch, float(finding.score), float(finding.z))]
        for family, finding in findings.items()
    }
