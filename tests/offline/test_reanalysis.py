"""From a training to the gate: what a checkpoint remembers, registering it, analysing it again."""

import sys
from pathlib import Path

import mlflow
import pytest
import pytorch_lightning as pl
import torch
from lightning_modules import Net
from mlflow import MlflowClient
from models import PoolNet, loader
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger

import lightning_ifa
from lightning_ifa.analysis import analyze
from lightning_ifa.errors import DataError, FileError, IFAWarning, TrackingError
from lightning_ifa.gate.model_metrics import find_model_metrics
from lightning_ifa.gate.policy import Policy
from lightning_ifa.gate.run import gate
from lightning_ifa.offline.reanalysis import load_data, load_registered, reanalyze
from lightning_ifa.tracking.checkpoint import KEY, load_checkpoint
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

PINS = ["torch"]  # MLflow would otherwise load the model in a new process to find out
SCORE = "ifa/overfitting/score"
POLICY = Policy.model_validate(
    {
        "name": "test",
        "version": "1",
        "checks": [{"metric": SCORE, "at_most": 100}],
        "families": ["overfitting"],
        "undecided": "accept",  # a few dozen samples show no overfitting, and no absence of it
    }
)


def fit(store, folder, epochs=3, **options):
    """Train with the callback; the trainer, and the callback."""
    pl.seed_everything(0, verbose=False)
    logger = MLFlowLogger("x", tracking_uri=store) if store else False
    analysis = IntegratedFeatureAnalysis(on_error="raise", probes=2)
    checkpoints = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1, **options)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=logger,
        callbacks=[analysis, checkpoints],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Net(), loader(48, 1, shuffle=True), loader(60))
    return trainer, analysis


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = f"sqlite:///{folder / 'mlflow.db'}"
        MlflowClient(store).create_experiment("x", artifact_location=(folder / "artifacts").as_uri())
        trainer, analysis = fit(store, folder)
    return store, trainer, analysis, folder / "checkpoints"


def test_a_checkpoint_remembers_the_analysis_of_its_own_weights(trained):
    store, trainer, analysis, folder = trained
    client = MlflowClient(store)
    for epoch in range(3):
        weights, record = load_checkpoint(folder / f"epoch={epoch}.ckpt")
        model = Net()
        model.load_state_dict(weights)
        again = analyze(model, loader(60), loader(48, 1, shuffle=True), probes=2)
        assert record.metrics == pytest.approx(again.metrics, rel=1e-4, abs=1e-6)
        assert record.dataset_digest == again.digest
        assert record.run_id == trainer.logger.run_id
        logged = [m.value for m in client.get_metric_history(record.run_id, SCORE) if m.step == record.step]
        assert logged == pytest.approx([record.metrics[SCORE]], rel=1e-6, abs=1e-9)
    assert record.tags == analysis.model_tags


def test_the_record_is_of_plain_values_and_lightning_still_loads_the_checkpoint(trained):
    content = torch.load(trained[3] / "epoch=0.ckpt", weights_only=True)
    assert {type(value) for value in content[KEY]["metrics"].values()} == {float}
    assert isinstance(Net.load_from_checkpoint(trained[3] / "epoch=0.ckpt", weights_only=True), Net)


def test_weights_that_were_not_analysed_get_no_record(tmp_path, store):
    with pytest.warns(IFAWarning, match="no MLflow run"):
        fit(None, tmp_path, epochs=1, every_n_train_steps=2, save_on_train_epoch_end=False)
    kept = {path: KEY in torch.load(path, weights_only=True) for path in (tmp_path / "checkpoints").glob("*.ckpt")}
    steps = {path: torch.load(path, weights_only=True)["global_step"] for path in kept}
    assert {steps[path] for path, has in kept.items() if has} <= {3}
    assert {steps[path] for path, has in kept.items() if not has} == {2}
    with pytest.raises(FileError, match="no feature analysis of its own weights"):
        load_checkpoint(next(path for path, has in kept.items() if not has))


def registered(trained, epoch, name, **options):
    store, trainer, _, folder = trained
    path = folder / f"epoch={epoch}.ckpt"
    return lightning_ifa.log_model(
        trainer.lightning_module, path, name, tracking_uri=store, pip_requirements=PINS, **options
    )


def test_a_registered_checkpoint_carries_its_own_numbers_not_the_last_ones(trained):
    store, trainer, _, folder = trained
    before = {key: value.clone() for key, value in trainer.lightning_module.state_dict().items()}
    version = registered(trained, 1, "first")
    _, record = load_checkpoint(folder / "epoch=1.ckpt")
    client = MlflowClient(store)
    numbers = find_model_metrics(client, client.get_model_version("first", version.version), POLICY.metrics)
    assert numbers.metrics == pytest.approx(dict(record.metrics), abs=1e-12)
    assert (numbers.step, numbers.dataset_digest) == (record.step, record.dataset_digest)
    assert record.step != load_checkpoint(folder / "epoch=2.ckpt")[1].step
    loaded = load_registered("models:/first/1", store)
    weights, _ = load_checkpoint(folder / "epoch=1.ckpt")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in weights.items())
    assert all(torch.equal(value, before[key]) for key, value in trainer.lightning_module.state_dict().items())
    assert gate("models:/first/1", POLICY, promote="champion", tracking_uri=store).passed


