"""The verdict in plain words, as Markdown: what was found, how sure that is, what to try."""

from __future__ import annotations

import re

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.base import Finding
from lightning_ifa.indicators.limits import alarm_limit
from lightning_ifa.report.told import explain, join_words, shorten
from lightning_ifa.statistics.significance import Z_LIMIT

MEANING = {
    "overfitting": "evidence on training samples beyond that on validation samples, in standard deviations",
    "confounding": "share of the evidence between classes that runs through the strongest candidate",
    "outliers": "share of validation samples unlike their class, or copied from training, beyond 1 %",
    "redundancy": "share of channels that are dead, copies, or linear mixes of others",
    "consistency": "share of the logit's variance that the map's sum misses",
}

MORE_KNOWLEDGE = "; hand over what you know of each sample (metadata=), or where the evidence should lie (regions=)"
NO_TRAINING = "there are no training samples; hand over a training loader"
LONGEST_NOTE = 300
NUMBERS = ("none", "one", "two", "three", "four", "five")
MARKS = re.compile(r"[\\`*\[\]<>|#~]|(?<![^\W_])_|_(?![^\W_])")


def verdict(finding: Finding) -> str:
    """One or three words: what the finding says."""
    return "ALARM" if finding.alarm else "cannot be told" if finding.undecided else "nothing found"


def headline(report: FeatureReport) -> str:
    """The overall verdict in one sentence."""
    alarms, total = report.alarms, len(report.findings)
    unknown = [family for family, finding in report.findings.items() if finding.undecided]
    families = f"{NUMBERS[total]} {'family' if total == 1 else 'families'}"
    if not alarms:
        return f"No alarm, but {join_words(unknown)} cannot be told" if unknown else f"No alarm in {families}"
    raised = f"{'raises' if len(alarms) == 1 else 'raise'} an alarm: {join_words(alarms)}"
    text = f"{NUMBERS[len(alarms)].capitalize()} of {families} {raised}"
    return f"{text}; {join_words(unknown)} cannot be told" if unknown else text


def summary(report: FeatureReport, title: str = "Integrated feature analysis") -> str:
    """Write the report's verdicts as Markdown.

    Args:
        report: The report.
        title: What was analysed, and when.
    """
    validation = report.tables["validation"]
    samples = join_words([f"{len(table):,} {split}" for split, table in report.tables.items()])
    layer = shorten(validation.layer, 100).replace("`", "'")
    heading = _plain(shorten(title, LONGEST_NOTE))
    parts = [
        f"# {headline(report)}.",
        f"{heading}: layer `{layer}`, {validation.contributions.shape[1]} channels, {_plain(validation.cam)}; "
        f"{samples} samples; data `{report.digest}`.",
        *(_alarm(report, family) for family in report.alarms),
        *_unknown(report),
        *_quiet(report),
        *(f"*Left out:* {_plain(shorten(text, LONGEST_NOTE))}" for text in report.warnings),
        _table(report),
    ]
    return "\n\n".join(parts) + "\n"


def _alarm(report: FeatureReport, family: str) -> str:
    words = explain(report, family)
    return (
        f"## {family.capitalize()}\n\n* **Found:** {_plain(words.found)}\n* **How sure:** {_plain(words.sure)}\n"
        f"* **To try:** {_plain(words.advice)}"
    )


def _unknown(report: FeatureReport) -> list[str]:
    """Why a family cannot be told, and what would change that."""
    reasons = {family: finding.note for family, finding in report.findings.items() if finding.undecided}
    if "confounding" in reasons and report.tables["validation"].metadata.empty:
        reasons["confounding"] += MORE_KNOWLEDGE
    if "overfitting" not in report.findings:
        reasons["overfitting"] = NO_TRAINING
    return [
        f"**{family.capitalize()}** cannot be told: {_plain(shorten(reason, LONGEST_NOTE)).rstrip('.')}."
        for family, reason in reasons.items()
    ]


def _quiet(report: FeatureReport) -> list[str]:
    """The families without a finding, in one line."""
    quiet = {f: finding for f, finding in report.findings.items() if not finding.alarm and not finding.undecided}
    return (
        [f"**Quiet:** {join_words([_aside(family, finding) for family, finding in quiet.items()])}."] if quiet else []
    )


def _aside(family: str, finding: Finding) -> str:
    if finding.score > alarm_limit(family, finding):
        return f"{family} (above its limit, but chance explains that: z = {finding.z:.1f})"
    return f"{family} (small, but more than chance: z = {finding.z:.1f})" if finding.z >= Z_LIMIT else family


def _table(report: FeatureReport) -> str:
    lines = [
        "| family | verdict | score | z | health | what the score is |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {family} | {verdict(f)} | {f.score:.3f} | {f.z:.1f} | {f.health:.2f} | {MEANING[family]} |"
        for family, f in report.findings.items()
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    r"""Keep what users named from becoming markup.

    >>> print(_plain("a_b _c_ <i>"))
    a_b \_c\_ \<i\>
    """
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return MARKS.sub(lambda mark: f"\\{mark[0]}", line)
