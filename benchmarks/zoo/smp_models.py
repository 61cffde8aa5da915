"""Networks of ``segmentation-models-pytorch``, with random weights."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from benchmarks.zoo.entry import Entry

DECODER = "the decoder's last features; a convolution makes class planes of them"


def planes(name: str, layer: str, grid: tuple[int, ...] = (96, 64), shape=(2, 3, 96, 64), **options: Any) -> Entry:  # type: ignore[no-untyped-def]
    """Describe a network of four classes."""

    def build() -> nn.Module:
        ways = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 4, **options}
        model: nn.Module = getattr(smp, name)(**ways)
        return model

    return Entry(name, build, shape, layer, grid, DECODER)


ENTRIES = [
    planes("Unet", "decoder"),
    planes("UnetPlusPlus", "decoder"),
    planes("MAnet", "decoder"),
    planes("Linknet", "decoder"),
    planes("FPN", "decoder", (24, 16)),
    planes("PSPNet", "decoder", (12, 8)),
    planes("PAN", "decoder", (32, 32), (2, 3, 128, 128)),
    planes("DeepLabV3Plus", "decoder", (24, 16)),
    planes("Segformer", "decoder", (24, 16)),
    planes("UPerNet", "decoder", (24, 16)),
]
