"""Residual networks in two and three dimensions."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import CONVOLUTIONS, NORMS, Pooled, block


class ResNet(Pooled):
    """Residual blocks at falling resolution (arXiv 1512.03385), pooled.

    Args:
        channels: Of the images.
        classes: Of the output.
        width: Channels of the first stage; doubled at each further one.
        blocks: Residual blocks in each stage.
        dimensions: 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        width: int = 16,
        blocks: tuple[int, ...] = (1, 1, 1),
        dimensions: int = 2,
    ) -> None:
        stages: list[nn.Module] = [block(channels, width, stride=2, dimensions=dimensions)]
        n_in = width
        for stage, count in enumerate(blocks):
            n_out = width * 2**stage
            for number in range(count):
                stages.append(Residual(n_in, n_out, 2 if stage and not number else 1, dimensions))
                n_in = n_out
        super().__init__(nn.Sequential(*stages), n_in, classes)


class Residual(nn.Module):
    """Two convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int, dimensions: int) -> None:
        super().__init__()
        self.first = block(n_in, n_out, stride=stride, dimensions=dimensions)
        self.second = block(n_out, n_out, dimensions=dimensions)[:2]
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else _projection(n_in, n_out, stride, dimensions)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Same shape, but for the stride."""
        return self.relu(self.second(self.first(images)) + self.shortcut(images))


def _projection(n_in: int, n_out: int, stride: int, dimensions: int) -> nn.Sequential:
    return nn.Sequential(CONVOLUTIONS[dimensions](n_in, n_out, 1, stride, bias=False), NORMS[dimensions](n_out))
