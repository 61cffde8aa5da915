"""The verdict in plain words, as Markdown: what was found, how sure that is, what to try."""

from __future__ import annotations

import math

from lightning_ifa.indicators import registry
from lightning_ifa.indicators.base import Finding
from lightning_ifa.report.labels import describe_method
from lightning_ifa.report.result import AnalysisResult
from lightning_ifa.statistics.significance import Z_LIMIT
from lightning_ifa.text import escape_prose, join_words, shorten

LONGEST_NOTE = 300
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def verdict(finding: Finding) -> str:
    """One or three words: what the finding says."""
    return "ALARM" if finding.alarm else "cannot be told" if finding.undecided else "nothing found"


def verdict_in_words(finding: Finding) -> str:
    """The verdict where samples are listed below it: without an alarm, too, some may be worth a look."""
    listed = sum(int((table["kind"] != "").sum()) for table in finding.tables.values() if "kind" in table)
    return f"no alarm, {listed} to look at" if listed and verdict(finding) == "nothing found" else verdict(finding)


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def headline(report: AnalysisResult) -> str:
    """The overall verdict in one sentence."""
    alarms, total = report.alarms, len(report.findings)
    unknown = [family for family, finding in report.findings.items() if finding.undecided]
    families = f"{_number(total)} {'indicator' if total == 1 else 'indicators'}"
    if not alarms:
        return f"No alarm, but {join_words(unknown)} cannot be told" if unknown else f"No alarm in {families}"
    raised = f"{'raises' if len(alarms) == 1 else 'raise'} an alarm: {join_words(alarms)}"
    text = f"{_number(len(alarms)).capitalize()} of {families} {raised}"
    return f"{text}; {join_words(unknown)} cannot be told" if unknown else text


def summary(report: AnalysisResult, title: str = "Integrated feature analysis") -> str:
    """Write the report's verdicts as Markdown.

    Args:
        report: The report.
        title: What was analysed, and when.
    """
    validation = report.tables["validation"]
    samples = join_words([f"{len(table):,} {split}" for split, table in report.tables.items()])
    layer = shorten(validation.layer, 100).replace("`", "'")
    heading = escape_prose(shorten(title, LONGEST_NOTE))
    parts = [
        f"# {headline(report)}.",
        f"{heading}: layer `{layer}`, {validation.contributions.shape[1]} channels, "
        f"{escape_prose(describe_method(validation))}; {samples} samples; data `{report.digest}`.",
        *(_alarm(report, family) for family in report.alarms),
        *_unknown(report),
        *_quiet(report),
        *(f"*Left out:* {escape_prose(shorten(text, LONGEST_NOTE))}" for text in report.warnings),
        _table(report),
    ]
    return "\n\n".join(parts) + "\n"


def _alarm(report: AnalysisResult, family: str) -> str:
    found, certainty, advice = map(escape_prose, report.explain(family))
    return f"## {family.capitalize()}\n\n* **Found:** {found}\n* **How sure:** {certainty}\n* **To try:** {advice}"


def _unknown(report: AnalysisResult) -> list[str]:
    """Why a family cannot be told, and what would change that."""
    reasons = {}
    for family in (family for family, finding in report.findings.items() if finding.undecided):
        words = report.explain(family)
        reasons[family] = f"{words.found}; {words.advice}" if words.advice else words.found
    return [
        f"**{family.capitalize()}** cannot be told: {escape_prose(shorten(reason, LONGEST_NOTE)).rstrip('.')}."
        for family, reason in (reasons | report.missing).items()
    ]


def _quiet(report: AnalysisResult) -> list[str]:
    """The families without a finding, in one line."""
    quiet = {f: finding for f, finding in report.findings.items() if not finding.alarm and not finding.undecided}
    return (
        [f"**Quiet:** {join_words([_aside(family, finding) for family, finding in quiet.items()])}."] if quiet else []
    )


def _aside(family: str, finding: Finding) -> str:
    if finding.score > finding.limit:
        return f"{family} (above its limit, but chance explains that: z = {finding.z:.1f})"
    return f"{family} (small, but more than chance: z = {finding.z:.1f})" if finding.z >= Z_LIMIT else family


def _table(report: AnalysisResult) -> str:
    lines = [
        "| indicator | verdict | score | z | detectable | health | what the score is |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, f in report.findings.items():
        meaning = registry.indicator_of(family).meaning
        least = f"{f.detectable:.3f}" if math.isfinite(f.detectable) else "–"
        cells = family, verdict_in_words(f), f"{f.score:.3f}", f"{f.z:.1f}", least, f"{f.health:.2f}", meaning
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "*detectable*: the smallest score on which these samples would have alarmed with a chance of 80 %."]
    return "\n".join(lines)
