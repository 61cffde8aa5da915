"""Names from users cannot leave the folder, break a key, or collide."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ifa.tracking.names import slug, without_secret

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "a//b",
    "..",
    ".",
    "",
    "a\nb",
    "💥",
    "x" * 10_000,
    "<script>",
    "a:b",
    "C:\\x",
    " a",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name):
    assert re.fullmatch(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,70}", slug(name))
    assert ".." not in slug(name)


@given(st.text(), st.text())
def test_different_names_stay_different(one, other):
    assert (slug(one) == slug(other)) == (one == other)


def test_plain_names_stay():
    assert [slug(name) for name in ("17", "case-17.png", "Site_A")] == ["17", "case-17.png", "Site_A"]


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://127.0.0.1:5000", "file:///tmp/x"])
def test_uris_without_secret_stay(uri):
    assert without_secret(uri) == uri


def test_secret_is_removed():
    assert without_secret("http://me:pa@ss@host:5000/a?b=c") == "http://host:5000/a?b=c"
