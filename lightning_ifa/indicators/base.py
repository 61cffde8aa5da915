"""What every indicator returns, and the one rule that turns it into a health value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_ifa.statistics.significance import UNDECIDED


@dataclass(frozen=True)
class Finding:
    """One family's result.

    Attributes:
        score: Excess over the null's expectation; 0 = nothing found, growing = worse.
        z: How many null standard deviations the score lies above its null; 0 where there is no null.
        health: In [0, 1], 1 = good, below 0.5 = alarm, exactly 0.5 = cannot be told.
        details: Supporting numbers under their field names.
        note: What a reader should know, a plain sentence; why, where nothing can be told.
    """

    score: float
    z: float
    health: float
    details: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def alarm(self) -> bool:
        """Whether the fault was found."""
        return self.health < UNDECIDED

    @property
    def undecided(self) -> bool:
        """Whether the data does not allow a verdict."""
        return self.health == UNDECIDED


def undecided(reason: str, details: Mapping[str, float] | None = None) -> Finding:
    """Make the finding of a family about which nothing can be said; its score stays finite for monitors."""
    return Finding(0.0, 0.0, UNDECIDED, details or {}, reason)
