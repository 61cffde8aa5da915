"""The verdict in plain words, as Markdown."""

from __future__ import annotations

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.indicators.finding import Finding

MEANING = {
    "overfitting": "evidence on training samples beyond that on validation samples, in standard deviations",
    "confounding": "share of the evidence between classes that runs through the strongest suspect",
    "outliers": "share of validation samples unlike their class, or copied from training, beyond 1 %",
    "redundancy": "share of channels that are dead, copies, or linear mixes of others",
    "consistency": "share of the logit's variance that the map's sum misses",
}

ADVICE = {
    "overfitting": "More data, augmentation, weight decay or an earlier stop; compare with the trend over epochs.",
    "confounding": "Look at the suspect's images and channels; balance, mask or remove it, then train again.",
    "outliers": "Go through the list of outliers: wrong labels first, then damaged or foreign images.",
    "redundancy": "The layer could be thinner; try fewer channels.",
    "consistency": "Do not compare map intensities at this layer with this method; HiResCAM at the last "
    "convolution is the safe choice, and no method is behind a LayerNorm head.",
}


def verdict(finding: Finding) -> str:
    """One or three words: what the finding says."""
    return "ALARM" if finding.alarm else "cannot be told" if finding.undecided else "nothing found"


def summary(report: FeatureReport, title: str = "Integrated feature analysis") -> str:
    """Write the report's verdicts as Markdown.

    Args:
        report: The report.
        title: The heading.
    """
    validation = report.tables["validation"]
    lines = [
        f"# {_plain(title)}",
        "",
        f"Layer `{validation.layer}`, {validation.contributions.shape[1]} channels, {_plain(validation.cam)}; "
        + ", ".join(f"{len(table)} {split} samples" for split, table in report.tables.items())
        + f"; data `{report.digest}`.",
        "",
        "| family | verdict | score | z | health | what the score is |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {family} | {verdict(f)} | {f.score:.3f} | {f.z:.1f} | {f.health:.2f} | {MEANING[family]} |"
        for family, f in report.findings.items()
    ]
    for family, finding in report.findings.items():
        if finding.alarm:
            note = f" {_plain(finding.note[:1].upper() + finding.note[1:])}." if finding.note else ""
            lines += ["", f"**{family.capitalize()}.**{note} {ADVICE[family]}"]
        elif finding.undecided:
            lines += ["", f"**{family.capitalize()}** cannot be told: {_plain(finding.note)}."]
    lines += [line for text in report.warnings for line in ("", f"*Left out:* {_plain(text)}")]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Keep what users named from becoming markup."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text.replace("\n", " "))
