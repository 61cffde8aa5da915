"""One callback in both Lightning packages, bare or listed, and added without a line of code."""

from __future__ import annotations

import subprocess
import sys

import mlflow
import pytest
from lightning_modules import PACKAGES, loaders

import lightning_ifa
from lightning_ifa.errors import ConfigError, FileError
from lightning_ifa.training import autolog as zero_code
from lightning_ifa.training.autolog import callbacks
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

pytestmark = pytest.mark.filterwarnings("ignore:no MLflow run was found")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    monkeypatch.setattr(zero_code, "_autolog", None)
    for name in ("LIGHTNING_IFA", "LIGHTNING_IFA_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def trainer_of(name, callbacks=()):
    package, _ = PACKAGES[name]
    return package.Trainer(
        max_epochs=1, logger=False, callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip


def fit_in(name, callbacks=()):
    trainer = trainer_of(name, callbacks)
    trainer.fit(PACKAGES[name][1](), *loaders())
    return trainer


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("bare", [True, False])
def test_both_packages(package, bare):
    analysis = IntegratedFeatureAnalysis(on_error="raise")
    trainer = fit_in(package, analysis if bare else [analysis])
    assert analysis.report is not None
    assert "ifa/health/overfitting" in trainer.callback_metrics


@pytest.mark.parametrize("value", [None, "0", "false", ""])
def test_nothing_is_added_unless_asked(value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("LIGHTNING_IFA", value)
    assert callbacks() == []
    assert not added_by(trainer_of("pytorch_lightning"))


def added_by(trainer):
    return [c for c in trainer.callbacks if isinstance(c, IntegratedFeatureAnalysis)]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.usefixtures("no_pictures")
def test_the_environment_adds_one(package, monkeypatch, tmp_path):
    (tmp_path / "ifa.yaml").write_text("layer: net.features.0\nprobes: 3\non_error: raise\n")
    monkeypatch.setenv("LIGHTNING_IFA_CONFIG", "ifa.yaml")
    (analysis,) = added_by(fit_in(package, []))
    assert analysis.report.tables["validation"].layer == "net.features.0"
    assert len(analysis.report.probes.table) == 3


@pytest.mark.usefixtures("no_pictures")
def test_the_users_own_instance_goes_first(monkeypatch):
    monkeypatch.setenv("LIGHTNING_IFA", "1")
    own = IntegratedFeatureAnalysis(layer="net.features", on_error="raise")
    trainer = fit_in("pytorch_lightning", [own])
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


@pytest.fixture
def mlflow_autolog(store):
    """MLflow's real autolog, which opens a run at every fit; its store."""
    mlflow.set_tracking_uri(store)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    yield mlflow.MlflowClient(store)
    mlflow.pytorch.autolog(disable=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own patches
@pytest.mark.parametrize("package", PACKAGES)
def test_autolog_stands_beside_mlflows_and_opens_no_second_run(package, mlflow_autolog):
    lightning_ifa.autolog(probes=2, on_error="raise")
    trainer = trainer_of(package)
    lightning_ifa.autolog(disable=True)
    trainer.fit(PACKAGES[package][1](), *loaders())
    (analysis,) = added_by(trainer)
    assert len(analysis.report.probes.table) == 2
    (run,) = mlflow_autolog.search_runs([e.experiment_id for e in mlflow_autolog.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ifa/overfitting/score"] == pytest.approx(analysis.report.metrics["ifa/overfitting/score"])
    assert "val_loss" in run.data.metrics
    assert "ifa_report.html" in [file.path for file in mlflow_autolog.list_artifacts(run.info.run_id)]


@pytest.mark.usefixtures("no_pictures")
def test_autolog_is_one_instance_whoever_else_asks(monkeypatch):
    monkeypatch.setenv("LIGHTNING_IFA", "1")
    lightning_ifa.autolog(layer="net.features.0")
    lightning_ifa.autolog(layer="net.features")
    (analysis,) = added_by(trainer_of("pytorch_lightning"))
    assert analysis.session.options.layer == "net.features"
    own = IntegratedFeatureAnalysis(on_error="raise")
    both = added_by(fit_in("pytorch_lightning", [own]))
    assert [c for c in both if c.report is not None] == [own]


def test_autolog_can_be_switched_off_in_spite_of_the_environment(monkeypatch):
    monkeypatch.setenv("LIGHTNING_IFA", "1")
    lightning_ifa.autolog(disable=True)
    assert not added_by(trainer_of("pytorch_lightning"))
    lightning_ifa.autolog()
    assert len(added_by(trainer_of("pytorch_lightning"))) == 1


def test_autolog_tells_mistakes_at_once():
    with pytest.raises(ConfigError, match="autolog: there is no option 'layr'; did you mean 'layer'"):
        lightning_ifa.autolog(layr="x")
    with pytest.raises(ValueError, match="probes=0"):
        lightning_ifa.autolog(probes=0)
    assert callbacks() == []


def test_factory_is_light():
    code = (
        "from lightning_ifa.training.autolog import callbacks as c; c(); import sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
