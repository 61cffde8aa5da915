"""The description keeps what the user wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ifa.tracking.description import BEGIN, END, LONGEST, with_verdict


@given(st.text(max_size=500).filter(lambda text: BEGIN not in text), st.text(max_size=500))
def test_users_text_stays_and_the_section_is_replaced(text, section):
    once = with_verdict(text, section)
    assert once.startswith(text)
    assert with_verdict(once, section) == once
    assert with_verdict(once, "second").count(BEGIN) == 1
    assert "second" in with_verdict(once, "second")


def test_text_around_the_section_stays():
    first = with_verdict("before", "one")
    edited = "new " + first + "\nafter"
    again = with_verdict(edited, "two")
    assert again.startswith("new before")
    assert again.endswith("\nafter")
    assert "one" not in again


@pytest.mark.parametrize("length", [0, 5000, 7000])
def test_it_fits_into_a_tag(length):
    found = with_verdict("u" * length, "line\n" * 5000)
    assert len(found) <= LONGEST
    assert found.count("u") >= length
    assert found.endswith(f"(more in ifa_summary.md)\n{END}")


def test_a_full_description_is_left_alone():
    assert with_verdict("u" * 7990, "verdict") == "u" * 7990
