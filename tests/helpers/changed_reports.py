"""Reports with one finding changed."""

from dataclasses import replace


def with_finding(report, family, **changes):
    """The report whose finding of one family has other values."""
    return replace(report, findings={**report.findings, family: replace(report.findings[family], **changes)})
