"""Policies: what is accepted, and that every fault is told with its line."""

import contextlib
from pathlib import Path

import pytest
from bounds import bounds
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ifa.errors import PolicyError
from lightning_ifa.gate.policy import Policy, load_policy

GOOD = """\
name: test
version: "1"
dataset_digest: 0123456789ab
champion:
  alias: champion
  missing: accept
families: [overfitting]
checks:
  - metric: ifa/health/overfitting
    above: 0.5
  - metric: ifa/overfitting/score
    at_most: 1
    bound: {level: 0.95, z: ifa/overfitting/z}
    vs_champion: {abs: 0.02, rel: 0.05}
"""


def written(folder, text):
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_a_policy_is_read(tmp_path):
    policy = load_policy(written(tmp_path, GOOD))
    assert policy.label.startswith("test@1 ")
    assert policy.metrics == {
        "ifa/health/overfitting",
        "ifa/overfitting/score",
        "ifa/overfitting/z",
    }
    assert [check.lower_is_better for check in policy.checks] == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("above: 0.5", "abvoe: 0.5", 10, "did you mean 'above'"),
        ("above: 0.5", "above: half", 10, "number (found text)"),
        ("above: 0.5", "above: .nan", 10, "finite"),
        ("above: 0.5", "above: .inf", 10, "finite"),
        ("above: 0.5", "above: true", 10, "true or false"),
        ('version: "1"', "version: 1.0", 2, "string"),
        ('version: "1"\n', "", 1, "version"),
        ("at_most: 1\n", "at_most: 1\n    at_least: 0\n", 11, "at_most and at_least"),
        ("at_most: 1\n", "at_most: 1\n    better: lower\n", 11, "better"),
        ("    at_most: 1\n", "", 11, "needs better"),
        ("    above: 0.5\n", "", 9, "no limit"),
        ("{abs: 0.02, rel: 0.05}", "{}", 14, "abs, rel or both"),
        ("missing: accept", "missing: perhaps", 6, "'accept' or 'refuse'"),
        ("level: 0.95", "level: 95", 13, "less than 1"),
        ("metric: ifa/health/overfitting", "metric: val_accuracy", 9, "checks.0.metric: String should match"),
        ("metric: ifa/health/overfitting", "metric: ifa/overfitting", 9, "pattern"),
        ("families: [overfitting]", "families: overfitting", 7, "families: Input should be a valid tuple (found text)"),
        ("dataset_digest: 0123456789ab", "dataset_digest: 12", 3, "string"),
        ("alias: champion", "alias: the champion", 5, "champion.alias: this can be no alias"),
        ("name: test", "name: [test", 2, "not YAML"),
        ("champion:", "name: again\nchampion:", 4, "given twice"),
        ("    above: 0.5", "    above: 0.5\n    above: 0.1", 11, "given twice"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path, old, new, line, says):
    assert old in GOOD
    with pytest.raises(PolicyError) as error:
        load_policy(written(tmp_path, GOOD.replace(old, new)))
    assert f"line {line}" in str(error.value)
    assert says in str(error.value)


def test_every_fault_is_told_at_once(tmp_path):
    text = GOOD.replace("above: 0.5", "above: x").replace("missing: accept", "missing: x")
    with pytest.raises(PolicyError, match=r"line 6(?s:.*)line 10"):
        load_policy(written(tmp_path, text))


@pytest.mark.parametrize("text", ["", "[]", "42", "name: x\nversion: '1'\nchecks: []\n", "\xff\x00"])
def test_what_is_no_policy_is_refused(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PolicyError):
        load_policy(path)


def test_a_missing_file_and_python_objects_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")
    with pytest.raises(PolicyError):
        load_policy(written(tmp_path, "name: !!python/object/apply:os.system ['true']\n"))


def test_the_digest_follows_values_not_comments(tmp_path):
    same = load_policy(written(tmp_path, "# a comment\n" + GOOD.replace("at_most: 1", "at_most: 1.0  # one")))
    other = load_policy(written(tmp_path, GOOD.replace("at_most: 1", "at_most: 1.01")))
    policy = load_policy(written(tmp_path, GOOD))
    assert policy.digest == same.digest != other.digest


