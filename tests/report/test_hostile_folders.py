"""A stored report that somebody changed: one error of ours, or a report; never anything else."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from bounds import bounds
from reports import small_report

from lightning_ifa import FeatureReport
from lightning_ifa.errors import FileError

QUICK, ALL = 60, 2000
JUNK = (None, [], {}, "", "/etc/passwd", "../../x", -1, 1e400, float("nan"), "x" * 70_000, [[[[]]]], True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "stored"
    small_report().save(folder)
    return folder


def change_bytes(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


def change_json(path, rng):
    """Replace, or remove, any value of the description."""
    content = json.loads(path.read_text())
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = rng.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.7:
            at = at[key]
            continue
        if rng.random() < 0.2:
            del at[key]
        else:
            at[key] = rng.choice(JUNK)
        break
    path.write_text(json.dumps(content))


def change_arrays(path, rng):
    with np.load(path) as found:
        arrays = dict(found)
    name = rng.choice(sorted(arrays))
    arrays[name] = rng.choice(
        [np.zeros(0), np.zeros((2, 3, 4)), np.array("x"), arrays[name][:1] if arrays[name].ndim else arrays[name]]
    )
    np.savez(path, **arrays)


def change(folder, rng):
    path = rng.choice(sorted(folder.iterdir()))
    if path.name == "report.json" or rng.random() < 0.4:
        change_json(folder / "report.json", rng)
    elif path.suffix == ".npz" and rng.random() < 0.5:
        change_arrays(path, rng)
    elif rng.random() < 0.1:
        path.unlink()
    else:
        change_bytes(path, rng)


def assert_harmless(folder):
    found, refused = None, ""
    with bounds():
        try:
            found = FeatureReport.load(folder)
        except FileError as error:
            refused = str(error)
    if found is None:
        assert str(folder) in refused
    else:
        assert set(found.tables) <= {"train", "validation"}
        assert all(isinstance(value, float) for value in found.metrics.values())


@pytest.mark.parametrize("count", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)])
def test_changed_reports(stored, tmp_path, count):
    rng = random.Random(count)
    for turn in range(count):
        folder = tmp_path / str(turn)
        shutil.copytree(stored, folder)
        change(folder, rng)
        assert_harmless(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("splits", [["/etc"], ["../stored/validation"], ["test"], [1], "validation"])
def test_a_split_is_no_path(stored, tmp_path, splits):
    shutil.copytree(stored, tmp_path / "r")
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    (tmp_path / "r" / "report.json").write_text(json.dumps(content | {"splits": splits}))
    with pytest.raises(FileError, match="split"):
        FeatureReport.load(tmp_path / "r")


def test_a_family_of_another_version_is_named(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "r")
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    content["findings"]["leakage"] = content["findings"]["outliers"]
    (tmp_path / "r" / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match="leakage"):
        FeatureReport.load(tmp_path / "r")
