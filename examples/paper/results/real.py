"""The rows on real images: which network is trained on which set, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa import IntegratedFeatureAnalysis, analyze

from ..data import real
from ..nets.blocks import Pooled, block
from ..nets.efficientnet_lite import pretrained_lite0
from ..nets.plain import GroupedCNN, SmallCNN
from ..nets.resnet import ResNet
from ..supervised import Supervised
from .rows import Trained

FROZEN = 12
"""Stem and blocks of EfficientNet-Lite0 that keep their ImageNet weights: up to 112 channels at a 16th of the input."""

CHANNELS, WIDTH = 112, 128
SAMPLES = 512
"""Samples of each split that are analysed at most."""


@dataclass(frozen=True)
class RealRow:
    """One row on real images.

    Attributes:
        title: Its name in the table.
        data: Class of the data module.
        size: Edge lengths of the input, or None.
        net: Makes the network; None trains one block and a head on frozen ImageNet features.
        classes: Of the output.
        epochs: Of the training.
        batch_size: Of the training.
        most: Training and validation samples at most, so that a row trains in three minutes of one core.
    """

    title: str
    data: type[real.RealImages]
    size: tuple[int, ...] | None
    net: Callable[[], nn.Module] | None
    classes: int
    epochs: int
    batch_size: int = 32
    most: tuple[int, int] = (3000, 1000)

    @property
    def source(self) -> str:
        """Name of the set's folder."""
        return self.data.source


def _volumes() -> nn.Module:
    return ResNet(1, 2, 12, (1, 1), 3)


def _crops() -> nn.Module:
    return ResNet(1, 2, 16)


def _stacks() -> nn.Module:
    return GroupedCNN(real.STACKS, real.SLICES, 2, 32)


REAL = {
    "real_mnist": RealRow("MNIST", real.Digits, None, SmallCNN, 10, 3, 64, (20000, 10000)),
    "real_xray": RealRow("Chest X-ray of children", real.Xray, (64, 64), _crops, 2, 3),
    "real_ultrasound": RealRow("Breast ultrasound, ImageNet features", real.BreastUltrasound, (128, 128), None, 3, 15),
    "real_nodules": RealRow("LUNA16, 2-D crops", real.NoduleCrops, None, _crops, 2, 5),
    "real_hippocampus": RealRow("Hippocampus, 3-D", real.Hippocampus, (24, 32, 24), _volumes, 2, 12, 16),
    "real_stacks": RealRow("Hippocampus, three stacks", real.HippocampusStacks, (48, 48), _stacks, 2, 25, 16),
    "real_skin": RealRow("Skin, ImageNet features", real.Skin, (72, 96), None, 3, 15, 32, (1000, 400)),
}


def train_real(name: str, root: Path, store: str, seed: int) -> Trained:
    """Train a row's network and analyse it.

    Args:
        name: One of ``REAL``.
        root: Folder of the real sets.
        store: MLflow tracking URI.
        seed: Of the split, the weights and the order.
    """
    row = REAL[name]
    pl.seed_everything(seed, verbose=False)
    data = row.data(str(root), row.size, row.net is None, most=row.most, batch_size=row.batch_size, seed=seed)
    data.setup("fit")
    logger = MLFlowLogger("ifa-paper", name, store)
    quiet: dict[str, Any] = {
        "logger": logger, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "max_epochs": row.epochs, "check_val_every_n_epoch": row.epochs, "log_every_n_steps": 10,
    }  # fmt: skip
    if row.net is not None:
        analysis = IntegratedFeatureAnalysis(max_samples=SAMPLES)
        task = Supervised(row.net())
        trainer = pl.Trainer(callbacks=[analysis], **quiet)
        trainer.fit(task, datamodule=data)
        net, report = task, analysis.report
    else:
        net, trainer = fine_tune(data, row, quiet)
        report = analyze(net, data.val_dataloader(), data.train_dataloader(), max_samples=SAMPLES)
    assert report is not None
    assert logger.run_id is not None
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    return Trained(net.eval(), data.val_dataloader(), report, logger.run_id, accuracy)


def fine_tune(data: real.RealImages, row: RealRow, options: dict[str, Any]) -> tuple[nn.Module, pl.Trainer]:
    """Train one block and a head on the frozen features of every image, and put them behind what made these.

    Args:
        data: The row's data.
        row: The row.
        options: Of the trainer.
    """
    frozen = pretrained_lite0().features[:FROZEN].to(memory_format=torch.channels_last)
    parts = [
        DataLoader(_features(frozen, loader), row.batch_size, shuffle=shuffled)
        for loader, shuffled in ((data.train_dataloader(), True), (data.val_dataloader(), False))
    ]
    last = Pooled(block(CHANNELS, WIDTH), WIDTH, row.classes)
    trainer = pl.Trainer(**options)
    trainer.fit(Supervised(last), *parts)
    whole = Pooled(nn.Sequential(frozen, last.features), WIDTH, row.classes)
    whole.head = last.head
    return whole.eval(), trainer


@torch.inference_mode()
def _features(frozen: nn.Module, loader: DataLoader[Any]) -> TensorDataset:
    found = [(frozen(images), labels) for images, labels in loader]
    return TensorDataset(*(torch.cat(part).clone() for part in zip(*found, strict=True)))
