"""One callback in both Lightning packages, bare or listed, and added without a line of code."""

from __future__ import annotations

import subprocess
import sys

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning_modules import loaders
from models import PoolNet

from lightning_ifa import IntegratedFeatureAnalysis
from lightning_ifa.errors import FileError
from lightning_ifa.zero_code import callbacks

PACKAGES = {"pytorch_lightning": pytorch_lightning, "lightning": lightning.pytorch}

pytestmark = pytest.mark.filterwarnings("ignore:no MLflow run was found")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("LIGHTNING_IFA", "LIGHTNING_IFA_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def fit_in(package, callbacks):
    class Classifier(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = PoolNet()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    trainer = package.Trainer(
        max_epochs=1, logger=False, callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Classifier(), *loaders())
    return trainer


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("bare", [True, False])
def test_both_packages(package, bare):
    analysis = IntegratedFeatureAnalysis(on_error="raise")
    trainer = fit_in(PACKAGES[package], analysis if bare else [analysis])
    assert analysis.report is not None
    assert "ifa/health/overfitting" in trainer.callback_metrics


@pytest.mark.parametrize("value", [None, "0", "false", ""])
def test_nothing_is_added_unless_asked(value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("LIGHTNING_IFA", value)
    assert callbacks() == []
    assert not added_by(pytorch_lightning.Trainer(logger=False, enable_checkpointing=False))


def added_by(trainer):
    return [c for c in trainer.callbacks if isinstance(c, IntegratedFeatureAnalysis)]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_environment_adds_one(package, monkeypatch, tmp_path):
    (tmp_path / "ifa.yaml").write_text("layer: net.features.0\nprobes: 3\non_error: raise\n")
    monkeypatch.setenv("LIGHTNING_IFA_CONFIG", "ifa.yaml")
    (analysis,) = added_by(fit_in(PACKAGES[package], []))
    assert analysis.report.tables["validation"].layer == "net.features.0"
    assert len(analysis.report.probes.table) == 3


def test_the_users_own_instance_goes_first(monkeypatch):
    monkeypatch.setenv("LIGHTNING_IFA", "1")
    own = IntegratedFeatureAnalysis(layer="net.features", on_error="raise")
    trainer = fit_in(pytorch_lightning, [own])
    added = [c for c in added_by(trainer) if c is not own]
    assert own.report is not None
    assert [c.report for c in added] == [None]


@pytest.mark.parametrize(
    ("content", "match"),
    [("layr: x", "no option 'layr'; did you mean 'layer'"), ("- layer", "holds a list"), ("a: [", "cannot be read")],
)
def test_bad_configurations(content, match, monkeypatch, tmp_path):
    (tmp_path / "ifa.yaml").write_text(content)
    monkeypatch.setenv("LIGHTNING_IFA_CONFIG", str(tmp_path / "ifa.yaml"))
    with pytest.raises(FileError, match=match):
        callbacks()


def test_factory_is_light():
    code = "import sys; from lightning_ifa.zero_code import callbacks; callbacks(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
