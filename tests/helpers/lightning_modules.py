"""Lightning modules: one with everything that an analysis could disturb, and a small one for either package."""

from __future__ import annotations

import hashlib

import lightning.pytorch
import pytorch_lightning as pl
import torch
from models import CLASSES, PoolNet, Steps, loader
from torch import nn


class Classifier(pl.LightningModule):
    def __init__(self, accumulate_in_steps=False):
        super().__init__()
        self.net = PoolNet()
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.head(self.dropout(self.net(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class Net(Steps, pl.LightningModule):
    pass


class OtherNet(Steps, lightning.pytorch.LightningModule):
    pass


PACKAGES = {"pytorch_lightning": (pl, Net), "lightning.pytorch": (lightning.pytorch, OtherNet)}


def loaders(n_train=48, n_val=24, **options):
    """Training loader with random augmentation, validation loader without."""
    return (
        loader(n_train, seed=1, batch_size=8, shuffle=True, augmented=True, **options),
        loader(n_val, seed=2, batch_size=8, **options),
    )


def fit(callbacks=(), seed=0, module=None, data=None, **settings):
    """Train briefly; give the trainer and the module."""
    pl.seed_everything(seed, verbose=False)
    module = Classifier() if module is None else module
    settings = {"accelerator": "cpu", "max_epochs": 2, "logger": False, "enable_checkpointing": False} | settings
    trainer = pl.Trainer(callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, **settings)
    trainer.fit(module, *(data or loaders()))
    return trainer, module


def weights(module):
    """A digest of every weight and buffer, to the last bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
