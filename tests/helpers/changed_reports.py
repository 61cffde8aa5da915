"""Reports with one finding changed."""

from dataclasses import replace


def with_finding(report, family, **changes):
    """The report whose finding of one family has other values."""
    return replace(report, findings={**report.findings, family: replace(report.findings[family], **changes)})


def with_table(report, name, frame):
    """The report with another table in place of the one of that name."""
    family = next(family for family, finding in report.findings.items() if name in finding.tables)
    return with_finding(report, family, tables={name: frame})
