"""Outliers: which samples lie far from the training samples of their own class, and of which kind are they?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, binom

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
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.indicators.sample_table import CONFLICT, list_samples, sort_outliers
from lightning_ifa.statistics.duplicates import DuplicateInput, Duplicates, find_duplicates
from lightning_ifa.statistics.generalization_gap import margin
from lightning_ifa.statistics.label_noise import LabelScores, class_nearness, score_labels
from lightning_ifa.statistics.metadata_columns import GROUP
from lightning_ifa.statistics.neighbour_outliers import (
    KINDS,
    NEIGHBOURS,
    OutlierInput,
    OutlierReference,
    OutlierScores,
    outlier_kinds,
    small_classes,
)
from lightning_ifa.statistics.significance import Z_LIMIT, health
from lightning_ifa.text import join_sentences, join_words, quote_name, start_sentence

NULL_SHARE = 0.01
EXCESS_LIMIT = 0.01

SMALLEST_PROBABILITY = 1e-7

WORDS = {
    CONFLICT: (
        "{} copies of training samples under another label",
        "settle which label of each pair of copies is right",
    ),
    "mislabelled": ("{} whose label is probably wrong", "check these labels first"),
    "corrupted": ("{} with an image far out of the ordinary", "look for errors in reading and preprocessing"),
    "foreign": ("{} foreign, far from every class", "find out where the foreign ones come from"),
    "atypical": (
        "{} atypical, far from their own class only",
        "see whether the atypical ones form a group",
    ),
    "duplicate": ("{} copies of training samples", ""),
    "near-duplicate": ("{} near copies of training samples", ""),
}


COPIES = "take the copies of training samples out of the validation split, which looks better than it is with them"

SHARED = "split by group: what is known from the training samples of a group flatters the validation"

UNCLEAR = "Whether classes overlap or some labels are wrong cannot be told apart on these samples."


class Outliers(Indicator):
    """The share of samples unlike their class, or copied from training; see ``outliers``."""

    name = "outliers"
    meaning = "share of validation samples unlike their class, or copied from training, beyond 1 %"
    limit = EXCESS_LIMIT

    def assess(self, context: AnalysisContext) -> Finding:
        """Score every sample of both splits against the training samples, and look for copies."""
        scores, labels = _score_samples(context)
        duplicates, shared = _find_duplicates(context), rows_of_shared_groups(context)
        found = outliers(scores["validation"], duplicates, labels.get("validation"), shared)
        return replace(found, tables={"samples": list_samples(context, scores, duplicates, labels)})

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Count the outliers of each kind and name the first."""
        if finding.undecided:
            return Explanation(finding.note)
        rows = finding.tables["samples"]
        rows = rows[(rows["split"] == "validation") & (rows["kind"] != "")]
        rows = sort_outliers(rows)
        counts, total = rows["kind"].value_counts(), len(context.validation)
        kinds = [kind for kind in WORDS if kind in counts]
        parts = [WORDS[kind][0].format(counts[kind]) for kind in kinds]
        noise, shared = (finding.details.get(name, 0.0) for name in ("label_noise", "shared_group_rows"))
        contradicted = f"About {noise:.1%} of the labels are wrong: errors do not end where the network is surest."
        leaked = f"{shared:.0f} of {total:,} validation samples share their group with training samples."
        first = [quote_name(name) for name in rows["sample_id"][:MOST_NAMED]]
        found = [
            f"{len(rows):,} of {total:,} validation samples ({len(rows) / total:.1%}) are unlike their class or copied "
            "from training; clean data has about 1%.",
            f"They are: {'; '.join(parts)}." if parts else "",
            contradicted if noise else "",
            leaked if shared else "",
            finding.note,
            f"The first to look at: {join_words(first)}." if first else "",
        ]
        advice = [WORDS[kind][1] for kind in kinds if WORDS[kind][1]]
        advice += [COPIES] if (rows["duplicate_of"] != "").any() else []
        advice += [SHARED] if shared else []
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


def rows_of_shared_groups(context: AnalysisContext) -> NDArray[np.bool_] | None:
    """Which validation rows belong to a group (patient, lesion) with training rows, ``(n,)``; None if unknown."""
    if any(GROUP not in context.tables[s].metadata for s in context.tables) or "train" not in context.tables:
        return None
    groups, known = (context.tables[split].metadata[GROUP] for split in ("validation", "train"))
    return np.asarray(groups.isin(known.dropna()) & groups.notna(), dtype=bool)


