"""``lightning-ifa analyze``: the numbers of the callback, without the training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from models import PoolNet

from lightning_ifa.cli import main
from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.tracking.checkpoint import load_checkpoint
from lightning_ifa.training.lightning_cli import train

CLASSES = """
import pytorch_lightning as pl
from lightning_modules import Net
from models import PoolNet, loader
from torch.utils.data import DataLoader, Subset, random_split

class Data(pl.LightningDataModule):
    def __init__(self, augmented: bool = True):
        super().__init__()
        self.augmented = augmented
    def setup(self, stage):
        if stage == "fit":
            self.train, self.rest = random_split(loader(48, seed=1, augmented=self.augmented).dataset, [40, 8])
            self.validation, _ = random_split(loader(40, seed=2).dataset, [30, 10])
    def train_dataloader(self):
        return DataLoader(self.train, 8, shuffle=True)
    def train_dataloader_clean(self):
        clean = Subset(loader(48, seed=1).dataset, self.train.indices)
        return DataLoader(clean, 8) if self.augmented else None
    def val_dataloader(self):
        return DataLoader(self.validation, 8)
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return 3 * batch[0] - 1, batch[1]

class Redrawn(Data):
    def setup(self, stage):
        super().setup("fit")

def both():
    return loader(30, seed=2), loader(40, seed=1)

net = PoolNet
"""

CONFIG = {
    "seed_everything": 7,
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "pytorch_lightning.loggers.MLFlowLogger",
            "init_args": {"experiment_name": "x", "tracking_uri": "{store}"},
        },
        "callbacks": [
            {
                "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": "kept", "filename": "{epoch}", "save_top_k": -1},
            },
            {
                "class_path": "lightning_ifa.IntegratedFeatureAnalysis",
                "init_args": {"max_samples": 24, "probes": 3, "layer": "net.features"},
            },
        ],
    },
    "model": {"class_path": "offline_parts.Net"},
    "data": {"class_path": "offline_parts.Data"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training: configuration, classes, two checkpoints, MLflow store."""
    folder = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setattr(sys, "argv", ["lightning-ifa"])
        store = f"sqlite:///{folder / 'mlflow.db'}"
        MlflowClient(store).create_experiment("x", artifact_location=(folder / "artifacts").as_uri())
        (folder / "offline_parts.py").write_text(CLASSES)
        (folder / "x.yaml").write_text(yaml.safe_dump(CONFIG).replace("{store}", store))
        train("fit", ["--config=x.yaml"])
        yield folder, store
    sys.modules.pop("offline_parts", None)


@pytest.fixture(autouse=True)
def _own_folder(trained, monkeypatch):
    monkeypatch.chdir(trained[0])


