"""Networks to measure on, with random weights: the shapes decide time and memory, not what was learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A residual block with in-place ReLU and ``out += identity``, as in the ResNets (arXiv 1512.03385)."""

    def __init__(self, n_in: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        kernels, strides = ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
        n_out = 4 * width if bottleneck else width
        widths = (n_in, *[width] * (len(kernels) - 1), n_out)
        layers: list[nn.Module] = []
        for i, (kernel, step) in enumerate(zip(kernels, strides, strict=True)):
            layers += [
                nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False),
                nn.BatchNorm2d(widths[i + 1]),
                nn.ReLU(inplace=True),
            ]
        self.path, self.last = nn.Sequential(*layers[:-1]), layers[-1]
        short = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.short = nn.Identity() if stride == 1 and n_in == n_out else short

    def forward(self, x: Tensor) -> Tensor:
        out = self.path(x)
        out += self.short(x)
        return self.last(out)


class ResNet(nn.Module):
    """ResNet-18 and ResNet-50 by their blocks; four stages, average pooling, 1,000 classes."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool, classes: int = 1000) -> None:
        super().__init__()
        n_in, growth = 64, 4 if bottleneck else 1
        self.stem = nn.Sequential(
            nn.Conv2d(3, n_in, 7, 2, 3, bias=False), nn.BatchNorm2d(n_in), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        stages = []
        for i, depth in enumerate(depths):
            width = 64 * 2**i
            blocks = []
            for j in range(depth):
                blocks.append(Residual(n_in, width, 2 if i and not j else 1, bottleneck))
                n_in = growth * width
            stages.append(nn.Sequential(*blocks))
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class Digits(nn.Module):
    """For 28 x 28: two convolutions, max pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(inplace=True), nn.Conv2d(32, 64, 3), nn.ReLU(inplace=True)
        )
        self.head = nn.Sequential(
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 12**2, 128), nn.ReLU(inplace=True), nn.Linear(128, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Volumes(nn.Module):
    """For 3-D images: four convolutions, each halving the size from the second on, average pooling, two classes."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (1, 16, 32, 64, 128), []
        for i in range(4):
            layers += [
                nn.Conv3d(widths[i], widths[i + 1], 3, 2 if i else 1, 1, bias=False),
                nn.BatchNorm3d(widths[i + 1]),
                nn.ReLU(inplace=True),
            ]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3, 4)))


class Encoder(nn.Module):
    """A transformer block with the norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    """A small vision transformer with pooled tokens instead of a class token (arXiv 2205.01580)."""

    def __init__(self, size: int = 224, patch: int = 16, width: int = 192, depth: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2, width))
        self.blocks = nn.Sequential(*[Encoder(width, width // 64) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.patches(x).flatten(2).transpose(1, 2) + self.place)
        return self.head(self.norm(tokens).mean(1))


def as_is(activation: Tensor) -> Tensor:
    """The activation of a convolution: channels first already."""
    return activation


def square_grid(tokens: Tensor) -> Tensor:
    """Tokens ``(n, t, c)`` as ``(n, c, h, h)``."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@dataclass(frozen=True)
class Case:
    """One network to measure.

    Attributes:
        build: Makes it.
        shape: Of one input.
        batch: Inputs a batch.
        layer: Name of the last block.
        grid: Brings that layer's output to ``(n, c, *space)``.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    layer: str
    grid: Callable[[Tensor], Tensor] = as_is

    def made(self) -> nn.Module:
        """The network in evaluation mode; the same weights every time."""
        torch.manual_seed(0)
        return self.build().eval()

    def inputs(self) -> Tensor:
        return torch.randn(self.batch, *self.shape, generator=torch.Generator().manual_seed(1))


CASES = {
    "28 x 28 CNN": Case(Digits, (1, 28, 28), 256, "features.3"),
    "3-D CNN": Case(Volumes, (1, 48, 48, 48), 4, "features.11"),
    "ResNet-18": Case(lambda: ResNet((2, 2, 2, 2), False), (3, 224, 224), 16, "stages.3.1"),
    "ResNet-50": Case(lambda: ResNet((3, 4, 6, 3), True), (3, 224, 224), 8, "stages.3.2"),
    "ViT": Case(ViT, (3, 224, 224), 8, "blocks.11", square_grid),
}
