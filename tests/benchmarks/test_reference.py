"""The reference of analyses: the same code gives the same, and one bit of difference is named."""

import json
import sys

import pytest

from benchmarks.reference.__main__ import main

ONLY = ("--only", "constant")


def run(monkeypatch, what, folder):
    monkeypatch.setattr(sys, "argv", ["reference", what, str(folder), *ONLY])
    main()


def test_the_same_code_gives_the_same_and_one_bit_is_named(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "keep", tmp_path)
    with pytest.raises(SystemExit, match="False"):
        run(monkeypatch, "compare", tmp_path)
    assert "0 differences in 1 analyses" in capsys.readouterr().out
    path = tmp_path / "reports.json"
    kept = json.loads(path.read_text())
    assert "error" not in kept["constant"]
    key = "ifa/redundancy/score"
    kept["constant"]["metrics"][key] = (float.fromhex(kept["constant"]["metrics"][key]) + 2**-50).hex()
    path.write_text(json.dumps(kept))
    with pytest.raises(SystemExit, match="True"):
        run(monkeypatch, "compare", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(f"constant, metrics, {key}: ")]
    assert lines[-1] == "1 differences in 1 analyses"
