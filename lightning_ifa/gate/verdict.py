"""The verdict on a model version: every check with its value, limit and reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One requirement of the policy, and whether the model meets it.

    Attributes:
        name: The metric's key, or ``data set`` or ``family ...``.
        passed: Whether the requirement is met.
        value: The value that was found; None if there is none.
        limit: The requirement, in words.
        reason: Why the check passed or failed, in words.
        undecided: The family that cannot be told, if that is why; empty otherwise.
    """

    name: str
    passed: bool
    value: float | str | None
    limit: str
    reason: str = ""
    undecided: str = ""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision about one model version.

    Attributes:
        policy: Name, version and digest of the policy.
        subject: The version, and the logged model behind it: a copy in another registered model is another subject.
        champion: The version it was compared with, or None.
        dataset_digest: Digest of the validation data behind the numbers, or None.
        step: Training step of the numbers, or None.
        origin: Source of the numbers, in words.
        checks: The checks, in the policy's order.
    """

    policy: str
    subject: str
    champion: str | None
    dataset_digest: str | None
    step: int | None
    origin: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed, and there was one."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def word(self) -> str:
        """``"pass"`` or ``"fail"``."""
        return "pass" if self.passed else "fail"

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The families that cannot be told, which the policy accepts."""
        return tuple(dict.fromkeys(check.undecided for check in self.checks if check.passed and check.undecided))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, which knows no NaN: such a value becomes a string."""
        content = asdict(self) | {"verdict": self.word}
        for check in content["checks"]:
            if isinstance(check["value"], float) and not math.isfinite(check["value"]):
                check["value"] = str(check["value"])
        return content
