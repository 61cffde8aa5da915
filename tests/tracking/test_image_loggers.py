"""Without MLflow the figures go to loggers that take images, else to the folder alone."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning_modules import fit
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_ifa.tracking.image_loggers import TakesImages, image_methods
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

pytestmark = pytest.mark.filterwarnings("ignore:no MLflow run was found")
FIGURES = {"ifa/overview", "ifa/probes"}


class ImageLogger(DummyLogger):
    """Takes images as Lightning's WandbLogger does: a list of PIL images under a key."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __getattr__(self, name):
        raise AttributeError(name)

    def log_image(self, key, images, step=None, **options):
        self.seen.append((key, [image.mode for image in images], step))


class Writer:
    """Takes images as a SummaryWriter does."""

    def __init__(self):
        self.seen = []

    def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
        assert dataformats == "HWC"
        assert img_tensor.dtype == np.uint8
        assert img_tensor.shape[2] == 3
        self.seen.append((tag, global_step))


class WriterLogger(DummyLogger):
    """As Lightning's TensorBoardLogger."""

    def __init__(self):
        super().__init__()
        self._experiment = Writer()

    def __getattr__(self, name):
        raise AttributeError(name)


def test_loggers_that_take_no_images_are_left_alone(tmp_path):
    assert image_methods([DummyLogger(), CSVLogger(tmp_path)]) == []


def test_lightnings_wandb_logger_takes_images_as_ours_does():
    for method in (WandbLogger.log_image, ImageLogger.log_image):
        inspect.signature(method).bind(None, "ifa/overview", ["an image"], 5)
    assert isinstance(WandbLogger, TakesImages)


@pytest.mark.parametrize("kind", [ImageLogger, WriterLogger])
def test_the_probes_of_every_analysis_and_the_last_overview_arrive_from_the_training_thread(kind, tmp_path):
    logger = kind()
    fit([IntegratedFeatureAnalysis(on_error="raise", probes=2)], logger=logger, default_root_dir=tmp_path)
    seen = logger.seen if kind is ImageLogger else logger.experiment.seen
    shown = [("ifa/overview", 11), ("ifa/probes", 5), ("ifa/probes", 11)]
    assert sorted((entry[0], entry[-1]) for entry in seen) == shown
    assert {path.name for path in (tmp_path / "ifa").iterdir()} == {"net.features-00000005", "net.features-00000011"}


def test_a_real_tensorboard_logger_holds_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    fit([IntegratedFeatureAnalysis(on_error="raise", probes=2)], logger=logger, default_root_dir=tmp_path, max_epochs=1)
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == FIGURES


def test_a_real_wandb_logger_without_a_server_holds_the_figures(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    fit([IntegratedFeatureAnalysis(on_error="raise", probes=2)], logger=logger, default_root_dir=tmp_path, max_epochs=1)
    wandb.finish()
    kept = {path.name.split("_")[0] for path in tmp_path.glob("wandb/offline-run-*/files/media/images/ifa/*.png")}
    assert {f"ifa/{name}" for name in kept} == FIGURES


def test_without_any_logger_the_folder_has_it_all(tmp_path):
    fit([IntegratedFeatureAnalysis(on_error="raise", probes=2)], default_root_dir=tmp_path, max_epochs=1)
    (folder,) = (tmp_path / "ifa").iterdir()
    files = {path.name for path in folder.iterdir()}
    assert {"ifa_overview.png", "ifa_probes.png", "ifa_cams.json", "ifa_report.html"} <= files


def test_a_logger_that_takes_no_images_gets_the_metrics_and_the_folder_the_figures(tmp_path):
    logger = CSVLogger(tmp_path)
    fit([IntegratedFeatureAnalysis(on_error="raise", probes=2)], logger=logger, default_root_dir=tmp_path, max_epochs=1)
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    for name in ("ifa/overfitting/score", "ifa/health/consistency"):
        assert logged[name].notna().any()
    assert [path.name for path in (tmp_path / "ifa").glob("*/ifa_overview.png")] == ["ifa_overview.png"]
