"""The networks that the decomposition benchmark looks at: widths, heads and planted redundancy, on real digits."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from mnist import SmallCNN, digits, shift

TRAIN, VALIDATION = slice(1000, 3500), slice(0, 1000)
EPOCHS, BATCH = 12, 64


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c)``."""
        return maps.mean((2, 3))


class DigitNet(nn.Module):
    """The demo's convolutions with a head to order.

    Args:
        channels: Width of the analysed layer, ``features``.
        head: ``"gap"`` (mean + linear), ``"mlp"`` (flatten, 128, ReLU, linear) or ``"layernorm"`` (mean, LayerNorm,
            linear, as in ConvNeXt).
    """

    def __init__(self, channels: int, head: str = "gap") -> None:
        super().__init__()
        self.features = SmallCNN(channels).features
        self.head = {
            "gap": lambda: nn.Sequential(Mean(), nn.Linear(channels, 10)),
            "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(49 * channels, 128), nn.ReLU(), nn.Linear(128, 10)),
            "layernorm": lambda: nn.Sequential(Mean(), nn.LayerNorm(channels), nn.Linear(channels, 10)),
        }[head]()

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, ``(n, 10)``."""
        return self.head(self.features(images))


def trained(channels: int, head: str = "gap", seed: int = 0, folder: Path | None = None) -> DigitNet:
    """Train one network on 2,500 digits, or read it from the folder."""
    torch.manual_seed(seed)
    model = DigitNet(channels, head)
    path = folder / f"{head}-{channels}-{seed}.pt" if folder else None
    if path and path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    images, labels = (part[TRAIN] for part in digits(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(shift(images[rows])), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model.eval()
