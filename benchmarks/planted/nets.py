"""Small networks: a pool head and an MLP head for tuning, a residual one and a plain one for the held-out check."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu


def block(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


def features(size: int, colours: int, width: int) -> nn.Sequential:
    if size <= 8:
        return nn.Sequential(block(colours, 16), block(16, 32), block(32, width))
    return nn.Sequential(block(colours, 16, 5, 2), block(16, 32), nn.MaxPool2d(2), block(32, width))


class Pool(nn.Module):
    """Global average pooling and one linear layer."""

    def __init__(self, size: int, colours: int, width: int, classes: int) -> None:
        super().__init__()
        self.features, self.head = features(size, colours, width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Flat(nn.Module):
    """Flattened positions, a hidden layer of 128."""

    def __init__(self, size: int, colours: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = features(size, colours, width)
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, classes))
        with torch.no_grad():
            self(torch.zeros(2, colours, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Residual(nn.Module):
    """Strided stem, two residual blocks with group norm and SiLU, pool head; one logit if there are two classes."""

    def __init__(self, size: int, colours: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(colours, width, 4, stride=4 if size > 24 else 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(2)
        )  # fmt: skip
        self.last = nn.SiLU()
        self.head = nn.Linear(width, 1 if classes == 2 else classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for residual in self.blocks:
            x = x + residual(x)
        return self.head(self.last(x).mean((2, 3)))


class Plain(nn.Module):
    """Unnormalised convolutions with GELU, max pooling to 3 x 3, dropout, two linear layers."""

    def __init__(self, size: int, colours: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(colours, 24, 5, stride=2, padding=2)
        self.second = nn.Conv2d(24, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.gate = nn.GELU()
        self.pool = nn.AdaptiveMaxPool2d(3)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(9 * width, 64), nn.GELU(), nn.Linear(64, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = silu(self.first(x))
        x = gelu(self.second(x))
        return self.head(self.pool(self.gate(self.third(x))))


NETS = {"pool": Pool, "flat": Flat, "residual": Residual, "plain": Plain}
