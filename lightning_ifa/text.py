"""Clean text that users wrote, such as names."""

from __future__ import annotations

import re


def escape_markdown(text: str) -> str:
    """Escape a user's text so that it is neither markup nor breaks a Markdown table."""
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in keep_legal_xml(text))


def keep_legal_xml(text: str) -> str:
    """Replace control characters: not allowed in XML, and a terminal would obey them."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text)
