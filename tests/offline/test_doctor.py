"""``lightning-ifa doctor``: what stands in the way is said before a training, and nothing is written for that."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lightning_ifa.cli import main

PARTS = """
import pytorch_lightning as pl
from lightning_modules import Net
from models import PoolNet, loader
from torch import nn

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loader(40, seed=1, augmented=True)
    def val_dataloader(self):
        return loader(30, seed=2)

net = PoolNet

def blind():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("parts", None)


def doctor(*arguments, code=0):
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.usefixtures("parts")
def test_a_model_that_can_be_analysed(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    text = doctor("--model", "parts:net", "--data", "parts:Data", "--tracking-uri", store)
    assert "validation: 30 samples can be reached, 30 of them are analysed" in text
    assert " channels on a grid of " in text
    assert "task multiclass, 3 scores a sample. It can be analysed" in text
    assert "training samples are augmented at random" in text
    assert f"the data base {tmp_path / 'mlflow.db'} will be made" in text
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.usefixtures("parts")
def test_what_is_refused_is_marked_with_its_reason():
    text = doctor("--model", "parts:blind", "--data", "parts:Data", code=2)
    assert "\n! " in text
    assert "It can be analysed" not in text
    assert doctor("--model", "parts:net", "--data", "parts:nothing", code=2).count("has no attribute 'nothing'") == 1


@pytest.mark.usefixtures("parts")
def test_a_configuration_names_its_own_store(tmp_path):
    logger = {"class_path": "pytorch_lightning.loggers.MLFlowLogger", "init_args": {"tracking_uri": "sqlite:///own.db"}}
    config = {"seed_everything": 1, "model": {"class_path": "parts.Net"}, "data": {"class_path": "parts.Data"}}
    Path("c.yaml").write_text(yaml.safe_dump(config | {"trainer": {"logger": logger, "accelerator": "cpu"}}))
    text = doctor("--config", "c.yaml")
    assert "store sqlite:///own.db, experiment 'lightning_logs'" in text
    assert "It can be analysed" in text
    assert not Path("own.db").exists()


def test_stores_are_asked_in_bounded_time(store, tmp_path):
    assert "can be written to" in doctor("--tracking-uri", store)
    assert "http://127.0.0.1:9 does not answer" in doctor("--tracking-uri", "http://me:secret@127.0.0.1:9", code=2)
    (tmp_path / "notes.db").write_text("no data base")
    assert "no data base of MLflow" in doctor("--tracking-uri", f"sqlite:///{tmp_path / 'notes.db'}", code=2)
    doctor("--model", "x:y", code=2)
