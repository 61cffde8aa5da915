"""The policy: what a model must satisfy, read from YAML; every error names its line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from lightning_ifa.errors import PolicyError

LIMITS = ("at_most", "below", "at_least", "above")
LOWER_IS_BETTER = ("at_most", "below")
Number = Annotated[float, Field(allow_inf_nan=False)]
Metric = Annotated[str, Field(pattern=r"^ifa/[\w.\-]+(/[\w.\-]+)+$", max_length=250)]
Word = Annotated[str, Field(pattern=r"^[\w.\-]+$", max_length=60)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Bound(_Strict):
    """Judge the value's one-sided confidence bound instead of the value.

    Attributes:
        level: One-sided confidence, between 0.5 and 1.
        z: Metric that says how many standard errors the value lies above 0; the standard error is value / z.
    """

    level: Annotated[float, Field(gt=0.5, lt=1.0)]
    z: Metric


class Worsening(_Strict):
    """How much worse than the champion the candidate may be; if both are given, the larger allowance counts.

    Attributes:
        abs: In the metric's own unit; negative: so much better it must be.
        rel: As a share of the champion's absolute value; negative likewise.
    """

    abs: Number | None = None
    rel: Number | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Worsening:
        if self.abs is None and self.rel is None:
            raise ValueError("expected abs, rel or both")
        return self


class Limit(_Strict):
    """One demand on one metric: an absolute limit, one relative to the champion, or both.

    Attributes:
        metric: Its MLflow key.
        at_most: Lower is better, the limit itself passes.
        below: Lower is better, the limit itself fails.
        at_least: Higher is better, the limit itself passes.
        above: Higher is better, the limit itself fails.
        better: ``"lower"`` or ``"higher"``, where there is no absolute limit to tell it.
        bound: Judge the confidence bound on the unfavourable side.
        vs_champion: Allowed worsening.
    """

    metric: Metric
    at_most: Number | None = None
    below: Number | None = None
    at_least: Number | None = None
    above: Number | None = None
    better: Literal["lower", "higher"] | None = None
    bound: Bound | None = None
    vs_champion: Worsening | None = None

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Limit:
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} in one check; write one check for each limit")
        if not given and self.vs_champion is None:
            raise ValueError(f"no limit; expected one of {', '.join(LIMITS)} or vs_champion")
        if given and self.better:
            raise ValueError(f"better: is told by {given[0]}: leave it out")
        if not given and not self.better:
            raise ValueError("vs_champion without a limit needs better: lower or better: higher")
        return self

    @property
    def operator(self) -> str | None:
        """Name of the absolute limit, or None."""
        return next((name for name in LIMITS if getattr(self, name) is not None), None)

    @property
    def lower_is_better(self) -> bool:
        """Which way the metric improves."""
        return self.better == "lower" or self.operator in LOWER_IS_BETTER


class Champion(_Strict):
    """Whom candidates are compared with.

    Attributes:
        alias: Its holder is the champion, unless the gate is told to promote to another alias.
        missing: ``"accept"``: with no holder yet, relative limits pass; ``"refuse"``: they fail.
    """

    alias: Annotated[str, Field(pattern=r"^[\w\-]+$")] = "champion"
    missing: Literal["accept", "refuse"] = "refuse"


class Policy(_Strict):
    """What a model version must satisfy.

    Attributes:
        name: Ends up in the verdict.
        version: Ends up in the verdict.
        dataset_digest: The validation data the policy speaks of, as in the run's tag ``ifa.dataset_digest``; None:
            any, but candidate and champion must have seen the same.
        champion: Whom candidates are compared with.
        families: Must have been analysed and must not be undecided.
        checks: The limits.
    """

    name: Word
    version: Word
    dataset_digest: Word | None = None
    champion: Champion = Champion()
    families: Annotated[tuple[Word, ...], Strict(False)] = ()
    checks: Annotated[tuple[Limit, ...], Strict(False), Field(min_length=1)]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with every value of the policy, not with its comments."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """Name, version and digest, as written to the verdict."""
        return f"{self.name}@{self.version} {self.digest}"

    @property
    def compares(self) -> bool:
        """Whether the champion's numbers matter."""
        return any(check.vs_champion for check in self.checks)

    @property
    def metrics(self) -> frozenset[str]:
        """Every key that a decision needs."""
        keys = {key for family in self.families for key in family_keys(family)}
        for check in self.checks:
            keys |= {check.metric, health_key(check.metric)}
            if check.bound:
                keys.add(check.bound.z)
        return frozenset(keys)


def family_keys(family: str) -> tuple[str, str]:
    """The two numbers without which a family was not analysed: score and health."""
    return f"ifa/{family}/score", f"ifa/health/{family}"


def health_key(metric: str) -> str:
    """Key of the health of a metric's family.

    >>> health_key("ifa/overfitting/z"), health_key("ifa/health/outliers")
    ('ifa/health/overfitting', 'ifa/health/outliers')
    """
    family = metric.split("/")[1]
    return metric if family == "health" else f"ifa/health/{family}"


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read and validate a policy.

    Args:
        path: YAML file.

    Raises:
        PolicyError: The file cannot be read or is no policy; every fault is listed with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise PolicyError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    repeated = [f"line {line}: {key}: given twice" for key, line in _repeated(root)]
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        faults = [f"line {_line(root, e['loc'])}: {_fault(e)}" for e in error.errors(include_url=False)]
        raise PolicyError(f"{path} is no gate policy:\n  " + "\n  ".join(repeated + faults)) from None
    if repeated:
        raise PolicyError(f"{path} is no gate policy:\n  " + "\n  ".join(repeated))
    return policy


def _fault(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the policy"
    return f"{place}: {error['msg'].removeprefix('Value error, ')} (found {error['input']!r:.60})"


def _line(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """Line of the deepest node on the way to a place; a missing key has the line of its parent."""
    line = node.start_mark.line + 1 if node else 1
    for part in place:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, child = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def _repeated(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys given twice in one mapping, of which YAML would silently drop the first."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)
