"""Confounding: how much of the evidence between classes depends on something that is not the class?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lightning_ifa.indicators.base import (
    MOST_NAMED,
    Explanation,
    Finding,
    Indicator,
    Rows,
    Statistic,
    describe_certainty,
    undecided,
)
from lightning_ifa.indicators.confounder_search import find_all_candidates
from lightning_ifa.indicators.confounder_table import judged_candidates, list_candidates
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.hidden_search import HiddenSearch, no_hidden
from lightning_ifa.indicators.own_maps import list_own_maps, no_own_maps
from lightning_ifa.statistics.confounder_candidates import (
    CLASS_WEIGHT,
    RELIANCE_LIMIT,
    ConfounderCandidate,
    find_candidates,
)
from lightning_ifa.statistics.metadata_columns import GROUP
from lightning_ifa.statistics.own_map import GLOBAL_LIMIT
from lightning_ifa.statistics.significance import health
from lightning_ifa.text import join_sentences, join_words, quote_name, shorten, start_sentence

LEAST_GROUPS = 10
"""Fewer cannot reach z = 3, however they are exchanged."""


PLACES = {
    "metadata": "the metadata column {}",
    "background": "the image property {}, measured around the object",
    "swap": "the part of the image called {}",
    "region": "what lies {}",
    "hidden": "something that no column names, which parts the images in two groups ({})",
}

AGAINST = {
    "metadata": "Balance its values over the classes, or weight the samples, and train again",
    "background": "Look at the images with its highest and lowest values; crop or mask the background, and train again",
    "swap": "Look at that part of the images; crop or mask it, and train again",
    "region": "Look at the maps outside your regions; crop or mask what lies there, and train again",
    "hidden": (
        "Look at the two groups of images side by side (report.hidden lists them): what tells them apart? Give it a "
        "name and a metadata column, balance it over the classes or mask it, and train again"
    ),
}

SEARCHED = (
    "; {} places and looks were searched for what nobody named, and nothing that would be an alarm parts the images in "
    "two groups. What varies without a gap, or goes with the class in every sample, would not have shown"
)

MORE_KNOWLEDGE = "hand over what you know of each sample (metadata=), or where the evidence should lie (regions=)"


class Confounding(Indicator):
    """The share of the evidence that depends on the strongest confounder candidate; see ``confounding``."""

    name = "confounding"
    meaning = "share of the evidence between classes that depends on the strongest candidate"
    limit = RELIANCE_LIMIT
    derived: ClassVar = {  # of reports that were saved before there were such
        "hidden": lambda context: no_hidden(),
        "confounder_maps": lambda context: no_own_maps(),
    }

    def assess(self, context: AnalysisContext) -> Finding:
        """Test every metadata column, image property, swapped part and region."""
        hidden = HiddenSearch(context)
        candidates = find_all_candidates(context, hidden)
        means = context.localization.means if context.localization is not None else None
        columns = hidden.columns()
        listed = list_candidates(context, candidates, columns)
        finding = confounding(candidates, means, hidden.signals)
        leading = judged_candidates(listed)
        leading = leading[leading["origin"] != "content"]
        leading = leading.sort_values("source", key=lambda source: source != finding.subject, kind="stable")
        maps = list_own_maps(context, leading, columns)
        return replace(finding, tables={"confounders": listed, "hidden": hidden.list(), "confounder_maps": maps})

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Describe the strongest candidate, its cost and its channels; name the others."""
        if finding.undecided:
            return Explanation(finding.note, advice=MORE_KNOWLEDGE if context.validation.metadata.empty else "")
        frame = judged_candidates(finding.tables["confounders"])
        frame = frame[frame["origin"] != "content"]
        strongest = frame[frame["source"] == finding.subject]
        chosen = frame if strongest.empty else strongest
        if chosen.empty:
            found = shorten(start_sentence(finding.note), 200)
            return Explanation(join_sentences([found]), describe_certainty(finding), f"{AGAINST['metadata']}.")
        candidate = chosen.iloc[0]
        channels = ", ".join(map(str, candidate["features"]))
        found = join_sentences(
            [
                _describe_reliance(finding, context, candidate),
                _describe_accuracies(candidate),
                f"It acts through channels {channels}." if channels else "",
                _describe_place(finding, str(candidate["source"])),
                _describe_trait(str(candidate["origin"])),
                _describe_others(frame, str(candidate["source"])),
            ]
        )
        advice = f"{AGAINST.get(str(candidate['origin']), AGAINST['metadata'])}."
        return Explanation(found, describe_certainty(finding), advice)

    def statistic(self, finding: Finding, context: AnalysisContext) -> Statistic | None:
        """The reliance on the candidate that is strongest on all samples; None if the tables do not hold its values."""
        frame = finding.tables["confounders"]
        judged = frame[(frame["origin"] != "content") & frame["score"].notna()]
        table, labels = context.validation, context.both_splits[1]["validation"]
        if judged.empty:
            return None
        source, origin = judged.iloc[0][["source", "origin"]]
        values = table.metadata if origin == "metadata" else table.properties
        if source not in values:
            return None
        regression = table.task == "regression"

        def reliance(rows: Rows, _: Rows) -> float:
            known = rows[labels[rows] >= 0]
            part = {origin: values[[source]].iloc[known].reset_index(drop=True)}
            targets = table.targets[known] if regression else None
            (candidate,) = find_candidates(table.logits[known], labels[known], part, targets)
            return float(max(candidate.strength(len(judged))[0], 0.0)) if candidate.tested else 0.0

        return reliance

    def warnings(self, context: AnalysisContext) -> list[str]:
        """A grouping column that is rather a trait: with few values nothing can be significant."""
        metadata = context.validation.metadata
        count = metadata[GROUP].nunique() if GROUP in metadata else LEAST_GROUPS
        if count >= LEAST_GROUPS:
            return []
        return [
            f"confounding: the metadata column {GROUP!r} says which samples belong together; with {count} values "
            "nothing can be significant. If it is a trait to be tested, give it another name"
        ]

    def empty_tables(self, context: AnalysisContext) -> Mapping[str, pd.DataFrame]:
        """No candidate."""
        return {"confounders": list_candidates(context, []), "hidden": no_hidden(), "confounder_maps": no_own_maps()}


