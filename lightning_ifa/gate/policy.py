"""The gate's policy: the requirements on a model version, read from YAML; every fault is told with its line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from lightning_ifa.errors import PolicyError, did_you_mean
from lightning_ifa.gate.keys import ALIASES, families_of, family_keys, is_lower_better, require_alias
from lightning_ifa.gate.strict_yaml import line_of, read_yaml

LIMITS = ("at_most", "below", "at_least", "above")
LOWER_IS_BETTER = ("at_most", "below")
Number = Annotated[float, Field(allow_inf_nan=False)]
Metric = Annotated[str, Field(pattern=r"^ifa/[\w.\-]+(/[\w.\-]+)+$", max_length=250)]
Word = Annotated[str, Field(pattern=r"^[\w.\-]+$", max_length=60)]
Family = Annotated[str, Field(pattern=r"^[\w.\-]+(/[\w.\-]+)*$", max_length=200)]
"""A family, or one at a place: ``overfitting``, ``dataloader_1/overfitting``."""

Undecided = Literal["refuse", "accept"]
WHERE_UNDECIDED: Undecided = "refuse"
"""What "cannot be told" means where a policy says nothing: a model about which nothing is known is not known to be
sound. How often sound models are refused by it is being measured; until then the cautious side."""

REST = "default"


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


def _require_alias(alias: str) -> str:
    try:
        return require_alias(alias)
    except ValueError:
        raise ValueError(f"this can be no alias; {ALIASES}") from None


class Champion(_Strict):
    """The version that candidates are compared with.

    Attributes:
        alias: Alias of the champion, unless the gate promotes to another alias.
        missing: ``"accept"``: where no version holds the alias, relative limits pass; ``"refuse"``: they fail.
    """

    alias: Annotated[str, AfterValidator(_require_alias)] = "champion"
    missing: Literal["accept", "refuse"] = "refuse"


class Policy(_Strict):
    """The requirements on a model version.

    Attributes:
        name: Name of the policy, for the verdict.
        version: Version of the policy, for the verdict.
        dataset_digest: Digest of the validation data that is required, as in the run's tag ``ifa.dataset_digest``;
            None for any, where candidate and champion must have been measured on the same.
        champion: The version that candidates are compared with.
        families: Families that must have been analysed, and decided unless ``undecided`` accepts it; one of a further
            validation loader or layer is named with its place, as in ``dataloader_1/overfitting``.
        undecided: What "cannot be told" means, ``"refuse"`` or ``"accept"``: for all families, or for each of those
            named, where ``default`` names all others.
        checks: The limits.
    """

    name: Word
    version: Word
    dataset_digest: Word | None = None
    champion: Champion = Champion()
    families: Annotated[tuple[Family, ...], Strict(False)] = ()
    undecided: Undecided | dict[Family, Undecided] = WHERE_UNDECIDED
    checks: Annotated[tuple[Limit, ...], Strict(False), Field(min_length=1)]

    @model_validator(mode="after")
    def _require_known_families(self) -> Policy:
        named = set() if isinstance(self.undecided, str) else set(self.undecided) - {REST}
        known = set(self.families) | {family for check in self.checks for family in families_of(check.metric)}
        if named - known:
            raise ValueError(f"undecided: no check speaks of {', '.join(sorted(named - known))}")
        return self

    def accepts_undecided(self, family: str) -> bool:
        """Whether "cannot be told" of a family, as named in ``families``, is no reason to refuse."""
        rule = self.undecided
        word = rule if isinstance(rule, str) else rule.get(family, rule.get(REST, WHERE_UNDECIDED))
        return word == "accept"

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
            keys |= {check.metric, *(family_keys(family)[1] for family in families_of(check.metric))}
            if check.bound:
                keys.add(check.bound.z)
        return frozenset(keys)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read and validate a policy in a YAML file.

    Raises:
        PolicyError: The file cannot be read or is no policy; every fault is listed with its line.
    """
    root, content, faults = read_yaml(path)
    policy, known = None, {line for line, _ in faults}
    try:
        policy = Policy.model_validate(content)
    except ValidationError as error:
        found = [(line_of(root, e["loc"]), _describe(e)) for e in error.errors(include_url=False)]
        faults += [fault for fault in found if fault[0] not in known] or ([] if known else found)
    else:
        faults += [(line_of(root, ("checks", number)), fault) for number, fault in _wrong_way_round(policy)]
    if policy is None or faults:
        lines = "\n  ".join(f"line {line}: {fault}" for line, fault in sorted(faults))
        raise PolicyError(f"{path} is no gate policy:\n  {lines}")
    return policy


def _wrong_way_round(policy: Policy) -> Iterator[tuple[int, str]]:
    """Find limits on the side on which this package's numbers are good, and pairs that no number can meet."""
    for number, check in enumerate(policy.checks):
        lower = is_lower_better(check.metric)
        if lower is not None and lower != check.lower_is_better:
            good, words = ("lower", "at_most or below") if lower else ("higher", "at_least or above")
            yield number, f"{check.metric}: the wrong way round: {good} is better; expected {words}, or better: {good}"
    for (_, one), (number, other) in combinations(enumerate(policy.checks), 2):
        if one.metric == other.metric and _exclude(one, other):
            yield number, f"{other.metric}: no number can meet {_words(one)} and {_words(other)} at once"


def _exclude(one: Limit, other: Limit) -> bool:
    if not one.operator or not other.operator or one.bound or other.bound:
        return False
    if (one.operator in LOWER_IS_BETTER) == (other.operator in LOWER_IS_BETTER):
        return False
    upper, lower = (one, other) if one.operator in LOWER_IS_BETTER else (other, one)
    high, low = getattr(upper, str(upper.operator)), getattr(lower, str(lower.operator))
    open_end = upper.operator == "below" or lower.operator == "above"
    return bool(high < low or (high == low and open_end))


def _words(limit: Limit) -> str:
    return f"{limit.operator}: {getattr(limit, str(limit.operator)):g}"


def _describe(error: Any) -> str:
    """Say what is wrong with a value, and where; never the value, nor a key that is not ours."""
    model: Any = Policy
    place = []
    for part in error["loc"]:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = _PARTS.get(part)
        elif not isinstance(part, int):
            break
        place.append(str(part))
    where = ".".join(place) or "the policy"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{did_you_mean(str(error['loc'][-1]), fields)}"
    kind = _KINDS.get(type(error["input"]), "something else")
    return f"{where}: {error['msg'].removeprefix('Value error, ')} (found {kind})"


_PARTS = {"checks": Limit, "champion": Champion, "bound": Bound, "vs_champion": Worsening}
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
