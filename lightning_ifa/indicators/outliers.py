"""Outliers: which samples lie far from the training samples of their own class, and of which kind are they?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

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
    undecided,
)
from lightning_ifa.indicators.context import AnalysisContext, evidence
from lightning_ifa.statistics.duplicates import DuplicateInput, Duplicates, find_duplicates
from lightning_ifa.statistics.generalization_gap import margin
from lightning_ifa.statistics.neighbour_outliers import (
    KINDS,
    NEIGHBOURS,
    NOISE_LIMIT,
    OutlierInput,
    OutlierScores,
    outlier_kinds,
    outlier_scores,
    small_classes,
)
from lightning_ifa.statistics.significance import health
from lightning_ifa.text import join_sentences, join_words, quote_name, start_sentence

NULL_SHARE = 0.01
EXCESS_LIMIT = 0.01

SMALLEST_PROBABILITY = 1e-7

WORDS = {
    "mislabelled": ("{} with a doubtful label, since their neighbours carry another one", "check these labels first"),
    "corrupted": ("{} damaged, with an image out of the ordinary", "look for errors in reading and preprocessing"),
    "foreign": ("{} foreign, far from every class", "find out where the foreign ones come from"),
    "atypical": (
        "{} atypical, far from their own class only",
        "see whether the atypical ones form a group",
    ),
    "duplicate": ("{} copies of training samples", ""),
    "near-duplicate": ("{} near copies of training samples", ""),
}


COPIES = "take the copies of training samples out of the validation split, which looks better than it is with them"


class Outliers(Indicator):
    """The share of samples unlike their class, or copied from training; see ``outliers``."""

    name = "outliers"
    meaning = "share of validation samples unlike their class, or copied from training, beyond 1 %"
    limit = EXCESS_LIMIT

    def assess(self, context: AnalysisContext) -> Finding:
        """Score every sample of both splits against the training samples, and look for copies."""
        scores, duplicates = _score_samples(context), _find_duplicates(context)
        found = outliers(scores["validation"], duplicates)
        return replace(found, tables={"samples": list_samples(context, scores, duplicates)})

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Count the outliers of each kind and name the first."""
        if finding.undecided:
            return Explanation(finding.note)
        rows = finding.tables["samples"]
        rows = rows[(rows["split"] == "validation") & (rows["kind"] != "")]
        rows = rows.sort_values("score", ascending=False, kind="stable")
        counts, total = rows["kind"].value_counts(), len(context.validation)
        kinds = [kind for kind in WORDS if kind in counts]
        parts = [WORDS[kind][0].format(counts[kind]) for kind in kinds]
        noise = finding.details.get("label_noise", 0.0)
        contradicted = f"In both splits, at least {noise:.0%} of the labels contradict their neighbours."
        first = [quote_name(name) for name in rows["sample_id"][:MOST_NAMED]]
        found = [
            f"{len(rows):,} of {total:,} validation samples ({len(rows) / total:.1%}) are unlike their class or copied "
            "from training; clean data has about 1%.",
            f"They are: {'; '.join(parts)}." if parts else "",
            contradicted if noise > NOISE_LIMIT else "",
            f"The first to look at: {join_words(first)}." if first else "",
        ]
        advice = [WORDS[kind][1] for kind in kinds if WORDS[kind][1]]
        advice += [COPIES] if (rows["duplicate_of"] != "").any() else []
        text = start_sentence("; ".join(advice) or "go through the list of outliers")
        return Explanation(join_sentences(found), describe_certainty(finding), f"{text}.")

    def null(self, finding: Finding, context: AnalysisContext) -> Null | None:
        """Binomial, with the share that clean data may have."""
        if finding.undecided:
            return None
        n = len(context.validation)
        count = np.arange(int(NULL_SHARE * n + 6 * np.sqrt(NULL_SHARE * n)) + 3)
        density = binom.pmf(count, n, NULL_SHARE)
        bound = 3 * np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
        return Null((count / n - NULL_SHARE) / EXCESS_LIMIT, density / density.max(), bound / EXCESS_LIMIT)

    def statistic(self, finding: Finding, context: AnalysisContext) -> Statistic | None:
        """The excess among some of the rows, with the outliers that all rows together gave."""
        rows = finding.tables["samples"]
        rows = rows[rows["split"] == "validation"]
        judged, flagged = rows["score"].notna().to_numpy(), (rows["kind"] != "").to_numpy()

        def excess(rows: Rows, _: Rows) -> float:
            return max(float(flagged[rows][judged[rows]].mean()) - NULL_SHARE, 0.0)

        return excess

    def warnings(self, context: AnalysisContext) -> list[str]:
        """Classes that are too small to look for outliers within."""
        groups = context.strata
        small = small_classes(groups["validation"], groups.get("train", groups["validation"]))
        if not len(small):
            return []
        rows, classes = int(np.isin(groups["validation"], small).sum()), len(np.unique(groups["validation"]))
        return [
            f"outliers: {len(small)} of {classes} classes have {NEIGHBOURS} reference samples or fewer; their {rows} "
            "validation samples are compared with samples of any class, which hardly finds wrong labels"
        ]

    def empty_tables(self, context: AnalysisContext) -> Mapping[str, pd.DataFrame]:
        """Every sample, without a score."""
        return {"samples": list_samples(context, {}, None)}


