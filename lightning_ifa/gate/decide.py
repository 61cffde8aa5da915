"""The decision: a pure function of policy and numbers. Fails closed: what is not known to be good is not good."""

from __future__ import annotations

import math
from statistics import NormalDist

from lightning_ifa.gate.keys import families_of, family_keys, unidentified_key
from lightning_ifa.gate.model_metrics import CONDITIONS, ModelMetrics
from lightning_ifa.gate.policy import Limit, Policy
from lightning_ifa.gate.verdict import Check, Verdict
from lightning_ifa.statistics.significance import UNDECIDED

UNTOLD = "cannot be told from this data"
ACCEPTED = f"{UNTOLD}; the policy accepts that"
SUSPECTED = (
    "a column goes with the class in nearly every sample, so that its use cannot be told; no policy accepts that"
)
_LARGEST = 1.7e308  # SQL stores give infinity back as 1.797e308


def decide(policy: Policy, candidate: ModelMetrics, champion: ModelMetrics | None) -> Verdict:
    """Judge a candidate by a policy, against the metrics of the champion if there is one.

    A missing, NaN or infinite number fails its check, and so does one that was measured on other data. A family that
    cannot be told fails its checks, unless the policy accepts that; it never meets a limit by its number.
    """
    checks = [Check("version", False, None, "may be promoted", candidate.obstacle)] if candidate.obstacle else []
    checks.append(_data_set(policy, candidate))
    checks += [_family(family, policy, candidate) for family in policy.families]
    for limit in policy.checks:
        undecided = _undecided_family(limit, candidate)
        if undecided and policy.accepts_undecided(undecided) and not _is_suspected(undecided, candidate):
            checks.append(_accepted(limit, candidate, undecided))
            continue
        if limit.operator:
            checks.append(_absolute(limit, limit.operator, candidate))
        if limit.vs_champion:
            checks.append(_relative(limit, policy, candidate, champion))
    return Verdict(
        policy=policy.label,
        subject=candidate.subject,
        champion=champion.subject if champion else None,
        dataset_digest=candidate.dataset_digest,
        step=candidate.step,
        origin=candidate.origin,
        checks=tuple(checks),
    )


def is_usable(value: float | None) -> bool:
    """Whether there is a finite number.

    >>> is_usable(0.3), is_usable(None), is_usable(float("nan")), is_usable(1.7976931348623157e308)
    (True, False, False, False)
    """
    return value is not None and math.isfinite(value) and abs(value) < _LARGEST


def _data_set(policy: Policy, candidate: ModelMetrics) -> Check:
    found, demanded = candidate.dataset_digest, policy.dataset_digest
    if demanded is None:
        return Check("data set", True, found, "any", "the policy names no data set")
    if found is None:
        return Check("data set", False, None, demanded, candidate.problem or "the data set is not recorded")
    reason = "" if found == demanded else "the numbers speak of other data"
    return Check("data set", found == demanded, found, demanded, reason)


def _family(family: str, policy: Policy, candidate: ModelMetrics) -> Check:
    name, limit = f"indicator {family}", "analysed and decided"
    score, health = (candidate.metrics.get(key) for key in family_keys(family))
    for what, value in (("score", score), ("health", health)):
        if not is_usable(value):
            return Check(name, False, value, limit, _why(candidate, what, value))
    if health != UNDECIDED:
        return Check(name, True, health, limit)
    if _is_suspected(family, candidate):
        return Check(name, False, health, limit, SUSPECTED, undecided=family)
    if policy.accepts_undecided(family):
        return Check(name, True, health, limit, ACCEPTED, undecided=family)
    return Check(name, False, health, limit, f"{UNTOLD}; the policy refuses that", undecided=family)


def _undecided_family(limit: Limit, numbers: ModelMetrics) -> str:
    """Name the family of a limit where it cannot be told; empty where it can, or is not known at all."""
    found = [f for f in families_of(limit.metric) if numbers.metrics.get(family_keys(f)[1]) == UNDECIDED]
    return found[-1] if found else ""


def _is_suspected(family: str, numbers: ModelMetrics) -> bool:
    """Whether it cannot be told because of something that is known, and not because nothing is."""
    return (numbers.metrics.get(unidentified_key(family)) or 0.0) > 0


def _accepted(limit: Limit, candidate: ModelMetrics, family: str) -> Check:
    value = candidate.metrics.get(limit.metric)
    parts = [_describe_limit(limit, limit.operator)] if limit.operator else []
    words = "; ".join([*parts, _describe_worsening(limit)] if limit.vs_champion else parts)
    if not is_usable(value):
        return Check(limit.metric, False, value, words, _why(candidate, limit.metric, value))
    return Check(limit.metric, True, value, words, ACCEPTED, undecided=family)


