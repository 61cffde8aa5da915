"""Answer a typo with the nearest name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the end of an error message: the nearest known name, or all of them if none is near.

    >>> did_you_mean("layr", ["layer", "task"])
    "; did you mean 'layer'?"
    >>> did_you_mean("zzz", ["layer", "task"])
    '; there are layer, task'
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(names)}" if names else ""
