"""A long pass is seen on a terminal, and nowhere else."""

import io

import pytest

from lightning_ifa.offline import batch_counter


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "seen"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_long_pass_is_seen_on_a_terminal_only(monkeypatch, stream, seen):
    monkeypatch.setattr(batch_counter, "PATIENCE", 0.0)
    monkeypatch.setattr(batch_counter, "EVERY", 0.0)
    with batch_counter.count_batches(lambda batch: batch + 1, stream) as prepare:
        assert [prepare(number) for number in range(3)] == [1, 2, 3]
    assert ("Feature analysis: 3 batches" in stream.getvalue()) == seen
    assert not seen or stream.getvalue().endswith("\r")
