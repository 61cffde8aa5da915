"""What each family found, in sentences for a reader in a hurry; plain text, not yet escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.limits import alarm_limit
from lightning_ifa.report.examples import judged_candidates, rows_of
from lightning_ifa.statistics.confounder_candidates import CLASS_WEIGHT
from lightning_ifa.statistics.neighbour_outliers import NOISE_LIMIT
from lightning_ifa.statistics.significance import Z_LIMIT

LONGEST_NAME = 40
MOST_NAMED = 3
CERTAIN = 4.75  # standard deviations that chance exceeds less than once in a million times

OUTLIERS = {
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

PLACES = {
    "metadata": "the metadata column {}",
    "background": "the image property {}, measured around the object",
    "swap": "the part of the image called {}",
    "region": "what lies {}",
}

AGAINST = {
    "metadata": "Balance its values over the classes, or weight the samples, and train again",
    "background": "Look at the images with its highest and lowest values; crop or mask the background, and train again",
    "swap": "Look at that part of the images; crop or mask it, and train again",
    "region": "Look at the maps outside your regions; crop or mask what lies there, and train again",
}


class Explanation(NamedTuple):
    """An alarm in words.

    Attributes:
        found: What was found.
        sure: How sure that is.
        advice: What to try next.
    """

    found: str
    sure: str
    advice: str


def explain(report: FeatureReport, family: str) -> Explanation:
    """Tell of a family whose fault was found."""
    found, advice = TELLERS[family](report)
    finding = report.findings[family]
    return Explanation(
        found, sureness(finding.z) if finding.z else "It is counted on these samples, not estimated.", advice
    )


def sureness(z: float) -> str:
    """Say what a z means: how often chance alone gives as much.

    >>> sureness(3.0)
    'Chance alone would give this once in about 740 analyses (z = 3.0).'
    """
    if z > CERTAIN:
        return f"Practically certain: chance alone would give this less than once in a million analyses (z = {z:.1f})."
    often = 1 / float(norm.sf(max(z, 0.0)))
    digits = 10 ** max(int(np.log10(often)) - 1, 0)
    return f"Chance alone would give this once in about {round(often / digits) * digits:,} analyses (z = {z:.1f})."


def quote_name(text: object, longest: int = LONGEST_NAME) -> str:
    """A user's name within a sentence: in quotes, on one line, of bounded length."""
    return f"“{shorten(str(text), longest)}”"


def shorten(text: str, longest: int) -> str:
    """One line of printable signs, of bounded length."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 20 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def join_words(parts: Sequence[str]) -> str:
    """Join as in a sentence.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def _overfitting(report: FeatureReport) -> tuple[str, str]:
    finding, task = report.findings["overfitting"], report.tables["validation"].task
    closer = {"regression": "predictions are closer to the truth", "custom": "the score is higher"}
    what = closer.get(task, "the evidence for the true class is stronger")
    found = [
        f"On training samples {what} than on validation samples, by {finding.score:.2f} standard deviations on "
        f"average (alarm above {alarm_limit('overfitting', finding):.2f}).",
        _gap_by_class(report),
        _gap_by_channel(report),
        _since(report),
    ]
    more = "train with more data, augmentation or weight decay"
    start = report.left_null
    if start is not None and start > report.trend[0][0]:
        return _sentences(found), f"Go back to a checkpoint from before epoch {start}, or {more}."
    return _sentences(found), f"{more[:1].upper()}{more[1:]}, or stop earlier."


def _gap_by_class(report: FeatureReport) -> str:
    gaps = report.overfitting_classes
    gaps = gaps[gaps["z"] > Z_LIMIT].head(MOST_NAMED)
    if gaps.empty or report.tables["validation"].task == "custom":
        return ""
    parts = [f"{_group(report, int(row['class']))} ({row['gap']:.2f})" for row in gaps.to_dict("records")]
    return f"It is widest for {join_words(parts)}."


def _gap_by_channel(report: FeatureReport) -> str:
    gaps = report.overfitting_features
    gaps = gaps[(gaps["z"] > Z_LIMIT) & (gaps["share"] > 0)].head(MOST_NAMED)
    return f"The channels that carry most of it: {join_words([str(c) for c in gaps['feature']])}." if len(gaps) else ""


def _since(report: FeatureReport) -> str:
    if report.left_null is None:
        return "It showed at the latest analysis only; the next one tells whether it stays." if report.trend else ""
    if report.left_null == report.trend[0][0]:
        return f"It was there at the first analysis already, in epoch {report.left_null}."
    return f"It left its null in epoch {report.left_null}: from then on it is more than chance."


def _confounding(report: FeatureReport) -> tuple[str, str]:
    finding, frame = report.findings["confounding"], judged_candidates(report)
    frame = frame[frame["origin"] != "content"]
    strongest = frame[[finding.note.endswith(f": {source}") for source in frame["source"]]]
    chosen = frame if strongest.empty else strongest
    if chosen.empty:
        return _sentences([shorten(finding.note[:1].upper() + finding.note[1:], 200)]), f"{AGAINST['metadata']}."
    candidate = chosen.iloc[0]
    found = [
        _reliance(report, candidate),
        _accuracies(candidate),
        f"It is carried by channels {candidate['features']}." if candidate["features"] else "",
        _further(frame, str(candidate["source"])),
    ]
    return _sentences(found), AGAINST.get(str(candidate["origin"]), AGAINST["metadata"]) + "."


