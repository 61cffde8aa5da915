"""The verdict for people and for CI: Markdown, JSON, JUnit, terminal."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import click

from lightning_ifa.gate.verdict import Check, Verdict
from lightning_ifa.text import escape_markdown, join_words, keep_legal_xml

_MARKS = {True: "pass", False: "FAIL"}


def markdown(verdict: Verdict) -> str:
    """Write the verdict as Markdown: a first line of plain text, the subject and its data, a table of the checks."""
    step = "unknown" if verdict.step is None else verdict.step
    lines = [
        headline(verdict),
        "",
        f"Subject {escape_markdown(verdict.subject)}; policy {escape_markdown(verdict.policy)}; "
        f"champion {escape_markdown(verdict.champion or 'none')}; "
        f"data {escape_markdown(verdict.dataset_digest or 'unknown')}; "
        f"step {step}; numbers from {escape_markdown(verdict.origin)}.",
        "",
        "| check | verdict | value | limit | reason |",
        "|---|---|---|---|---|",
    ]
    for check in sorted(verdict.checks, key=lambda check: check.passed):  # failures first
        cells = (check.name, _MARKS[check.passed], _shortly(check), check.limit, check.reason)
        lines.append("| " + " | ".join(map(escape_markdown, cells)) + " |")
    return "\n".join(lines)


def headline(verdict: Verdict) -> str:
    """Say the verdict in a line, with what it does not know."""
    untold = f", though {join_words(verdict.accepted)} cannot be told" if verdict.accepted else ""
    word = "PASS" if verdict.passed else f"FAIL, {len(verdict.failures)} of {len(verdict.checks)} checks"
    return word + untold if verdict.passed else word


def to_json(verdict: Verdict) -> str:
    """Write the verdict as JSON."""
    return json.dumps(verdict.to_dict(), indent=1, allow_nan=False) + "\n"


def junit(verdict: Verdict) -> str:
    """Write the verdict as JUnit XML, one test case a check."""
    suite = _suite(verdict.subject, len(verdict.checks), failures=len(verdict.failures))
    for check in verdict.checks:
        case = _add(suite, "testcase", classname=verdict.policy, name=f"{check.name} {check.limit}")
        if not check.passed:
            failure = _add(case, "failure", message=check.reason or "not met")
            failure.text = keep_legal_xml(f"value {_value(check)}")
    return _document(suite)


def junit_undecided(subject: str, reason: str) -> str:
    """Write JUnit XML for a gate that could not decide: one test case with an error."""
    suite = _suite(subject, 1, errors=1)
    case = _add(suite, "testcase", classname="lightning-ifa gate", name="could decide")
    _add(case, "error", message=reason)
    return _document(suite)


def decided(verdict: Verdict) -> dict[str, str]:
    """Write the result files of a verdict, by kind."""
    return {"junit": junit(verdict), "json": to_json(verdict)}


def undecided(subject: str, reason: str) -> dict[str, str]:
    """Write the result files of a gate that could not decide, by kind."""
    content = {"verdict": "undecided", "subject": subject, "reason": reason}
    return {"junit": junit_undecided(subject, reason), "json": json.dumps(content, indent=1) + "\n"}


def terminal(verdict: Verdict) -> str:
    """Write the verdict as a coloured table."""
    widths = [max(map(len, column)) for column in zip(*map(_cells, verdict.checks), strict=True)]
    lines = []
    for check in verdict.checks:
        name, value, limit = (text.ljust(width) for text, width in zip(_cells(check), widths, strict=True))
        mark = click.style(_MARKS[check.passed], fg="green" if check.passed else "red", bold=not check.passed)
        lines.append(f"  {mark}  {name}  {value}  {limit}  {keep_legal_xml(check.reason)}".rstrip())
    word = click.style(verdict.word.upper(), fg="green" if verdict.passed else "red", bold=True)
    word += headline(verdict).removeprefix("PASS") if verdict.passed else ""
    return "\n".join([*lines, f"{word}  {keep_legal_xml(verdict.subject)}  policy {verdict.policy}"])


def _cells(check: Check) -> tuple[str, str, str]:
    return keep_legal_xml(check.name), keep_legal_xml(_value(check)), keep_legal_xml(check.limit)


def _value(check: Check) -> str:
    if check.value is None:
        return "-"
    return f"{check.value:.6g}" if isinstance(check.value, float) else str(check.value)


def _shortly(check: Check) -> str:
    """A value as people read it; the artifact has all its digits."""
    return f"{check.value:.3g}" if isinstance(check.value, float) else _value(check)


def _suite(subject: str, tests: int, failures: int = 0, errors: int = 0) -> ElementTree.Element:
    counts = {"tests": str(tests), "failures": str(failures), "errors": str(errors)}
    return ElementTree.Element("testsuite", {"name": keep_legal_xml(f"lightning-ifa gate {subject}")} | counts)


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {key: keep_legal_xml(text) for key, text in attributes.items()})


def _document(suite: ElementTree.Element) -> str:
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
