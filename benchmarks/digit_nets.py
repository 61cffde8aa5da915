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


class Mix(nn.Module):
    """Appends fixed positive mixes of the channels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, c, h, w)`` to ``(n, c + m, h, w)``."""
        return torch.cat([maps, torch.einsum("mc,nchw->nmhw", self.weights, maps)], dim=1)


@torch.no_grad()
def duplicated(model: DigitNet, times: int, noise: float) -> DigitNet:
    """Repeat every channel, each copy with its own weight noise (share of the kernel's spread); same function."""
    convolution, norm, _ = model.features[3]
    wide, linear = convolution.out_channels * times, model.head[1]
    new = DigitNet(wide).eval()
    new.features.load_state_dict(model.features.state_dict() | _wide_block(convolution, norm, times, noise))
    new.head[1].weight.copy_(linear.weight.repeat(1, times) / times)
    new.head[1].bias.copy_(linear.bias)
    return new


@torch.no_grad()
def with_dead(model: DigitNet, count: int) -> DigitNet:
    """Add channels that always give zero."""
    channels = model.head[1].in_features
    new = duplicated(model, 1 + -(-count // channels), 0.0)
    norm, linear = new.features[3][1], new.head[1]
    norm.weight[channels:], norm.bias[channels:] = 0.0, -1.0
    linear.weight[:, :channels] = model.head[1].weight
    return new


@torch.no_grad()
def with_mixes(model: DigitNet, count: int, seed: int = 0) -> DigitNet:
    """Append channels that are positive mixes of three others; same function, the head uses them."""
    generator = torch.Generator().manual_seed(seed)
    linear, channels = model.head[1], model.head[1].in_features
    weights = torch.zeros(count, channels)
    for row in weights:
        row[torch.randperm(channels, generator=generator)[:3]] = torch.rand(3, generator=generator) + 0.5
    used = 0.05 * torch.randn(10, count, generator=generator)
    new = DigitNet(channels).eval()
    new.load_state_dict(model.state_dict())
    new.features = nn.Sequential(new.features, Mix(weights))
    new.head[1] = nn.Linear(channels + count, 10)
    new.head[1].weight.copy_(torch.cat([linear.weight - used @ weights, used], dim=1))
    new.head[1].bias.copy_(linear.bias)
    return new.eval()


def _wide_block(convolution: nn.Conv2d, norm: nn.BatchNorm2d, times: int, noise: float) -> dict[str, Tensor]:
    kernels = convolution.weight.repeat(times, 1, 1, 1)
    spread = kernels.flatten(1).std(1)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    block = {"3.0.weight": kernels + noise * spread * torch.randn(kernels.shape, generator=generator)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        block[f"3.1.{name}"] = getattr(norm, name).repeat(times)
    return block