def _absolute(limit: Limit, operator: str, candidate: ModelMetrics) -> Check:
    bar = float(getattr(limit, operator))
    words = _describe_limit(limit, operator)
    value, problem = _value(limit, candidate)
    if value is None or problem:
        return Check(limit.metric, False, value, words, problem)
    tolerance = _tolerance(value)
    met = {
        "at_most": value <= bar + tolerance,
        "below": value < bar - tolerance,
        "at_least": value >= bar - tolerance,
        "above": value > bar + tolerance,
    }[operator]
    return Check(limit.metric, met, value, words, "" if met else f"{_digits(value, bar)} is not {words}")


def _relative(limit: Limit, policy: Policy, candidate: ModelMetrics, champion: ModelMetrics | None) -> Check:
    assert limit.vs_champion is not None
    words = _describe_worsening(limit)
    value, problem = _value(limit, candidate)
    if value is None or problem:
        return Check(limit.metric, False, value, words, problem)
    if champion is None:
        accepted = policy.champion.missing == "accept"
        return Check(limit.metric, accepted, value, words, "there is no champion yet")
    if champion.model == candidate.model:
        return Check(limit.metric, True, value, words, "it is the champion itself")
    other = champion.metrics.get(limit.metric)
    if other is None or not is_usable(other):
        return Check(limit.metric, False, value, words, f"the champion: {_why(champion, limit.metric, other)}")
    if candidate.dataset_digest is None or champion.dataset_digest != candidate.dataset_digest:
        reason = f"the champion's number speaks of other data ({champion.dataset_digest})"
        return Check(limit.metric, False, value, words, reason)
    unlike = _unlike(candidate, champion)
    if unlike:
        return Check(limit.metric, False, value, words, unlike)
    if _undecided_family(limit, champion):
        return Check(limit.metric, False, value, words, f"the champion's indicator {UNTOLD}")
    worse = value - other if limit.lower_is_better else other - value
    shares = (limit.vs_champion.abs, None if limit.vs_champion.rel is None else limit.vs_champion.rel * abs(other))
    allowed = max(share for share in shares if share is not None)
    met = worse <= allowed + _tolerance(value)
    reason = f"champion {other:.3g}, worse by {_digits(worse, allowed)}, allowed {allowed:.6g}"
    return Check(limit.metric, met, value, words, reason)


def _digits(value: float, bar: float) -> str:
    """A number as people read it, but with more digits where few would show it at its limit."""
    short = f"{value:.3g}"
    return f"{value:.6g}" if math.isclose(float(short), bar, rel_tol=0.01) else short


def _unlike(candidate: ModelMetrics, champion: ModelMetrics) -> str:
    """Say in which way two analyses differ, so that their numbers must not be compared; empty where they do not."""
    differing = [
        f"{name} {champion.conditions.get(name, 'unknown')} instead of {candidate.conditions.get(name, 'unknown')}"
        for name in CONDITIONS
        if champion.conditions.get(name) != candidate.conditions.get(name)
    ]
    return (
        f"the champion was analysed with {', '.join(differing)}; analyse both anew (--recompute)" if differing else ""
    )


def _value(limit: Limit, numbers: ModelMetrics) -> tuple[float | None, str]:
    """Give the number to judge and, if it must not be used, the reason."""
    value, undecided = numbers.metrics.get(limit.metric), _undecided_family(limit, numbers)
    if value is None or not is_usable(value):
        return value, _why(numbers, limit.metric, value)
    if undecided and family_keys(undecided)[1] != limit.metric:
        return value, f"its indicator {UNTOLD}"
    if limit.bound is None:
        return value, ""
    z = numbers.metrics.get(limit.bound.z)
    error = value / z if z is not None and is_usable(z) and z != 0 else 0.0
    if not is_usable(error) or error <= 0:
        return value, f"no standard error: {limit.bound.z} is {z}"
    margin = NormalDist().inv_cdf(limit.bound.level) * error
    return value + margin if limit.lower_is_better else value - margin, ""


def _tolerance(value: float) -> float:
    """Tolerance for float32: Lightning logs 0.1 as 0.10000000149. Depends on the value only, never on the limit."""
    return 1e-6 * abs(value) + 1e-9


def _why(numbers: ModelMetrics, what: str, value: float | None = None) -> str:
    if value is None:
        return f"{what} is missing" + (f": {numbers.problem}" if numbers.problem else "")
    return f"{what} is {'not a number' if math.isnan(value) else 'infinite'}"


def _describe_limit(limit: Limit, operator: str) -> str:
    return f"{operator.replace('_', ' ')} {getattr(limit, operator):g}" + _describe_bound(limit)


def _describe_bound(limit: Limit) -> str:
    side = "upper" if limit.lower_is_better else "lower"
    return f" ({side} {limit.bound.level:.0%} bound)" if limit.bound else ""


def _describe_worsening(limit: Limit) -> str:
    assert limit.vs_champion is not None
    parts = [] if limit.vs_champion.abs is None else [f"{limit.vs_champion.abs:g}"]
    parts += [] if limit.vs_champion.rel is None else [f"{limit.vs_champion.rel:.3%}".replace(".000%", "%")]
    return f"at most {' or '.join(parts)} worse than the champion" + _describe_bound(limit)