def test_mlflows_own_log_model_with_the_callbacks_tags(trained):
    store, trainer, analysis, _ = trained
    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run(run_id=trainer.logger.run_id):
            mlflow.pytorch.log_model(
                trainer.lightning_module,
                name="model",
                registered_model_name="by-mlflow",
                tags=analysis.model_tags,
                pip_requirements=PINS,
                serialization_format="pickle",
            )
    finally:
        mlflow.set_tracking_uri(None)
    client = MlflowClient(store)
    numbers = find_model_metrics(client, client.get_model_version("by-mlflow", "1"), POLICY.metrics)
    assert numbers.metrics[SCORE] == pytest.approx(analysis.report.metrics[SCORE], rel=1e-6, abs=1e-9)
    assert numbers.dataset_digest == analysis.report.digest
    assert gate("models:/by-mlflow/1", POLICY, tracking_uri=store).passed


def test_nothing_is_registered_when_the_weights_do_not_fit(trained):
    store, _, _, folder = trained
    with pytest.raises(FileError, match="do not fit PoolNet"):
        lightning_ifa.log_model(PoolNet(), folder / "epoch=0.ckpt", "unfit", tracking_uri=store)
    assert not MlflowClient(store).search_registered_models("name='unfit'")


def test_nothing_is_registered_when_the_numbers_cannot_be_attached(trained, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("503")

    monkeypatch.setattr(MlflowClient, "log_batch", refused)
    with pytest.raises(RuntimeError, match="503"):
        registered(trained, 0, "half")
    client = MlflowClient(trained[0])
    assert not client.search_registered_models("name='half'")
    statuses = [str(m.status) for m in client.search_logged_models([e.experiment_id for e in experiments(client)])]
    assert "FAILED" in " ".join(statuses)


def experiments(client):
    return client.search_experiments()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match="not a Lightning checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_with_foreign_objects_is_not_unpickled(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {}, "evil": Path("x")}, path)
    with pytest.raises(FileError):
        load_checkpoint(path)


def test_a_training_without_run_needs_one(tmp_path, store):
    with pytest.warns(IFAWarning, match="no MLflow run"):
        trainer, _ = fit(None, tmp_path, epochs=1)
    with pytest.raises(TrackingError, match="pass run_id="):
        lightning_ifa.log_model(trainer.lightning_module, tmp_path / "checkpoints" / "epoch=0.ckpt", "x")


# Analysing again.


def test_a_new_analysis_gives_what_the_callback_gave(trained, tmp_path, monkeypatch):
    version = registered(trained, 2, "again").version
    (tmp_path / "own_data.py").write_text(
        "from models import loader\ndef both(): return loader(60), loader(48, 1, shuffle=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    store, _, analysis, _ = trained
    verdict = gate(f"models:/again/{version}", POLICY, tracking_uri=store, reanalyze=reanalyze("own_data:both", store))
    assert verdict.passed
    assert verdict.dataset_digest == analysis.report.digest
    found = {check.name: check.value for check in verdict.checks}
    assert found[SCORE] == pytest.approx(analysis.report.metrics[SCORE], rel=1e-4, abs=1e-6)


def test_data_from_functions_data_modules_and_loaders(tmp_path, monkeypatch):
    (tmp_path / "several_data.py").write_text(
        """
import pytorch_lightning as pl
from models import loader
validation = loader(60)
def only_validation(): return loader(60)
class Module(pl.LightningDataModule):
    def setup(self, stage): self.ready = stage
    def val_dataloader(self): return loader(60)
    def train_dataloader(self): return loader(48)
module = Module()
number = 3
"""
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    for name in ("Module", "module"):
        assert [len(part.dataset) for part in load_data(f"several_data:{name}")[:2]] == [60, 48]
    for name in ("validation", "only_validation"):
        validation, train, _ = load_data(f"several_data:{name}")
        assert (len(validation.dataset), train) == (60, None)
    for name in ("number", "nothing", ""):
        with pytest.raises(DataError, match="--data several_data"):
            load_data(f"several_data:{name}")
    with pytest.raises(DataError, match="expected MODULE:NAME"):
        load_data("nowhere_to_be_found:x")
    assert sys.path == path


def test_what_is_no_pytorch_model_cannot_be_loaded(store):
    with pytest.raises(TrackingError, match="cannot be loaded"):
        load_registered("models:/nobody/1", store)