def analyze(*arguments):
    return CliRunner().invoke(main, ["analyze", *map(str, arguments)])


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_configuration_gives_the_numbers_that_the_callback_gave(trained, tmp_path, epoch):
    folder, store = trained
    path = folder / "kept" / f"epoch={epoch}.ckpt"
    _, record = load_checkpoint(path)
    runs = len(MlflowClient(store).search_runs(["1"]))
    result = analyze("--checkpoint", path, "--config", "x.yaml", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    report = FeatureReport.load(tmp_path)
    assert report.metrics == pytest.approx(dict(record.metrics), rel=1e-6, abs=1e-9)
    assert report.digest == record.dataset_digest
    assert "overfitting" in result.output
    assert "</html>" in (tmp_path / "ifa_report.html").read_text()
    assert "overfitting" in (tmp_path / "ifa_summary.md").read_text()
    assert len(MlflowClient(store).search_runs(["1"])) == runs


def test_splits_that_every_set_up_draws_anew_are_those_of_the_training(trained, tmp_path):
    Path("y.yaml").write_text(Path("x.yaml").read_text().replace("offline_parts.Data", "offline_parts.Redrawn"))
    train("fit", ["--config=y.yaml", "--trainer.max_epochs=1"])
    path = trained[0] / "kept" / "epoch=0-v1.ckpt"
    _, record = load_checkpoint(path)
    result = analyze("--checkpoint", path, "--config", "y.yaml", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    report = FeatureReport.load(tmp_path)
    assert report.digest == record.dataset_digest
    assert report.metrics == pytest.approx(dict(record.metrics), rel=1e-6, abs=1e-9)


def test_only_the_first_of_several_analyses_runs_and_nothing_is_published(trained, tmp_path):
    second = [
        "--trainer.callbacks+=lightning_ifa.IntegratedFeatureAnalysis",
        "--trainer.callbacks.layer=net.features.0",
    ]
    found = ["--trainer.default_root_dir", tmp_path / "root", "--output", tmp_path]
    result = analyze("--checkpoint", trained[0] / "kept" / "epoch=0.ckpt", "--config", "x.yaml", *second, *found)
    assert result.exit_code == 0, result.output
    assert FeatureReport.load(tmp_path).tables["validation"].layer == "net.features"
    assert not (tmp_path / "root" / "ifa").exists()


def test_a_bare_state_dict_and_overrides(trained, tmp_path):
    folder, _ = trained
    weights, record = load_checkpoint(folder / "kept" / "epoch=1.ckpt")
    torch.save(weights, tmp_path / "weights.pt")
    options = ("--config", "x.yaml", "--trainer.callbacks.probes=2", "--output", tmp_path)
    result = analyze("--checkpoint", tmp_path / "weights.pt", *options)
    assert result.exit_code == 0, result.output
    report = FeatureReport.load(tmp_path)
    assert report.metrics == pytest.approx(dict(record.metrics), rel=1e-6, abs=1e-9)


def test_a_run_receives_it_at_the_checkpoints_epoch_and_step(trained):
    folder, store = trained
    client = MlflowClient(store)
    run_id = client.create_run("1").info.run_id
    path = folder / "kept" / "epoch=0.ckpt"
    result = analyze("--checkpoint", path, "--config=x.yaml", "--run-id", run_id, "--tracking-uri", store)
    assert result.exit_code == 0, result.output
    _, record = load_checkpoint(path)
    (point,) = client.get_metric_history(run_id, "ifa/overfitting/score")
    assert point.step == record.step
    assert point.value == pytest.approx(record.metrics["ifa/overfitting/score"], rel=1e-6, abs=1e-9)
    assert client.get_run(run_id).data.tags["ifa.step"] == str(record.step)
    found = {file.path for file in client.list_artifacts(run_id)} | {
        f.path for f in client.list_artifacts(run_id, "ifa")
    }
    assert found >= {"ifa_report.html", "ifa/epoch_0000"}
    assert not Path("ifa_report").exists()


def test_functions_that_make_model_and_data(trained, tmp_path):
    torch.manual_seed(0)
    torch.save(PoolNet().state_dict(), tmp_path / "weights.pt")
    parts = ("--model", "offline_parts:net", "--data", "offline_parts:both")
    result = analyze("--checkpoint", tmp_path / "weights.pt", *parts)
    assert result.exit_code == 0, result.output
    report = FeatureReport.load("ifa_report")
    from models import loader

    from lightning_ifa.analysis import analyze as directly

    torch.manual_seed(0)
    expected = directly(PoolNet(), loader(30, seed=2), loader(40, seed=1))
    assert report.metrics == pytest.approx(expected.metrics, rel=1e-6, abs=1e-9)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --config FILE, or --model"),
        (("--model", "offline_parts:net"), "give --config FILE, or --model"),
        (("--config", "x.yaml", "--model", "a:b", "--data", "a:b"), "give --config FILE, or --model"),
        (("--config", "x.yaml", "--trainer.max_epchs=1"), "did you mean 'trainer.max_epochs'"),
        (("--model", "offline_parts:nett", "--data", "offline_parts:both"), "expected MODULE:NAME"),
        (("--model", "offline_parts:both", "--data", "offline_parts:both"), "expected a torch module"),
        (("--model", "offline_parts:Net", "--data", "offline_parts:both"), "do not fit Net"),
        (("--config", "x.yaml", "--trainer.limit_val_batches=0"), "limit_val_batches"),
        (("--config", "x.yaml", "--trainer.callbacks.layer=net.feature"), "not analysed"),
    ],
)
def test_mistakes_are_two(trained, tmp_path, arguments, told):
    if "offline_parts:Net" in arguments:
        torch.save(PoolNet().state_dict(), tmp_path / "x.ckpt")
    else:
        (tmp_path / "x.ckpt").write_bytes((trained[0] / "kept" / "epoch=0.ckpt").read_bytes())
    result = analyze("--checkpoint", tmp_path / "x.ckpt", *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_foreign_objects_are_not_unpickled(trained, tmp_path):
    torch.save({"state_dict": {}, "evil": Path("x")}, tmp_path / "x.ckpt")
    result = analyze("--checkpoint", tmp_path / "x.ckpt", "--config", "x.yaml")
    assert result.exit_code == 2
    assert "not a Lightning checkpoint of plain values" in result.output
