"""Whether the environment asks for trainings that leave everything to ``lightning-ifa sync``."""

from __future__ import annotations

import os

OFFLINE = "LIGHTNING_IFA_OFFLINE"
"""Environment variable: 1 keeps every training of the process from asking a server for anything."""


def is_offline() -> bool:
    """Whether no server is to be asked."""
    return os.environ.get(OFFLINE, "0").lower() not in ("", "0", "false", "no", "off")
