"""Environment variables that are on or off."""

from __future__ import annotations

import os

OFFLINE = "LIGHTNING_IFA_OFFLINE"
"""On: every training of the process leaves everything to ``lightning-ifa sync``, and asks no server for anything."""


def is_on(variable: str) -> bool:
    """Whether an environment variable is set to anything but nothing, 0, false, no or off."""
    return os.environ.get(variable, "0").lower() not in ("", "0", "false", "no", "off")


def is_offline() -> bool:
    """Whether no server is to be asked."""
    return is_on(OFFLINE)
