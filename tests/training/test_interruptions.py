"""A signal to a real process is answered as soon, and with the same end, as without the callback."""

from functools import cache

import pytest
from interrupted_job import run_job

AS = {"training": "training", "drawing": "training", "forward": "validation", "data": "validation"}
"""The moment of a signal, and its counterpart where nothing is analysed."""

LATEST = 2.0  # seconds after a fit without the callback would have ended


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return cache(lambda moment, name: run_job(tmp_path_factory.mktemp("without") / "job", moment, name, False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("moment", AS)
def test_a_signal_is_answered_as_without_the_callback(tmp_path, without, moment, name):
    seconds, left = run_job(tmp_path / "job", moment, name, True)
    usual, expected = without(AS[moment], name)
    assert left == expected
    assert seconds < usual + LATEST


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_who_is_told_to_end_waits_for_no_server(tmp_path, without, name):
    """The server never answers, the training is over, and its uploads have a minute: a signal ends it all the same."""
    seconds, _ = run_job(tmp_path / "job", "closing", name, True)
    assert seconds < without("training", name)[0] + LATEST
