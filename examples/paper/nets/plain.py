"""Networks without shortcuts: a small CNN, a VGG, the encoder of a U-Net, and grouped convolutions for stacks."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from .blocks import Pooled, block


class SmallCNN(Pooled):
    """Three convolutions, for digits.

    Args:
        channels: Of the images.
        classes: Of the output.
        width: Channels of the last convolution.
    """

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 64) -> None:
        first, second = block(channels, width // 4, kernel=5, stride=2), block(width // 4, width // 2)
        super().__init__(
            nn.Sequential(first, second, nn.MaxPool2d(2), block(width // 2, width)), width, classes
        )  # fmt: skip


class VGG(nn.Module):
    """Pairs of convolutions between poolings, and fully connected layers that see every position (arXiv 1409.1556).

    Args:
        size: Sides of the images in pixels, divisible by 16.
        channels: Of the images.
        classes: Of the output.
        width: Channels of the first pair.
    """

    def __init__(self, size: int = 64, channels: int = 3, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        widths = [channels, *(width * 2**i for i in range(4))]
        stages = []
        for n_in, n_out in pairwise(widths):
            stages += [nn.Sequential(block(n_in, n_out), block(n_out, n_out)), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*stages[:-1])
        hidden = 8 * width
        self.head = nn.Sequential(
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(hidden * (size // 16) ** 2, hidden), nn.ReLU(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, classes)``."""
        return self.head(self.features(images))


class UNetEncoder(Pooled):
    """The way down of a U-Net (arXiv 1505.04597), with a classifying head.

    Args:
        channels: Of the images.
        classes: Of the output.
        width: Channels at full resolution; doubled at each of three poolings.
    """

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 8) -> None:
        widths = [width * 2**i for i in range(4)]
        stages = [nn.Sequential(block(channels, width, kernel=5, stride=2), block(width, width))]
        for n_in, n_out in pairwise(widths):
            stages.append(nn.Sequential(nn.MaxPool2d(2), block(n_in, n_out), block(n_out, n_out)))
        super().__init__(nn.Sequential(*stages), widths[-1], classes)


class GroupedCNN(Pooled):
    """2.5-D: the slices of a stack are channels, and convolutions in groups keep the stacks apart up to the head.

    Args:
        stacks: Groups.
        slices: Of each stack.
        outputs: Classes, or 1.
        width: Channels of each group's last convolution.
        regression: One output without an axis of its own.
    """

    def __init__(
        self, stacks: int = 2, slices: int = 5, outputs: int = 2, width: int = 32, regression: bool = False
    ) -> None:
        widths = [slices, width // 4, width // 2, width]
        stages: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            stages.append(block(stacks * n_in, stacks * n_out, stride=2, groups=stacks))
        stages.append(block(stacks * width, stacks * width, groups=stacks))
        super().__init__(nn.Sequential(*stages), stacks * width, outputs, regression)
