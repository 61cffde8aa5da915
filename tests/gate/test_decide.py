"""The decision: a table of values, policies and registry states, and properties over all of them."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.model_metrics import ModelMetrics
from lightning_ifa.gate.policy import Policy

NAN, INF, SQL_INF = math.nan, math.inf, 1.7976931348623157e308
A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
SCORE, Z, HEALTH = "ifa/overfitting/score", "ifa/overfitting/z", "ifa/health/overfitting"


def numbers(score=None, z=None, health=None, digest=A, model="m-new", problem=""):
    values = {SCORE: score, Z: z, HEALTH: health}
    known = {key: value for key, value in values.items() if value is not None}
    return ModelMetrics(f"models:/leafnet/3 ({model})", model, known, digest, 7, "logged model", problem)


def rules(*checks, **changes):
    return Policy.model_validate({"name": "test", "version": "1", "checks": list(checks)} | changes)


def on(metric, **limit):
    return {"metric": metric} | limit


AT_MOST, BELOW = rules(on(SCORE, at_most=0.3)), rules(on(SCORE, below=0.3))
AT_LEAST, ABOVE = rules(on(HEALTH, at_least=0.5)), rules(on(HEALTH, above=0.5))
FAMILY = rules(on(SCORE, at_most=0.3), families=["overfitting"])
HEALTH_OF_FAMILY = rules(on(HEALTH, at_least=0.5), families=["overfitting"])
PINNED = rules(on(SCORE, at_most=0.3), dataset_digest=A)
BOUND = rules(on(SCORE, at_most=0.3, bound={"level": 0.95, "z": Z}))
LOWER_BOUND = rules(on(SCORE, at_least=0.3, bound={"level": 0.95, "z": Z}))
ABS = rules(on(SCORE, better="lower", vs_champion={"abs": 0.02}), champion={"missing": "accept"})
REL = rules(on(SCORE, better="lower", vs_champion={"rel": 0.05}))
EITHER = rules(on(SCORE, better="lower", vs_champion={"abs": 0.02, "rel": 0.05}))
BETTER = rules(on(SCORE, better="lower", vs_champion={"abs": -0.01}))
HIGHER = rules(on(HEALTH, better="higher", vs_champion={"abs": 0.02}))
BOTH = rules(on(SCORE, at_most=0.3, vs_champion={"abs": 0.02}))
BOUND_ABS = rules(on(SCORE, better="lower", bound={"level": 0.95, "z": Z}, vs_champion={"abs": 0.02}))

OLD = numbers(0.2, 4.0, 0.7, model="m-old")

TABLE = [
    # absolute limits on the value
    ("at most, inside", AT_MOST, numbers(0.29), None, True),
    ("at most, on the limit", AT_MOST, numbers(0.3), None, True),
    ("at most, float32 of the limit", AT_MOST, numbers(0.30000001192092896), None, True),
    ("at most, just outside", AT_MOST, numbers(0.3001), None, False),
    ("at most, negative", AT_MOST, numbers(-5.0), None, True),
    ("at most, zero", AT_MOST, numbers(0.0), None, True),
    ("at most, missing", AT_MOST, numbers(), None, False),
    ("at most, NaN", AT_MOST, numbers(NAN), None, False),
    ("at most, infinite", AT_MOST, numbers(INF), None, False),
    ("at most, minus infinite", AT_MOST, numbers(-INF), None, False),
    ("at most, infinite as SQL gives it back", AT_MOST, numbers(SQL_INF), None, False),
    ("at most, minus infinite as SQL gives it back", AT_MOST, numbers(-SQL_INF), None, False),
    ("below, inside", BELOW, numbers(0.29), None, True),
    ("below, on the limit", BELOW, numbers(0.3), None, False),
    ("below, float32 under the limit", BELOW, numbers(0.29999998211860657), None, False),
    ("below, minus infinite", BELOW, numbers(-INF), None, False),
    ("below, NaN", BELOW, numbers(NAN), None, False),
    ("at least, inside", AT_LEAST, numbers(health=0.9), None, True),
    ("at least, on the limit", AT_LEAST, numbers(health=0.5), None, True),
    ("at least, outside", AT_LEAST, numbers(health=0.49), None, False),
    ("at least, infinite", AT_LEAST, numbers(health=INF), None, False),
    ("at least, infinite as SQL gives it back", AT_LEAST, numbers(health=SQL_INF), None, False),
    ("at least, missing", AT_LEAST, numbers(0.1, 0.1), None, False),
    ("above, inside", ABOVE, numbers(health=0.51), None, True),
    ("above, cannot be told", ABOVE, numbers(health=0.5), None, False),
    ("above, alarm", ABOVE, numbers(health=0.499), None, False),
    ("above, NaN", ABOVE, numbers(health=NAN), None, False),
    # the family behind a number
    ("an undecided family's score is no number", AT_MOST, numbers(0.0, 0.0, 0.5), None, False),
    ("an alarming family's score is one", AT_MOST, numbers(0.29, 5.0, 0.4), None, True),
    ("family there", FAMILY, numbers(0.1, 0.1, 0.9), None, True),
    ("family undecided", FAMILY, numbers(0.1, 0.1, 0.5), None, False),
    ("family undecided, by itself", HEALTH_OF_FAMILY, numbers(0.1, 0.1, 0.5), None, False),
    ("family decided, by itself", HEALTH_OF_FAMILY, numbers(0.1, 0.1, 0.6), None, True),
    ("family without health", FAMILY, numbers(0.1, 0.1), None, False),
    ("family with NaN health", FAMILY, numbers(0.1, 0.1, NAN), None, False),
    ("family without score", FAMILY, numbers(None, 0.1, 0.9), None, False),
    ("family with infinite score", FAMILY, numbers(INF, 0.1, 0.9), None, False),
    # the data set
    ("right data", PINNED, numbers(0.1, digest=A), None, True),
    ("wrong data", PINNED, numbers(0.1, digest=B), None, False),
    ("unknown data", PINNED, numbers(0.1, digest=None), None, False),
    ("unknown data, none demanded", AT_MOST, numbers(0.1, digest=None), None, True),
    ("right data, too large", PINNED, numbers(0.4, digest=A), None, False),
    # the confidence bound: standard error = score / z
    ("bound, inside", BOUND, numbers(0.2, 4.0), None, True),
    ("bound, value inside and bound outside", BOUND, numbers(0.2, 2.0), None, False),
    ("bound, no z", BOUND, numbers(0.2), None, False),
    ("bound, z zero", BOUND, numbers(0.2, 0.0), None, False),
    ("bound, z NaN", BOUND, numbers(0.2, NAN), None, False),
    ("bound, z infinite", BOUND, numbers(0.2, INF), None, False),
    ("bound, z of the other sign", BOUND, numbers(0.2, -4.0), None, False),
    ("bound, score and z zero", BOUND, numbers(0.0, 0.0), None, False),
    ("bound, both negative", BOUND, numbers(-0.2, -2.0), None, True),
    ("lower bound, inside", LOWER_BOUND, numbers(0.5, 5.0), None, True),
    ("lower bound, value inside and bound outside", LOWER_BOUND, numbers(0.31, 5.0), None, False),
    # relative limits
    ("better than the champion", ABS, numbers(0.1), OLD, True),
    ("worse within the allowance", ABS, numbers(0.21), OLD, True),
    ("worse by the allowance", ABS, numbers(0.22), OLD, True),
    ("worse by more", ABS, numbers(0.23), OLD, False),
    ("relative, within", REL, numbers(0.209), OLD, True),
    ("relative, beyond", REL, numbers(0.212), OLD, False),
    ("either, within the larger", EITHER, numbers(0.215), OLD, True),
    ("either, beyond both", EITHER, numbers(0.225), OLD, False),
    ("must be better, is", BETTER, numbers(0.18), OLD, True),
    ("must be better, is equal", BETTER, numbers(0.2), OLD, False),
    ("higher is better, within", HIGHER, numbers(health=0.69), OLD, True),
    ("higher is better, beyond", HIGHER, numbers(health=0.67), OLD, False),
    ("both kinds, both hold", BOTH, numbers(0.21), OLD, True),
    ("both kinds, absolute fails", BOTH, numbers(0.31), numbers(0.3, model="m-old"), False),
    ("both kinds, relative fails", BOTH, numbers(0.25), OLD, False),
    ("bound against the champion, within", BOUND_ABS, numbers(0.1, 4.0), OLD, True),
    ("bound against the champion, beyond", BOUND_ABS, numbers(0.19, 4.0), OLD, False),
    # states of the registry
    ("no champion, accepted", ABS, numbers(0.9), None, True),
    ("no champion, accepted, but no number", ABS, numbers(), None, False),
    ("no champion, accepted, but NaN", ABS, numbers(NAN), None, False),
    ("no champion, refused", REL, numbers(0.1), None, False),
    ("champion without the number", ABS, numbers(0.1), numbers(model="m-old"), False),
    ("champion with NaN", ABS, numbers(0.1), numbers(NAN, model="m-old"), False),
    ("champion infinitely bad", ABS, numbers(0.1), numbers(INF, model="m-old"), False),
    ("champion infinitely bad as SQL gives it back", ABS, numbers(0.1), numbers(SQL_INF, model="m-old"), False),
    ("champion on other data", ABS, numbers(0.1), numbers(0.2, digest=B, model="m-old"), False),
    ("champion on unknown data", ABS, numbers(0.1), numbers(0.2, digest=None, model="m-old"), False),
    ("both on unknown data", ABS, numbers(0.1, digest=None), numbers(0.2, digest=None, model="m-old"), False),
    ("candidate NaN against a champion", ABS, numbers(NAN), OLD, False),
    ("candidate missing against a champion", ABS, numbers(), OLD, False),
    ("candidate minus infinite against a champion", ABS, numbers(-INF), OLD, False),
    ("is the champion itself", BETTER, numbers(0.2, model="m-old"), OLD, True),
    ("is the champion itself, without numbers", BETTER, numbers(model="m-old"), numbers(model="m-old"), False),
]


@pytest.mark.parametrize(
    ("policy", "candidate", "champion", "passes"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_table(policy, candidate, champion, passes):
    verdict = decide(policy, candidate, champion)
    assert verdict.passed is passes
    assert all(check.reason for check in verdict.failures)


def test_table_is_large_enough_and_has_no_double():
    assert len(TABLE) >= 60
    assert len({row[0] for row in TABLE}) == len(TABLE)


def test_reason_says_why_numbers_are_missing():
    verdict = decide(AT_MOST, numbers(problem="nothing was logged at its step 7"), None)
    assert "nothing was logged at its step 7" in verdict.failures[0].reason


# Properties over arbitrary policies and numbers.

FINITE = st.floats(-1e3, 1e3, allow_nan=False)
ANY = st.one_of(st.none(), FINITE, st.sampled_from([NAN, INF, -INF, SQL_INF, -SQL_INF, 0.5, 0.0]))
METRICS = st.sampled_from([SCORE, Z, HEALTH])
OPERATORS = st.sampled_from(["at_most", "below", "at_least", "above"])


@st.composite
def limits(draw):
    limit = {"metric": draw(METRICS)}
    if draw(st.booleans()):
        limit[draw(OPERATORS)] = draw(FINITE)
    else:
        limit["better"] = draw(st.sampled_from(["lower", "higher"]))
    if "better" in limit or draw(st.booleans()):
        limit["vs_champion"] = draw(
            st.fixed_dictionaries({"abs": FINITE}, optional={"rel": st.floats(-2, 2, allow_nan=False)})
        )
    if draw(st.booleans()):
        limit["bound"] = {"level": draw(st.floats(0.51, 0.99)), "z": Z}
    return limit


@st.composite
def policies(draw):
    return {
        "name": "any",
        "version": "1",
        "dataset_digest": draw(st.sampled_from([None, A])),
        "champion": {"missing": draw(st.sampled_from(["accept", "refuse"]))},
        "families": draw(st.sampled_from([[], ["overfitting"]])),
        "checks": draw(st.lists(limits(), min_size=1, max_size=3)),
    }


@st.composite
def any_numbers(draw, values=ANY):
    models = st.sampled_from(["m-new", "m-old"])
    return numbers(draw(values), draw(values), draw(values), draw(st.sampled_from([None, A, B])), draw(models))


CHAMPIONS = st.one_of(st.none(), any_numbers())
BAD = st.sampled_from([None, NAN, INF, -INF, SQL_INF, -SQL_INF])


@settings(max_examples=400, deadline=None)
@given(policies(), any_numbers(), CHAMPIONS, BAD)
def test_no_missing_or_non_finite_required_value_ever_passes(content, candidate, champion, bad):
    policy = Policy.model_validate(content)
    for check in policy.checks:
        for key in {check.metric, check.bound.z if check.bound else check.metric}:
            values = {k: v for k, v in candidate.metrics.items() if k != key}
            spoilt = ModelMetrics(candidate.subject, candidate.model, values | ({} if bad is None else {key: bad}), A)
            assert not decide(policy, spoilt, champion).passed


@settings(max_examples=200, deadline=None)
@given(policies(), any_numbers(), CHAMPIONS)
def test_numbers_of_other_or_unknown_data_never_pass_a_policy_that_names_its_data(content, candidate, champion):
    policy = Policy.model_validate(content | {"dataset_digest": "cccccccccccc"})
    assert not decide(policy, candidate, champion).passed


@settings(max_examples=600, deadline=None)
@given(policies(), any_numbers(), CHAMPIONS, st.data())
def test_tightening_never_turns_fail_into_pass(content, candidate, champion, data):
    strict = data.draw(tightened(content))
    if decide(Policy.model_validate(strict), candidate, champion).passed:
        assert decide(Policy.model_validate(content), candidate, champion).passed


@st.composite
def tightened(draw, content):
    """The same policy with one thing demanded more of."""
    by = draw(st.floats(0, 100, allow_nan=False))
    checks = [dict(check) for check in content["checks"]]
    chosen = draw(st.integers(0, len(checks) - 1))
    check = checks[chosen]
    ways = ["families", "data set", "champion", "check"]
    ways += [key for key in ("at_most", "below", "at_least", "above", "vs_champion") if key in check]
    way = draw(st.sampled_from(ways))
    if way == "families":
        return content | {"families": ["overfitting"]}
    if way == "data set":
        return content | {"dataset_digest": A}
    if way == "champion":
        return content | {"champion": {"missing": "refuse"}}
    if way == "check":
        return content | {"checks": [*checks, draw(limits())]}
    if way == "vs_champion":
        check[way] = {key: value - by for key, value in check[way].items()}
    else:
        check[way] += -by if way in ("at_most", "below") else by
    return content | {"checks": checks}


@settings(max_examples=200, deadline=None)
@given(policies(), any_numbers(), CHAMPIONS)
def test_the_verdict_names_its_subject_and_tells_every_check(content, candidate, champion):
    policy = Policy.model_validate(content)
    verdict = decide(policy, candidate, champion)
    assert verdict.subject == candidate.subject
    assert policy.digest in verdict.policy
    assert {check.metric for check in policy.checks} <= {check.name for check in verdict.checks}
    assert verdict == decide(policy, candidate, champion)


PLACE, PLACE_HEALTH = "ifa/dataloader_1/overfitting/score", "ifa/dataloader_1/health/overfitting"


def test_an_undecided_family_of_a_further_loader_never_passes():
    told = ModelMetrics("s", "m", {PLACE: 0.0, PLACE_HEALTH: 0.5}, A)
    assert not decide(rules(on(PLACE, at_most=0.3)), told, None).passed
    named = rules(on("ifa/own/number", at_most=1), families=["dataloader_1/overfitting"])
    verdict = decide(named, ModelMetrics("s", "m", told.metrics | {"ifa/own/number": 0.0}, A), None)
    assert [check.undecided for check in verdict.failures] == ["dataloader_1/overfitting"]
    decided = ModelMetrics("s", "m", {PLACE: 0.0, PLACE_HEALTH: 0.9}, A)
    assert decide(rules(on(PLACE, at_most=0.3), families=["dataloader_1/overfitting"]), decided, None).passed


@pytest.mark.parametrize(
    ("undecided", "passes"),
    [
        ("refuse", False),
        ("accept", True),
        ({"overfitting": "accept"}, True),
        ({"default": "accept", "overfitting": "refuse"}, False),
        ({"default": "accept"}, True),
    ],
)
def test_the_policy_says_what_cannot_be_told_means(undecided, passes):
    policy = rules(on(HEALTH, above=0.5), on(SCORE, at_most=0.3), families=["overfitting"], undecided=undecided)
    verdict = decide(policy, numbers(0.9, 0.1, 0.5), None)
    assert verdict.passed is passes
    assert verdict.accepted == (("overfitting",) if passes else ())
    assert not decide(policy, numbers(NAN, 0.1, 0.5), None).passed
    assert not decide(policy, numbers(0.1, 0.1), None).passed


def test_no_policy_accepts_what_is_suspected_and_cannot_be_told():
    policy = rules(on(HEALTH, above=0.5), families=["overfitting"], undecided="accept")
    found = numbers(0.9, 0.1, 0.5)
    assert decide(policy, replace(found, metrics=found.metrics | {"ifa/overfitting/unidentified": 0.0}), None).passed
    verdict = decide(policy, replace(found, metrics=found.metrics | {"ifa/overfitting/unidentified": 1.0}), None)
    assert not verdict.passed
    assert any("no policy accepts" in check.reason for check in verdict.failures)


@pytest.mark.parametrize(("name", "other"), [("layer", "layer3"), ("method", "gradcam"), ("version", "0.0.1")])
def test_numbers_of_another_layer_method_or_version_are_not_compared(name, other):
    known = {"layer": "layer4", "method": "hirescam", "version": "0.1.0"}
    old, new = (replace(found, conditions=known) for found in (OLD, numbers(0.1)))
    assert decide(ABS, new, old).passed
    for champion in (replace(old, conditions=known | {name: other}), replace(old, conditions={})):
        (refused,) = decide(ABS, new, champion).failures
        assert name in refused.reason


def test_what_must_not_be_promoted_fails_whatever_its_numbers():
    (failed,) = decide(AT_MOST, replace(numbers(0.1), obstacle="the version is archived"), None).failures
    assert failed.reason == "the version is archived"
