"""Networks of ``torchvision``, as published but for their random weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models

from benchmarks.zoo.entry import Entry

WIDE = (2, 3, 160, 96)
SQUARE = (2, 3, 224, 224)
POOLED = "what the head pools"
CLASS = "behind the last block's first norm only the class token is read"
PLANES = "the last features before a convolution makes class planes"


def made(name: str, **options: Any) -> nn.Module:
    """Make a network of ten classes, its zero weights drawn: some heads are published as zeros."""
    model: nn.Module = getattr(models, name)(weights=None, num_classes=10, **options)
    return model


def image(
    name: str, layer: str | None, grid: tuple[int, ...] = (5, 3), reason: str = POOLED, shape=WIDE, **options: Any
) -> Entry:  # type: ignore[no-untyped-def]
    """Describe an image classifier."""
    return Entry(name, lambda: made(name, **options), shape, layer, grid, reason)


def planes(name: str, layer: str, grid: tuple[int, ...], reason: str = PLANES) -> Entry:
    """Describe a segmentation network."""

    def build() -> nn.Module:
        model: nn.Module = getattr(models.segmentation, name)(weights=None, weights_backbone=None, num_classes=5)
        return model

    return Entry(name, build, (2, 3, 96, 64), layer, grid, reason)


def video(name: str, layer: str, grid: tuple[int, ...], size: tuple[int, ...], reason: str = POOLED) -> Entry:
    """Describe a video classifier; its inputs are (n, channels, frames, height, width)."""
    return Entry(
        name, lambda: getattr(models.video, name)(weights=None, num_classes=10), (2, 3, *size), layer, grid, reason
    )


ENTRIES = [
    image("resnet18", "layer4"),
    image("resnet50", "layer4"),
    image("resnext50_32x4d", "layer4"),
    image("regnet_y_400mf", "trunk_output"),
    image("mobilenet_v2", "features"),
    image("mobilenet_v3_small", "features"),
    image("efficientnet_b0", "features"),
    image("densenet121", "relu()", reason=POOLED + ": a function, called behind the last norm"),
    image("shufflenet_v2_x1_0", "conv5"),
    image("mnasnet0_5", "layers"),
    image("inception_v3", "Mixed_7c", (3, 1), init_weights=False),
    image("googlenet", "inception5b", init_weights=False),
    image("squeezenet1_1", "features", (9, 5), PLANES),
    image("vgg11_bn", "features", (5, 3), "the pool behind it only copies to another size"),
    image("alexnet", "features", (4, 2), "the pool behind it only copies to another size"),
    image("convnext_tiny", "features"),
    image("swin_t", "permute", (5, 3), POOLED + ", channels moved to the front"),
    image("swin_v2_t", "permute", (5, 3), POOLED + ", channels moved to the front"),
    image("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", (14, 14), CLASS, SQUARE),
    image("maxvit_t", "blocks", (7, 7), POOLED, SQUARE),
    planes("fcn_resnet50", "classifier.2", (12, 8)),
    planes("deeplabv3_resnet50", "classifier.3", (12, 8)),
    planes("lraspp_mobilenet_v3_large", "classifier.cbr", (6, 4), "the deeper of the two feature maps that are read"),
    video("r3d_18", "layer4", (1, 4, 3), (8, 64, 48)),
    video("swin3d_t", "norm", (4, 2, 3), (8, 64, 96), POOLED),
]