def list_samples(
    context: AnalysisContext, scores: Mapping[str, OutlierScores], duplicates: Duplicates | None
) -> pd.DataFrame:
    """List every sample of every split; for the columns see ``AnalysisResult.samples``.

    Args:
        context: The analysis.
        scores: Outlier scores of each split; none where they could not be computed.
        duplicates: Which validation samples are copies of training samples, or None.
    """
    parts = []
    for split, table in context.tables.items():
        kinds = outlier_kinds(scores[split]) if split in scores else np.full(len(table), "", dtype=object)
        copied_from, outside = np.full(len(table), "", dtype=object), None
        if split == "validation" and duplicates is not None:
            kinds = np.where((kinds == "") & (duplicates.match >= 0), duplicates.kind, kinds)
            copied_from = np.where(
                duplicates.match >= 0, context.tables["train"].sample_ids[duplicates.match], copied_from
            )
        if split == "validation" and context.localization is not None:
            outside = context.localization.share
        columns = {
            "sample_id": table.sample_ids,
            "split": split,
            "score": scores[split].score if split in scores else np.nan,
            "kind": kinds,
            "target": table.targets,
            "prediction": table.predictions,
            "evidence": evidence(table),
            "duplicate_of": copied_from,
            "outside": np.nan if outside is None else outside,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def label_margins(table: FeatureTable, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the evidence for the label's class over the next best in logits, NaN where classes do not compete, ``(n,)``.

    A network that gives probabilities is read in their logarithms: near 1 they differ by next to nothing, so that any
    doubt would lie many standard deviations away from the rest.
    """
    if table.task not in ("multiclass", "binary"):
        return np.full(len(table), np.nan)
    logits = table.logits.astype(np.float64)
    if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
        logits = np.log(np.maximum(logits, SMALLEST_PROBABILITY))
    return np.where(labels >= 0, margin(logits, np.maximum(table.targets, 0)), np.nan)


def _score_samples(context: AnalysisContext) -> dict[str, OutlierScores]:
    samples = {
        split: OutlierInput(
            t.activations,
            t.contributions,
            t.properties.to_numpy(np.float64),
            label_margins(t, context.strata[split]),
            context.strata[split],
        )
        for split, t in context.tables.items()
    }
    reference = samples.get("train")
    return {
        split: outlier_scores(s, None if split == "train" else reference, context.seed) for split, s in samples.items()
    }


def _find_duplicates(context: AnalysisContext) -> Duplicates | None:
    if "train" not in context.tables:
        return None
    held_out, train = (
        DuplicateInput(t.fingerprints, t.activations, t.cams) for t in (context.validation, context.tables["train"])
    )
    return find_duplicates(held_out, train, context.seed)


def outliers(scores: OutlierScores, duplicates: Duplicates | None = None) -> Finding:
    """Judge the validation split by its share of outliers and leaked samples beyond what clean data has.

    Score: share of samples with a score above 5 or a duplicate in the training split, minus the 1 % that clean data may
    have, clipped at 0; 0.01 alarm. Null: binomial with that 1 %. Cannot be told: no reference samples.

    Args:
        scores: Outlier scores of the validation split.
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
