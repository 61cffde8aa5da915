"""The package's own section of a run's description; what the user wrote around it stays."""

from __future__ import annotations

DESCRIPTION = "mlflow.note.content"
BEGIN, END = "<!-- lightning-ifa -->", "<!-- /lightning-ifa -->"

LONGEST = 8000
"""Characters of a run tag."""

SHORTENED = "\n\n(more in ifa_summary.md)"


def split_at_section(text: str, begin: str, end: str) -> tuple[str, str] | None:
    """Split a description into what stands before and after a section; None where one of its marks is missing."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    return (before, after) if found_begin and found_end else None


def with_verdict(text: str, section: str) -> str:
    """Put a section into a description, in place of an earlier one, else behind what is there.

    Args:
        text: The description as it is.
        section: Markdown; shortened where the whole would not fit into a tag.

    >>> with_verdict("My note.", "new").splitlines()
    ['My note.', '', '<!-- lightning-ifa -->', 'new', '<!-- /lightning-ifa -->']
    """
    before, after = split_at_section(text, BEGIN, END) or (f"{text}\n\n" if text else "", "")
    room = LONGEST - len(before) - len(after) - len(BEGIN) - len(END) - 2
    if room < len(SHORTENED):
        return text
    section = section.strip().replace(BEGIN, "").replace(END, "")
    section = section if len(section) <= room else section[: room - len(SHORTENED)] + SHORTENED
    return f"{before}{BEGIN}\n{section}\n{END}{after}"
