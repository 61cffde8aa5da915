"""Classifiers of the ``monai`` library, in two and three dimensions, with random weights."""

from __future__ import annotations

from typing import Any

from monai.networks import nets
from torch import nn

from benchmarks.zoo.entry import Entry

FLAT, DEEP = (2, 1, 64, 64), (2, 1, 64, 64, 64)
POOLED = "what the head pools"


class FirstOutput(nn.Module):
    """Gives the first of the outputs of a network that returns several."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        """Run the network."""
        return self.net(x)[0]


def vit(dims: int) -> nn.Module:
    """Make a vision transformer that reads its class token."""
    size = {"img_size": (64,) * dims, "patch_size": (16,) * dims, "spatial_dims": dims}
    return FirstOutput(nets.ViT(1, hidden_size=32, mlp_dim=64, num_layers=2, num_heads=4, classification=True, **size))


ENTRIES = [
    Entry("DenseNet121", lambda: nets.DenseNet121(2, 1, 3), FLAT, "class_layers.relu", (2, 2), POOLED),
    Entry("DenseNet121 3-D", lambda: nets.DenseNet121(3, 1, 3), DEEP, "class_layers.relu", (2, 2, 2), POOLED),
    Entry(
        "SEResNet50",
        lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=3),
        FLAT,
        "layer4",
        (2, 2),
        POOLED,
    ),
    Entry(
        "ResNet10 3-D",
        lambda: nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=3),
        DEEP,
        "layer4",
        (4, 4, 4),
        POOLED,
    ),
    Entry(
        "EfficientNetBN",
        lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1, num_classes=3),
        FLAT,
        "_swish#1",
        (2, 2),
        POOLED + ": the activation behind the last batch norm, a module whose first call is the stem's",
    ),
    Entry("ViT", lambda: vit(2), FLAT, "net.blocks.1.norm1", (4, 4), "behind it only the class token is read"),
    Entry("ViT 3-D", lambda: vit(3), DEEP, "net.blocks.1.norm1", (4, 4, 4), "behind it only the class token is read"),
]
