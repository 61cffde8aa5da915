"""The report made by hand, for every test of this folder that makes none of its own."""

from __future__ import annotations

import pytest
from reports import small_report


@pytest.fixture(scope="session")
def report():
    return small_report()
