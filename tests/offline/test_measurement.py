"""What may come back from a process that nobody trusts: one measurement, or no decision."""

import json

import pytest

from lightning_ifa.errors import UndecidableError
from lightning_ifa.offline.measurement import parse_measurement

GOOD = {
    "metrics": {"ifa/overfitting/score": 0.1},
    "digest": "0123456789ab",
    "layer": "layer4",
    "method": "hirescam",
    "version": "0.1.0",
    "weights": "a" * 32,
}


def test_a_measurement_is_read():
    found = parse_measurement(json.dumps(GOOD).encode(), 0)
    assert (found.metrics, found.layer) == (GOOD["metrics"], "layer4")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", 0),
        (b"", -9),
        (json.dumps(GOOD).encode(), 1),
        (json.dumps(GOOD).encode(), -11),
        (json.dumps(GOOD).encode() * 2, 0),
        (json.dumps(GOOD)[:-1].encode(), 0),
        (b"\xff", 0),
        (b"[" * 100_000, 0),
        (b"9" * 10_000, 0),
        (json.dumps(GOOD | {"more": 1}).encode(), 0),
        (json.dumps(GOOD | {"metrics": {"ifa/x/score": float("nan")}}).encode(), 0),
        (json.dumps(GOOD).replace("0.1}", "1e999}").encode(), 0),
        (json.dumps(GOOD | {"metrics": {"ifa/x/score": "0.1"}}).encode(), 0),
        (json.dumps(GOOD | {"metrics": {"val_loss": 0.1}}).encode(), 0),
        (json.dumps(GOOD | {"digest": "../x"}).encode(), 0),
        (json.dumps(GOOD)[:-1].encode() + b', "digest": "ffffffffffff"}', 0),
        (json.dumps({"error": "no data"}).encode(), 0),
        (json.dumps({"error": 1}).encode(), 0),
    ],
)
def test_all_else_is_no_decision(answer, code):
    with pytest.raises(UndecidableError, match="the new analysis"):
        parse_measurement(answer, code)
