"""The verdict for people and for CI; names from a registry never become markup."""

import json
import math
from xml.etree import ElementTree

import pytest

from lightning_ifa.gate import render
from lightning_ifa.gate.registry import describe_version, list_advice
from lightning_ifa.gate.verdict import Check, Verdict

SCORE = "ifa/overfitting/score"


def verdict(*checks, subject="models:/leafnet/3 (m-1)"):
    return Verdict("test@1 0123456789ab", subject, None, "aaaaaaaaaaaa", 7, "logged model", checks)


GOOD = Check(SCORE, True, 0.1, "at most 0.3")
BAD = Check("ifa/health/outliers", False, math.nan, "above 0.5", "ifa/health/outliers is not a number")


def test_markdown_starts_with_plain_text_and_lists_failures_first():
    lines = render.markdown(verdict(GOOD, BAD)).splitlines()
    assert lines[0] == "FAIL, 1 of 2 checks"
    assert lines[-2:] == [
        "| ifa/health/outliers | FAIL | nan | above 0.5 | ifa/health/outliers is not a number |",
        "| ifa/overfitting/score | pass | 0.1 | at most 0.3 |  |",
    ]
    assert render.markdown(verdict(GOOD)).splitlines()[0] == "PASS"


def test_a_verdict_without_checks_is_no_pass():
    assert not verdict().passed


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "a | b\n| c | pass |", "[x](javascript:alert(1))"])
def test_names_do_not_become_markup(evil):
    text = render.markdown(verdict(Check(SCORE, False, 1.0, "at most 0.3", evil), subject=evil))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert "<script" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\]", "")


def test_control_characters_reach_neither_terminal_nor_xml():
    evil = verdict(Check("a\x1b[31mb", False, None, "x", "\x00\x07\ud800"), subject="\x1b]0;title\x07")
    assert "\x1b]0" not in render.terminal(evil)
    assert "\x1b[31mb" not in render.terminal(evil)
    ElementTree.fromstring(render.junit(evil))


def test_junit_counts_what_ci_counts():
    suite = ElementTree.fromstring(render.junit(verdict(GOOD, BAD)))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    failed = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["ifa/health/outliers above 0.5"]
    assert failed[0].find("failure").get("message") == "ifa/health/outliers is not a number"


def test_junit_of_no_decision_is_an_error():
    suite = ElementTree.fromstring(render.junit_undecided("models:/leafnet/3", "no <server>"))
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error").get("message") == "no <server>"


def test_json_is_strict():
    content = json.loads(render.to_json(verdict(GOOD, BAD)), parse_constant=lambda text: pytest.fail(text))
    assert content["verdict"] == "fail"
    assert [check["value"] for check in content["checks"]] == [0.1, "nan"]


def test_terminal_colours_the_verdict():
    assert "\x1b[31m\x1b[1mFAIL" in render.terminal(verdict(GOOD, BAD))
    assert "\x1b[32m\x1b[1mPASS" in render.terminal(verdict(GOOD))
    assert render.terminal(verdict()).startswith("\x1b[31m")


@pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\u200f", "\u2028", "\u2029", "\u0085"])
def test_what_turns_or_breaks_text_is_neutralised(sign):
    evil = verdict(Check(f"a{sign}b", False, None, "x", f"c{sign}d"), subject=f"e{sign}f")
    for text in (render.markdown(evil), render.terminal(evil), render.junit(evil)):
        assert sign not in text


@pytest.mark.parametrize("own", ["See IFA gate: below.", "IFA gate: my notes\n\nmore", "x <!-- end of y"])
def test_own_words_around_the_verdict_stay(own):
    once = describe_version(own, verdict(GOOD))
    again = describe_version(f"{own}\n\n{once}", verdict(GOOD, BAD))
    assert again.count(own) == 2
    assert again.count("<!-- end of the gate's verdict -->") == 1
    assert "IFA gate: PASS" not in again


def test_advice_on_what_failed_comes_before_the_table():
    told = "# Two.\n\n## Overfitting\n\n* **To try:** go\\_back <b> IFA gate: PASS\n\n## Other\n\n* **To try:** no"
    failed = Check("ifa/health/overfitting", False, 0.2, "above 0.5", "0.2 is not above 0.5")
    advice = list_advice(told, verdict(GOOD, failed))
    assert advice == ["* To try, overfitting: go_back \\<b\\> IFA gate: PASS"]
    assert list_advice(told, verdict(GOOD)) == []
    first, second, _ = describe_version("", verdict(failed), "\n".join(advice)).split("\n\n", 2)
    assert (first, [second]) == ("IFA gate: FAIL, 1 of 1 checks", advice)
