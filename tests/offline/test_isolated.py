"""The process in which a candidate is analysed: whatever happens in it, no decision is forged and none is lost."""

import pytest
import torch
from models import PoolNet

from lightning_ifa.errors import UndecidableError
from lightning_ifa.offline.isolated import run_isolated

DATA = """
import os, socket, time
from models import PoolNet, loader
def both(): return loader(60), loader(48, 1)
def architecture(): return PoolNet()
def raises(): raise RuntimeError("no data")
def quits(): raise SystemExit(0)
def silent(): os._exit(0)
def sleeps(): time.sleep(600)
def secrets(): raise RuntimeError(" ".join(os.environ))
def memory(): return bytearray(1 << 42)
def floods():
    for number in range(3, 64):
        try:
            while True: os.write(number, b"x" * 65536)
        except OSError: pass
"""


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit(0)",)


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "isolated_data.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    torch.save(PoolNet().state_dict(), tmp_path / "model" / "model.pth")
    return str(tmp_path / "model")


def analyse(files, data, longest=300.0):
    return run_isolated(files, f"isolated_data:{data}", "isolated_data:architecture", longest)


def test_time_is_bounded(files):
    with pytest.raises(UndecidableError, match=r"did not end within 0\.5 s"):
        analyse(files, "sleeps", 0.5)


@pytest.mark.slow
def test_weights_alone_are_measured(files):
    found = analyse(files, "both")
    assert found.layer
    assert "ifa/health/overfitting" in found.metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("raises", "RuntimeError: no data"),
        ("quits", "SystemExit"),
        ("silent", "no answer"),
        ("memory", "MemoryError"),
        ("floods", "more than"),
        ("nothing", "expected MODULE:NAME"),
    ],
)
def test_every_other_end_is_no_decision(files, data, says):
    with pytest.raises(UndecidableError, match=says):
        analyse(files, data)


@pytest.mark.slow
def test_no_secret_is_handed_on(files, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "x")
    with pytest.raises(UndecidableError) as error:
        analyse(files, "secrets")
    assert "MLFLOW_TRACKING" not in str(error.value)
    assert "HOME" in str(error.value)


@pytest.mark.slow
def test_foreign_code_in_a_file_of_weights_is_not_run(files):
    torch.save({"state_dict": PoolNet().state_dict(), "evil": Evil()}, f"{files}/model.pth")
    assert analyse(files, "both").metrics
