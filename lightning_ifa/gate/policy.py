"""The gate's policy: the requirements on a model version, read from YAML; every error names its line."""

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
        z: Key of the metric's z, its distance from 0 in standard errors; the standard error is value / z.
    """

    level: Annotated[float, Field(gt=0.5, lt=1.0)]
    z: Metric


class Worsening(_Strict):
    """How much worse than the champion the candidate may be; if both are given, the larger allowance counts.

    Attributes:
        abs: Allowance in the metric's own unit; where negative, the candidate must be better by that much.
        rel: Allowance as a share of the champion's absolute value; negative likewise.
    """

    abs: Number | None = None
    rel: Number | None = None

    @model_validator(mode="after")
    def _require_allowance(self) -> Worsening:
        if self.abs is None and self.rel is None:
            raise ValueError("expected abs, rel or both")
        return self


class Limit(_Strict):
    """One requirement on one metric: an absolute limit, one relative to the champion, or both.

    Attributes:
        metric: The metric's MLflow key.
        at_most: Limit where lower is better; the limit itself passes.
        below: Limit where lower is better; the limit itself fails.
        at_least: Limit where higher is better; the limit itself passes.
        above: Limit where higher is better; the limit itself fails.
        better: ``"lower"`` or ``"higher"``, where no absolute limit says it.
        bound: Judge the confidence bound on the unfavourable side instead of the value.
        vs_champion: Allowed worsening against the champion.
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
    def _require_one_limit(self) -> Limit:
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} in one check; write one check for each limit")
        if not given and self.vs_champion is None:
            raise ValueError(f"no limit; expected one of {', '.join(LIMITS)} or vs_champion")
        if given and self.better:
            raise ValueError(f"better: follows from {given[0]}: leave it out")
        if not given and not self.better:
            raise ValueError("vs_champion without a limit needs better: lower or better: higher")
        return self

    @property
    def operator(self) -> str | None:
        """The name of the absolute limit, or None."""
        return next((name for name in LIMITS if getattr(self, name) is not None), None)

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric improves as it falls."""
        return self.better == "lower" or self.operator in LOWER_IS_BETTER


class Champion(_Strict):
    """The version that candidates are compared with.

    Attributes:
        alias: Alias of the champion, unless the gate promotes to another alias.
        missing: ``"accept"``: where no version holds the alias, relative limits pass; ``"refuse"``: they fail.
    """

    alias: Annotated[str, Field(pattern=r"^[\w\-]+$")] = "champion"
    missing: Literal["accept", "refuse"] = "refuse"


class Policy(_Strict):
    """The requirements on a model version.

    Attributes:
        name: Name of the policy, for the verdict.
        version: Version of the policy, for the verdict.
        dataset_digest: Digest of the validation data that is required, as in the run's tag ``ifa.dataset_digest``;
            None for any, where candidate and champion must have been measured on the same.
        champion: The version that candidates are compared with.
        families: Families that must have been analysed and must not be undecided.
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
        """The name, version and digest, as written to the verdict."""
        return f"{self.name}@{self.version} {self.digest}"

    @property
    def compares(self) -> bool:
        """Whether a check needs the champion's metrics."""
        return any(check.vs_champion for check in self.checks)

    @property
    def metrics(self) -> frozenset[str]:
        """The key of every metric that a decision needs."""
        keys = {key for family in self.families for key in family_keys(family)}
        for check in self.checks:
            keys |= {check.metric, health_key(check.metric)}
            if check.bound:
                keys.add(check.bound.z)
        return frozenset(keys)


def family_keys(family: str) -> tuple[str, str]:
    """Give the keys of a family's score and health; without both, the family was not analysed."""
    return f"ifa/{family}/score", f"ifa/health/{family}"


def health_key(metric: str) -> str:
    """Give the key of the health of a metric's family.

    >>> health_key("ifa/overfitting/z"), health_key("ifa/health/outliers")
    ('ifa/health/overfitting', 'ifa/health/outliers')
    """
    family = metric.split("/")[1]
    return metric if family == "health" else f"ifa/health/{family}"


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read and validate a policy in a YAML file.

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
    faults = [f"line {line}: {key}: given twice" for key, line in _repeated_keys(root)]
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        faults += [f"line {_line(root, e['loc'])}: {_describe(e)}" for e in error.errors(include_url=False)]
    if faults:
        raise PolicyError(f"{path} is no gate policy:\n  " + "\n  ".join(faults))
    return policy


def _describe(error: Any) -> str:
    key = ".".join(map(str, error["loc"])) or "the policy"
    return f"{key}: {error['msg'].removeprefix('Value error, ')} (found {error['input']!r:.60})"


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Find the line of the deepest node on the way to a location; a missing key has the line of its parent."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
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


def _repeated_keys(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Find keys given twice in one mapping, of which YAML would silently drop the first."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)
