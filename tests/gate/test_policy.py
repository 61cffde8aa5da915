"""Policies: what is accepted, and that every fault is told with its line."""

from pathlib import Path

import pytest

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
        ("above: 0.5", "abvoe: 0.5", 10, "abvoe"),
        ("above: 0.5", "above: half", 10, "half"),
        ("above: 0.5", "above: .nan", 10, "finite"),
        ("above: 0.5", "above: .inf", 10, "finite"),
        ("above: 0.5", "above: true", 10, "True"),
        ('version: "1"', "version: 1.0", 2, "string"),
        ('version: "1"\n', "", 1, "version"),
        ("at_most: 1\n", "at_most: 1\n    at_least: 0\n", 11, "at_most and at_least"),
        ("at_most: 1\n", "at_most: 1\n    better: lower\n", 11, "better"),
        ("    at_most: 1\n", "", 11, "needs better"),
        ("    above: 0.5\n", "", 9, "no limit"),
        ("{abs: 0.02, rel: 0.05}", "{}", 14, "abs, rel or both"),
        ("missing: accept", "missing: perhaps", 6, "perhaps"),
        ("level: 0.95", "level: 95", 13, "less than 1"),
        ("metric: ifa/health/overfitting", "metric: val_accuracy", 9, "val_accuracy"),
        ("metric: ifa/health/overfitting", "metric: ifa/overfitting", 9, "pattern"),
        ("families: [overfitting]", "families: overfitting", 7, "overfitting"),
        ("dataset_digest: 0123456789ab", "dataset_digest: 12", 3, "string"),
        ("alias: champion", "alias: the champion", 5, "the champion"),
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
