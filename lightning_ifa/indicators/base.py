"""The one interface of a family of indicators, and what passes through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from lightning_ifa.statistics.significance import UNDECIDED

if TYPE_CHECKING:
    from lightning_ifa.indicators.context import AnalysisContext, TrendPoint

CERTAIN = 4.75  # standard deviations that chance exceeds less than once in a million times
MOST_NAMED = 3
"""Classes, channels or samples that an explanation names."""

Rows = NDArray[np.int64]

Statistic = Callable[[Rows, Rows], float]
"""A score as a function of the validation rows and the training rows that count, for resampling."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One family's result.

    Attributes:
        score: Excess over the null's expectation; 0 = nothing found, growing = worse.
        z: How many null standard deviations the score lies above its null; 0 where there is no null.
        health: In [0, 1], 1 = good, below 0.5 = alarm, exactly 0.5 = cannot be told.
        details: Supporting numbers, logged as ``ifa/<family>/<name>``.
        note: What a reader should know, a plain sentence; why, where nothing can be told.
        subject: Name of what the score is about, such as the strongest confounder candidate; empty for the layer.
        limit: The score above which this finding alarms; NaN stands for the family's usual limit until it is filled in.
        tables: What the family lists, by name; saved and loaded with the report.
        detectable: The smallest score that these samples would have alarmed on with a chance of 80 %, in units of the
            score; NaN where it is not known.
    """

    score: float
    z: float
    health: float
    details: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    subject: str = ""
    limit: float = math.nan
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    detectable: float = math.nan

    @property
    def alarm(self) -> bool:
        """Whether the fault was found."""
        return self.health < UNDECIDED

    @property
    def undecided(self) -> bool:
        """Whether the data does not allow a verdict."""
        return self.health == UNDECIDED


def undecided(reason: str, details: Mapping[str, float] | None = None) -> Finding:
    """Make the finding of a family about which nothing can be said; its score stays finite for monitors."""
    return Finding(0.0, 0.0, UNDECIDED, details or {}, reason)


class Explanation(NamedTuple):
    """A finding in words: plain text, not yet escaped.

    Attributes:
        found: What was found, or why nothing can be told.
        certainty: How sure that is; empty where nothing can be told.
        advice: What to try next.
    """

    found: str
    certainty: str = ""
    advice: str = ""


class Null(NamedTuple):
    """Where a score would lie without the fault.

    Attributes:
        position: ``(m,)`` scores in units of the limit.
        density: ``(m,)``, highest 1.
        bound: Three standard deviations above the mean, in units of the limit.
    """

    position: NDArray[np.float64]
    density: NDArray[np.float64]
    bound: float


class Indicator:
    """A family of indicators: one fault that a network or its data may have.

    Subclasses set the three class attributes and define ``assess`` and ``explain``; the rest has defaults. An indicator
    is registered in ``indicators.registry`` and named nowhere else.

    Attributes:
        name: The family's name, part of every metric key.
        meaning: What the score is, in one clause.
        limit: The score above which the family alarms, where there are samples enough.
        derived: Tables that are computed on first use only, by name.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    limit: ClassVar[float]
    derived: ClassVar[Mapping[str, Callable[[AnalysisContext], pd.DataFrame]]] = {}

    def missing(self, context: AnalysisContext) -> str:
        """Say what the family cannot do without, and is not there; empty where it can be assessed."""
        return ""

    def assess(self, context: AnalysisContext) -> Finding:
        """Judge the network. An exception costs this family its verdict, and no other family anything."""
        raise NotImplementedError

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Say what a finding means that alarms, or why nothing can be told."""
        raise NotImplementedError

    def null(self, finding: Finding, context: AnalysisContext) -> Null | None:
        """Give the distribution of the score without the fault; None where there is no sampling noise."""
        return normal_null(finding, finding.score)

    def statistic(self, finding: Finding, context: AnalysisContext) -> Statistic | None:
        """Give the score as a function of rows, for the interval of a comparison; None if the tables do not hold it."""
        return None

    def share_of(self, finding: Finding, context: AnalysisContext) -> int | None:
        """Give the count that the score is a share of, where that and not the samples makes it uncertain."""
        return None

    def warnings(self, context: AnalysisContext) -> list[str]:
        """Say what had to be left out, and why."""
        return []

    def empty_tables(self, context: AnalysisContext) -> Mapping[str, pd.DataFrame]:
        """Give the family's tables where its assessment failed."""
        return {}

    def trend_metrics(self, trend: Sequence[TrendPoint]) -> Mapping[str, float]:
        """Give numbers that the course of the score over a training tells, logged as ``ifa/<family>/<name>``."""
        return {}


def describe_certainty(finding: Finding) -> str:
    """Say how often chance alone would give as much.

    >>> describe_certainty(Finding(0.5, 3.0, 0.4))
    'Chance alone would give this once in about 740 analyses (z = 3.0).'
    """
    z = finding.z
    if not z:
        return "It is counted on these samples, not estimated."
    if z > CERTAIN:
        return f"Practically certain: chance alone would give this less than once in a million analyses (z = {z:.1f})."
    often = 1 / float(norm.sf(max(z, 0.0)))
    digits = 10 ** max(int(np.log10(often)) - 1, 0)
    return f"Chance alone would give this once in about {round(often / digits) * digits:,} analyses (z = {z:.1f})."


def normal_null(finding: Finding, value: float) -> Null | None:
    """Give the normal null whose standard deviation follows from a value and the finding's z."""
    if not (value and finding.z):
        return None
    z, spread = np.linspace(-3.5, 3.5, 200), abs(value / finding.z) / finding.limit
    return Null(z * spread, norm.pdf(z) / norm.pdf(0), 3 * spread)
