"""What is expected of one architecture of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Entry:
    """One architecture, built from its configuration with random weights.

    Attributes:
        name: Name in the table.
        build: Makes the network.
        shape: Of its inputs, ``(n, ...)``.
        layer: The expected layer; None where a refusal is expected.
        grid: The expected space of its maps.
        reason: Why this layer, or why a refusal.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str | None
    grid: tuple[int, ...]
    reason: str