def _reliance(report: FeatureReport, candidate: pd.Series[Any]) -> str:
    finding, limit = report.findings["confounding"], alarm_limit("confounding", report.findings["confounding"])
    name = candidate["source"] if candidate["origin"] == "region" else quote_name(candidate["source"])
    place = PLACES.get(str(candidate["origin"]), "{}").format(name)
    group, share = int(candidate["worst_class"]), float(candidate["worst_score"])
    whom = f"the evidence for {_group(report, group)}" if group >= 0 else "its evidence"
    if finding.score > max(candidate["score"], 0.0) + 1e-9:  # a single class gave the alarm
        return f"{share:.0%} of {whom} runs through {place} (alarm above {limit / CLASS_WEIGHT:.0%})."
    most = f", and {share:.0%} of {whom}" if group >= 0 and share > candidate["score"] else ""
    kind = "evidence" if report.tables["validation"].task == "regression" else "evidence between the classes"
    return f"{candidate['score']:.1%} of the {kind} runs through {place} (alarm above {limit:.0%}){most}."


def _accuracies(candidate: pd.Series[Any]) -> str:
    aligned, conflicting = candidate["accuracy_aligned"], candidate["accuracy_conflicting"]
    if not (np.isfinite(aligned) and np.isfinite(conflicting)):
        return ""
    return (
        f"Of samples whose value goes with their class {aligned:.1%} are classified correctly, of the "
        f"{int(candidate['conflicting'])} whose value speaks against it {conflicting:.1%}."
    )


def _further(frame: pd.DataFrame, source: str) -> str:
    others = frame[(frame["source"] != source) & (frame["note"] != "")]["source"]
    more = [quote_name(other) for other in others[:MOST_NAMED]]
    rest = len(others) - len(more)
    more += [f"{rest} more"] if rest else []
    return f"Taken alone, {join_words(more)} would be over the limit as well." if more else ""


def _outliers(report: FeatureReport) -> tuple[str, str]:
    finding, rows = report.findings["outliers"], rows_of(report, "validation")
    rows = rows[rows["kind"] != ""].sort_values("score", ascending=False, kind="stable")
    counts, total = rows["kind"].value_counts(), len(report.tables["validation"])
    kinds = [kind for kind in OUTLIERS if kind in counts]
    parts = [OUTLIERS[kind][0].format(counts[kind]) for kind in kinds]
    noise = finding.details.get("label_noise", 0.0)
    first = [quote_name(name) for name in rows["sample_id"][:MOST_NAMED]]
    found = [
        f"{len(rows):,} of {total:,} validation samples ({len(rows) / total:.1%}) are unlike their class or copied "
        "from training; clean data has about 1%.",
        f"They are: {'; '.join(parts)}." if parts else "",
        f"In both splits, at least {noise:.0%} of the labels contradict their neighbours."
        if noise > NOISE_LIMIT
        else "",
        f"The first to look at: {join_words(first)}." if first else "",
    ]
    advice = [OUTLIERS[kind][1] for kind in kinds if OUTLIERS[kind][1]]
    advice += [COPIES] if (rows["duplicate_of"] != "").any() else []
    text = "; ".join(advice) or "go through the list of outliers"
    return _sentences(found), f"{text[:1].upper()}{text[1:]}."


def _redundancy(report: FeatureReport) -> tuple[str, str]:
    finding, channels = report.findings["redundancy"], report.tables["validation"].contributions.shape[1]
    names = {
        "dead_fraction": "{} do not vary",
        "duplicate_share": "{} repeat another",
        "dependent_share": "{} are linear mixes of others",
    }
    counts = {name: round(finding.details.get(name, 0.0) * channels) for name in names}
    spare = round(finding.score * channels)
    parts = [names[name].format(count) for name, count in counts.items() if count]
    found = [
        f"{spare} of {channels} channels could go without loss (alarm above {alarm_limit('redundancy', finding):.0%})"
        + (f": {join_words(parts)}." if parts else "."),
        shorten(finding.note[:1].upper() + finding.note[1:], 200),
    ]
    return _sentences(found), f"Make the layer thinner; about {channels - spare} channels would do."


def _consistency(report: FeatureReport) -> tuple[str, str]:
    finding = report.findings["consistency"]
    found = (
        f"The sum of the map misses {finding.score:.0%} of what makes the logit rise and fall (alarm above "
        f"{alarm_limit('consistency', finding):.0%}), so a brighter map does not mean more evidence."
    )
    advice = (
        "Do not compare the maps' intensities at this layer with this method. HiResCAM at the last convolution is the "
        "safe choice; behind a LayerNorm head no method is."
    )
    return found, advice


TELLERS: dict[str, Callable[[FeatureReport], tuple[str, str]]] = {
    "overfitting": _overfitting,
    "confounding": _confounding,
    "outliers": _outliers,
    "redundancy": _redundancy,
    "consistency": _consistency,
}


def _group(report: FeatureReport, number: int) -> str:
    """A class by its name, or a bin of regression's targets by its place."""
    if report.tables["validation"].targets.dtype.kind == "f":
        return f"target bin {number + 1}, counted from the lowest"
    names = report.class_names
    return f"class {quote_name(names[number])}" if 0 <= number < len(names) else f"class {number}"


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
