import pytest

from lightning_ifa.indicators.base import Finding, undecided
from lightning_ifa.statistics.significance import health


@pytest.mark.parametrize(
    ("score", "z", "alarm"), [(0.5, 9.0, True), (0.5, 2.9, False), (0.2, 9.0, False), (-1.0, 9.0, False)]
)
def test_alarm_needs_size_and_significance(score, z, alarm):
    assert Finding(score, z, health(score, 0.3, z)).alarm is alarm


def test_a_score_exactly_at_its_limit_is_neither_alarm_nor_undecided():
    found = Finding(0.01, 9.0, health(0.01, 0.01, 9.0))
    assert not found.alarm
    assert not found.undecided


def test_undecided_is_no_alarm():
    assert undecided("why").undecided
    assert not undecided("why").alarm