def confounding(
    candidates: list[ConfounderCandidate], supporting: Mapping[str, float] | None = None, searched: int = 0
) -> Finding:
    """Judge by the candidate on which the network relies most; properties of the content are left out.

    Score: the largest reliance, or a fifth of the largest reliance of a single class, clipped at 0; 0.02 alarm if
    also significant after correction for the number of candidates and classes. Cannot be told: a metadata column
    that leaves nothing to compare within classes, or no candidate. A hidden variable may alarm, but never clears a
    network: how much the search would have overlooked is not known.

    Args:
        candidates: From ``find_candidates`` and ``swap_candidates``.
        supporting: Further numbers to report, which decide nothing.
        searched: Number of places and looks that were searched for hidden variables.
    """
    tested = [s for s in candidates if s.tested and s.origin != "content"]
    unclear = [s.source for s in candidates if not s.identifiable]
    reason = f": {unclear[0]} shows one value in every class" if unclear else ""
    nothing = f"there is no metadata column to test, and no plain background{reason}"
    if searched:
        nothing += SEARCHED.format(searched)
    unidentified = {"unidentified": float(len(unclear))}
    if not tested:
        return undecided(nothing, unidentified | dict(supporting or {}))
    strengths = [s.strength(len(tested)) for s in tested]
    values = [health(score, RELIANCE_LIMIT, z) for score, z in strengths]
    worst = int(np.argmin(values))
    score, z = strengths[worst]
    details = {"suspects": float(len(tested)), "worst_class": tested[worst].worst_reliance, **unidentified}
    details |= supporting or {}
    finding = Finding(
        max(score, 0.0),
        z,
        values[worst],
        details,
        f"strongest candidate: {tested[worst].source}",
        subject=tested[worst].source,
    )
    if finding.alarm:
        return finding
    if unclear:
        return undecided(
            f"nearly every class shows one value of {', '.join(unclear)} only, so that its use cannot be told",
            details,
        )
    return finding if any(s.origin != "hidden" for s in tested) else undecided(nothing, details)


def _describe_reliance(finding: Finding, context: AnalysisContext, candidate: pd.Series[Any]) -> str:
    limit = finding.limit
    name = candidate["source"] if candidate["origin"] == "region" else quote_name(candidate["source"])
    place = PLACES.get(str(candidate["origin"]), "{}").format(name)
    group, share = int(candidate["worst_class"]), float(candidate["worst_score"])
    whom = f"the evidence for {context.class_label(group)}" if group >= 0 else "its evidence"
    if finding.score > max(candidate["score"], 0.0) + 1e-9:  # a single class gave the alarm
        return f"{share:.0%} of {whom} depends on {place} (alarm above {limit / CLASS_WEIGHT:.0%})."
    most = f", and {share:.0%} of {whom}" if group >= 0 and share > candidate["score"] else ""
    kind = "evidence" if context.validation.task == "regression" else "evidence between the classes"
    return f"{candidate['score']:.1%} of the {kind} depends on {place} (alarm above {limit:.0%}){most}."


def _describe_place(finding: Finding, source: str) -> str:
    """Say where the candidate's own map shows it."""
    maps = finding.tables.get("confounder_maps", no_own_maps())
    maps = maps[maps["source"] == source]
    if maps.empty:
        return ""
    if float(maps["spread"].iloc[0]) >= GLOBAL_LIMIT:
        return "It is a look of the whole image: its own map has no place."
    names = ", ".join(str(int(place) + 1) for place in maps["peak"].iloc[0])
    size = " x ".join(str(int(side)) for side in maps["shape"].iloc[0])
    return f"Its own map peaks at cell {names} of {size}."


def _describe_trait(origin: str) -> str:
    """Say where what was found may rightly belong to the class."""
    if origin == "metadata":
        return (
            "Whether it may act through the content itself, as age does through the look of a lesion, is yours to say."
        )
    if origin in ("background", "swap", "region"):
        return "That the network reads it is a fact; whether it may is yours to say."
    return ""


def _describe_accuracies(candidate: pd.Series[Any]) -> str:
    aligned, conflicting = candidate["accuracy_aligned"], candidate["accuracy_conflicting"]
    if not (np.isfinite(aligned) and np.isfinite(conflicting)):
        return ""
    return (
        f"Of samples whose value goes with their class {aligned:.1%} are classified correctly, of the "
        f"{int(candidate['conflicting'])} whose value points away from it {conflicting:.1%}."
    )


def _describe_others(frame: pd.DataFrame, source: str) -> str:
    others = frame[(frame["source"] != source) & (frame["note"] != "")]["source"]
    more = [quote_name(other) for other in others[:MOST_NAMED]]
    rest = len(others) - len(more)
    more += [f"{rest} more"] if rest else []
    return f"Taken alone, {join_words(more)} would be over the limit as well." if more else ""
