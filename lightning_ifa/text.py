"""Clean text that users wrote, such as names."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape_markdown(text: str) -> str:
    """Escape a user's text so that it is neither markup nor breaks a Markdown table."""
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in keep_legal_xml(text))


def keep_legal_xml(text: str) -> str:
    """Replace what is no printable sign: not allowed in XML, obeyed by a terminal, or turning text around.

    Control characters, line and paragraph separators, bidirectional and other invisible controls become spaces.
    """
    return "".join(sign if sign.isprintable() else " " for sign in text)


MARKS = re.compile(r"[\\`*\[\]<>|#~]|(?<![^\W_])_|_(?![^\W_])")
LONGEST_NAME = 40


def escape_prose(text: str) -> str:
    r"""Keep what users named from becoming Markdown in running text, where an underscore within a word is none.

    >>> print(escape_prose("a_b _c_ <i>"))
    a_b \_c\_ \<i\>
    """
    return MARKS.sub(lambda mark: f"\\{mark[0]}", keep_legal_xml(text))


def quote_name(text: object, longest: int = LONGEST_NAME) -> str:
    """Write a user's name within a sentence: in quotes, on one line, of bounded length."""
    return f"“{shorten(str(text), longest)}”"


def shorten(text: str, longest: int) -> str:
    """Make one line of printable signs, of bounded length."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 20 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def join_words(parts: Sequence[str]) -> str:
    """Join as in a sentence.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def join_sentences(parts: Sequence[str]) -> str:
    """Join what is not empty; each part ends with a full stop."""
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)


def start_sentence(text: str) -> str:
    """Make the first letter a capital."""
    return text[:1].upper() + text[1:]