def detectable_share(n: int) -> float:
    """Give the smallest share of bad samples that alarms with 80 % chance among n samples.

    >>> round(detectable_share(200), 3), round(detectable_share(1000), 3)
    (0.045, 0.025)
    """
    spread = np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
    count = int(np.floor(n * max(NULL_SHARE + EXCESS_LIMIT, NULL_SHARE + Z_LIMIT * spread) + 1e-9)) + 1
    return float(beta.ppf(0.8, count, n - count + 1)) if count <= n else 1.0


def label_margins(table: FeatureTable, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the evidence for the label's class over the next best in logits, NaN where classes do not compete, ``(n,)``.

    A network that gives probabilities is read in their logarithms: near 1 they differ by next to nothing, so that any
    doubt would lie many standard deviations away from the rest.
    """
    if not table.has_one_label:
        return np.full(len(table), np.nan)
    return np.where(labels >= 0, margin(read_logits(table), np.maximum(table.targets, 0)), np.nan)


def read_logits(table: FeatureTable) -> NDArray[np.float64]:
    """Give the logits, or the logarithms of probabilities, ``(n, k)``."""
    logits = table.logits.astype(np.float64)
    if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
        return np.asarray(np.log(np.maximum(logits, SMALLEST_PROBABILITY)))
    return logits


def _score_samples(context: AnalysisContext) -> tuple[dict[str, OutlierScores], dict[str, LabelScores]]:
    """Score samples and, where one class of several is right, their labels, by the same neighbours."""
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
    base = "train" if "train" in samples else "validation"
    reference = OutlierReference(samples[base], context.seed)
    targets = context.tables[base].targets[reference.rows]
    scores, labels = {}, {}
    for split, table in context.tables.items():
        similarity = reference.compare(samples[split])
        scores[split] = reference.score(samples[split], similarity)
        if context.validation.has_one_label:
            nearness = class_nearness(similarity[0], targets, table.logits.shape[1])
            given = np.where(context.strata[split] >= 0, table.targets, -1)
            labels[split] = score_labels(read_logits(table), nearness, given)
    return scores, labels


def _find_duplicates(context: AnalysisContext) -> Duplicates | None:
    if "train" not in context.tables:
        return None
    held_out, train = (
        DuplicateInput(t.fingerprints, t.activations, t.cams, t.thumbnails, _colours(t))
        for t in (context.validation, context.tables["train"])
    )
    return find_duplicates(held_out, train, context.seed)


def _colours(table: FeatureTable) -> NDArray[np.float64]:
    """Mean of each channel less the brightness, in units of the usual contrast, ``(n, k)``."""
    properties = table.properties
    colours = properties[[name for name in properties if str(name).startswith("colour_")]].to_numpy(np.float64)
    contrast = float(properties["contrast"].median()) if "contrast" in properties else 0.0
    return colours / max(contrast, 1e-9)


def outliers(
    scores: OutlierScores,
    duplicates: Duplicates | None = None,
    labels: LabelScores | None = None,
    shared: NDArray[np.bool_] | None = None,
) -> Finding:
    """Judge the validation split by its share of outliers, wrong labels and leaked samples beyond what clean data has.

    Score: share of samples that are unlike their class, probably mislabelled, a copy of a training sample, or of a
    group that training samples belong to, or the estimated share of wrong labels if that is larger, minus the 1 % that
    clean data may have, clipped at 0; 0.01 alarm. Null: binomial with that 1 %. Cannot be told: no reference samples.

    Args:
        scores: Outlier scores of the validation split.
        duplicates: Its copies in the training split, or None.
        labels: What is thought of its labels, or None.
        shared: Which of its samples share their group with training samples, ``(n,)``, or None.
    """
    judged = np.isfinite(scores.score)
    n = int(judged.sum())
    if not n:
        return undecided("there are no reference samples to compare with")
    leaked = np.zeros(len(judged), dtype=bool) if duplicates is None else duplicates.match >= 0
    together = np.zeros(len(judged), dtype=bool) if shared is None else shared
    kinds = outlier_kinds(scores, labels)
    wrong = labels.share if labels is not None and labels.announced else 0.0
    share = max(float((leaked | together | (kinds != ""))[judged].mean()), wrong)
    z = (share - NULL_SHARE) / np.sqrt(NULL_SHARE * (1 - NULL_SHARE) / n)
    details = {"share": share, "leaked_share": float(leaked.mean()), "label_noise": wrong}
    details |= {"label_evidence": 0.0 if labels is None else labels.evidence, "detectable": detectable_share(n)}
    if shared is not None:
        details |= {"shared_group_rows": float(together.sum()), "shared_group_share": float(together.mean())}
    details |= {f"{kind}_share": float((kinds == kind).mean()) for kind in KINDS}
    score = max(share - NULL_SHARE, 0.0)
    note = UNCLEAR if labels is not None and labels.unclear else ""
    return Finding(score, float(z), health(score, EXCESS_LIMIT, float(z)), details, note)
