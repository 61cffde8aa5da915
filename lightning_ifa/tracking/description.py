"""The package's own section of a run's description; what the user wrote around it stays."""

from __future__ import annotations

DESCRIPTION = "mlflow.note.content"
BEGIN, END = "<!-- lightning-ifa -->", "<!-- /lightning-ifa -->"

LONGEST = 8000
"""Characters of a run tag."""

CUT = "\n\n(more in ifa_summary.md)"


def with_verdict(text: str, section: str) -> str:
    """Put a section into a description, in place of an earlier one, else behind what is there.

    Args:
        text: The description as it is.
        section: Markdown; cut where the whole would not fit into a tag.

    >>> with_verdict("My note.", "new").splitlines()
    ['My note.', '', '<!-- lightning-ifa -->', 'new', '<!-- /lightning-ifa -->']
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):  # also where the user removed one of the marks
        before, after = (f"{text}\n\n" if text else ""), ""
    room = LONGEST - len(before) - len(after) - len(BEGIN) - len(END) - 2
    if room < len(CUT):
        return text
    section = section.strip().replace(BEGIN, "").replace(END, "")
    section = section if len(section) <= room else section[: room - len(CUT)] + CUT
    return f"{before}{BEGIN}\n{section}\n{END}{after}"
