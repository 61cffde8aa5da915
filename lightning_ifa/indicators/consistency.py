"""Consistency: does the map's level say what the logit says?

Algebra, not evidence: a self-check of layer, method and scale that untrained and faulty networks pass as well.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.data.feature_table import FeatureTable
from lightning_ifa.indicators.base import (
    Explanation,
    Finding,
    Indicator,
    Rows,
    Statistic,
    describe_certainty,
    undecided,
)
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.statistics.completeness import completeness, pearson, spread_within
from lightning_ifa.statistics.significance import UNDECIDED, health
from lightning_ifa.text import quote_name

RESIDUE_LIMIT = 0.05
MOST_UNPLACED = 0.5


class Consistency(Indicator):
    """The part of the logit's variance that the map's sum misses; see ``consistency``."""

    name = "consistency"
    meaning = "share of the logits' spread that is missing from the sums of the maps"
    limit = RESIDUE_LIMIT

    def assess(self, context: AnalysisContext) -> Finding:
        """Compare the explained logits of the validation split with the sums of its maps."""
        table = context.validation
        finding = consistency(_explained_logits(context), _sums(table), table.explained)
        share = _unplaced_share(table)
        if not share:
            return finding
        details = {**finding.details, "unplaced": share}
        return replace(finding, health=min(finding.health, placed_health(share)), details=details)

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Say what the maps are not good for."""
        if finding.undecided:
            return Explanation(finding.note)
        found = (
            f"The sum of the map misses {finding.score:.0%} of what makes the logit rise and fall (alarm above "
            f"{finding.limit:.0%}), so a brighter map does not mean more evidence."
        )
        if share := finding.details.get("unplaced", 0.0):
            found += f" {share:.0%} of it comes through a class token or past the layer, where no map shows it."
        advice = (
            "Do not compare the maps' intensities at this layer with this method. HiResCAM at the last layer with "
            "positions is the safe choice."
        )
        if context.validation.gradient == "plain":
            advice += (
                ' Behind a LayerNorm or attention it needs gradient="conservative", the default, and a network that is '
                "no ScriptModule: plain gradients sum to nothing there."
            )
        return Explanation(found, describe_certainty(finding), advice)

    def warnings(self, context: AnalysisContext) -> list[str]:
        """Say where the maps can show next to nothing, although they are right."""
        share, table = _unplaced_share(context.validation), context.validation
        if share < MOST_UNPLACED:
            return []
        return [
            f"at layer {quote_name(table.layer)} {share:.0%} of what makes the logit rise and fall comes through a "
            "class token or past the layer, where no map can show it; an earlier layer shows more"
        ]

    def statistic(self, finding: Finding, context: AnalysisContext) -> Statistic | None:
        """The residue of some of the rows."""
        table, logits = context.validation, _explained_logits(context)
        sums = _sums(table)

        def residue(rows: Rows, _: Rows) -> float:
            complete = completeness(logits[rows], sums[rows], table.explained[rows])
            return float(np.clip(1 - np.nan_to_num(complete, nan=1.0), 0, 1))

        return residue


def _explained_logits(context: AnalysisContext) -> NDArray[Any]:
    table = context.validation
    return np.asarray(table.logits[np.arange(len(table)), table.explained])


def _sums(table: FeatureTable) -> NDArray[Any]:
    """What should rise and fall with the logit: the map's sum, and what is known to have no place in the map."""
    return np.asarray(table.intensity + table.unplaced)


def _unplaced_share(table: FeatureTable) -> float:
    """Share of the spread within classes that comes through class tokens or past the layer, where no map shows it."""
    placed, unplaced = (spread_within(part, table.explained) for part in (table.intensity, table.unplaced))
    return unplaced / (placed + unplaced) if unplaced else 0.0


def placed_health(unplaced: float) -> float:
    """The best health of maps that leave a share of the evidence out: 1 up to a half of it, then down to 0.5.

    Such maps are right, and never an alarm; but the more comes through class tokens, the less they show.

    >>> placed_health(0.4), round(placed_health(0.8), 2)
    (1.0, 0.7)
    """
    return max(1.0 - max(unplaced - MOST_UNPLACED, 0.0), math.nextafter(UNDECIDED, 1.0))


def consistency(scores: NDArray[Any], sums: NDArray[Any], explained: NDArray[np.int64]) -> Finding:
    """Judge whether map intensities can be compared between images.

    Score: ``1 - completeness``, clipped to [0, 1]; 0 exact, 0.05 alarm. On a pool + linear head HiResCAM gives 0
    to rounding, and so it does behind a LayerNorm by the conservative gradient; by the plain one about 1 there,
    although Pearson looks fine.

    Args:
        scores: ``(n,)`` the explained logit.
        sums: ``(n,)`` sum of the map over space, with what is known to have no place in it.
        explained: ``(n,)`` class explained.
    """
    complete = completeness(scores, sums, explained)
    if np.isnan(complete):
        return undecided("the explained score is constant within every class, to rounding")
    score = float(np.clip(1 - complete, 0, 1))
    correlation = pearson(scores, sums, explained)
    details = {"completeness": complete, "pearson": 0.0 if np.isnan(correlation) else correlation}
    return Finding(score, 0.0, health(score, RESIDUE_LIMIT), details)


def trustworthy(completeness: float) -> bool:
    """Whether intensities of a method's raw maps can be compared at this layer of this model."""
    return bool(1 - completeness < RESIDUE_LIMIT)