@pytest.mark.parametrize("file", ["gate.yaml", "gate_strict.yaml"])
def test_shipped_policies_demand_every_family_decided(file):
    policy = load_policy(Path(__file__).parents[2] / "configs" / file)
    assert isinstance(policy, Policy)
    assert set(policy.families) == {"overfitting", "confounding", "outliers", "redundancy", "consistency"}
    bars = {c.metric: (c.operator, c.at_least or c.above) for c in policy.checks if c.metric.startswith("ifa/health/")}
    assert set(bars) == {f"ifa/health/{family}" for family in policy.families}
    assert all(bar > 0.5 or operator == "above" for operator, bar in bars.values())


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("above: 0.5", "above: 010", 10, "plain decimal"),
        ("above: 0.5", "above: 0x1", 10, "plain decimal"),
        ("above: 0.5", "above: 1:30", 10, "plain decimal"),
        ("above: 0.5", "above: 1:30.5", 10, "plain decimal"),
        ("above: 0.5", "above: 1_0", 10, "plain decimal"),
        ("above: 0.5", "above: " + "9" * 5001, 10, "plain decimal"),
        ("above: 0.5", "above: 1.0e+400", 10, "not finite"),
        ("above: 0.5", "above: 1e400", 10, "number"),
        ("above: 0.5", "above:", 10, "its value is missing"),
        ("above: 0.5", "at_most: 0.5", 9, "wrong way round"),
        ("at_most: 1\n", "at_least: 1\n", 11, "wrong way round"),
        ("dataset_digest: 0123456789ab", "dataset_digest:", 3, "its value is missing"),
        ("dataset_digest: 0123456789ab", "dataset_digest: ~", 3, "its value is missing"),
        ("families: [overfitting]", "families: &a [*a]", 7, "contains itself"),
        ("families: [overfitting]", "undecided: {outliers: accept}", 1, "no check speaks of outliers"),
        ("families: [overfitting]", "undecided: perhaps", 7, "refuse"),
        ("alias: champion", "alias: latest", 5, "no alias"),
        ("alias: champion", "alias: v12", 5, "no alias"),
        ("name: test", "1: test", 1, "no key"),
        ("name: test", "name: 2020-01-01", 1, "quotes"),
    ],
)
def test_what_yaml_reads_otherwise_than_a_person_is_refused(tmp_path, old, new, line, says):
    test_faults_are_told_with_their_line(tmp_path, old, new, line, says)


def test_limits_that_no_number_meets_are_refused(tmp_path):
    more = "  - {metric: ifa/own/number, at_most: 0.1}\n  - {metric: ifa/own/number, above: 0.1}\n"
    with pytest.raises(PolicyError, match=r"line 16: ifa/own/number: no number can meet at_most: 0\.1 and"):
        load_policy(written(tmp_path, GOOD + more))


def test_endless_files_are_refused_at_once(tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
    )
    for text in (bomb, "[" * 5000, "{a: " * 5000, "x" * 1_100_000):
        with pytest.raises(PolicyError):
            load_policy(written(tmp_path, text))
    with pytest.raises(PolicyError, match="no file"):
        load_policy("/dev/zero")


SECRET = "hunter2hunter2"


FORMS = (
    "{}", "{}:", "a: {}", "- {}", "&{} x", "*{}", "!{} x", "'{}", "{{{}", "name: [{}]", "? {}", "!!int {}", "%{} x",
    "!{}!x y", "{0}: 1\n{0}: 2", "@{}", "\\{}", "a: {}: b", "{}\t: [", "champion: {{alias: {} x}}",
    "champion: {{{}: x}}", "checks: [{{{}: 3}}]", "1{}",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_content_of_another_file_is_not_told(tmp_path, form):
    for text in (form.format(SECRET), GOOD + form.format(SECRET), form.format(f'"{SECRET}"')):
        with pytest.raises(PolicyError) as error:
            load_policy(written(tmp_path, text))
        assert SECRET not in str(error.value)


SIGNS = ("010", "1:30", "&a ", "*a", "[", "{", "}", "]", "? ", "<<: ", "!!set ", "\t", "- ", ": ", "'", '"', "|\n")
WORDS = ("\x00", "\u2028", "9" * 5001, "1e400", ".nan", "~", "\n", "---\n", "%YAML 9.9\n", "é")
PIECES = st.sampled_from((*GOOD.splitlines(keepends=True), *SIGNS, *WORDS))


def check_fuzzed(folder, parts):
    path = folder / "policy.yaml"
    path.write_text("".join(parts), encoding="utf-8")
    with bounds(), contextlib.suppress(PolicyError):
        assert isinstance(load_policy(path), Policy)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PIECES, max_size=25))
def test_any_text_is_a_policy_or_a_policy_error(tmp_path_factory, parts):
    check_fuzzed(tmp_path_factory.getbasetemp(), parts)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(parts=st.lists(PIECES, max_size=25))
def test_any_of_many_texts_is_a_policy_or_a_policy_error(tmp_path_factory, parts):
    check_fuzzed(tmp_path_factory.getbasetemp(), parts)
