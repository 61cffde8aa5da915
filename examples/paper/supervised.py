"""The training of every row: a network, its loss, Adam with one cycle."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss


class Supervised(pl.LightningModule):
    """Train any network on ``(image, target)``: classes with cross-entropy, float targets with squared error.

    Args:
        net: Gives logits ``(n, classes)``, or scores ``(n,)`` for regression.
        learning_rate: Peak of the one-cycle schedule.
    """

    def __init__(self, net: nn.Module, learning_rate: float = 0.01) -> None:
        super().__init__()
        self.net, self.learning_rate = net, learning_rate

    def forward(self, images: Tensor) -> Tensor:
        """The network's output."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss."""
        loss = _loss(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss, and accuracy for classes."""
        images, targets = batch
        output = self(images)
        self.log("val_loss", _loss(output, targets))
        if not targets.is_floating_point():
            self.log("val_accuracy", (output.argmax(1) == targets).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, object]:
        """Adam with a one-cycle schedule."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _loss(output: Tensor, targets: Tensor) -> Tensor:
    return mse_loss(output, targets) if targets.is_floating_point() else cross_entropy(output, targets)
