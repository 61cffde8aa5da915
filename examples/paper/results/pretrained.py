"""A network with real ImageNet weights on real photographs: EfficientNet-Lite0, scikit-learn's and scikit-image's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ..nets.efficientnet_lite import EfficientNetLite, pretrained_lite0

SIDE, SHORT = 224, 256
MEAN, DEVIATION = 127 / 255, 128 / 255
EXPECTED = {
    "china.jpg": (698, "palace"), "flower.jpg": (985, "daisy"), "coffee": (967, "espresso"), "rocket": (657, "missile"),
    "chelsea": (282, "tiger cat"), "stereo_motorcycle": (665, "moped"),
}  # fmt: skip
"""Photographs of which ImageNet has a class, and that class."""


class Crops(NamedTuple):
    """Photographs cut into crops, halves of them to each split.

    Attributes:
        train: Images ``(n, 3, 224, 224)`` and classes, numbered in the order of ``EXPECTED``.
        validation: The others.
    """

    train: DataLoader[tuple[Tensor, ...]]
    validation: DataLoader[tuple[Tensor, ...]]


def photographs() -> dict[str, NDArray[np.uint8]]:
    """The photographs of ``EXPECTED``, ``(height, width, 3)``, all of them bundled with their packages."""
    import skimage.data

    bundle = load_sample_images()
    found = {name.rpartition("/")[2]: image for name, image in zip(bundle.filenames, bundle.images, strict=True)}
    for name in EXPECTED.keys() - found.keys():
        image = getattr(skimage.data, name)()
        found[name] = image[0] if isinstance(image, tuple) else image
    return {name: found[name] for name in EXPECTED}


def prepared(image: NDArray[np.uint8], short: int = SHORT) -> Tensor:
    """Scale the short side, ``(3, height, width)`` as the network was trained on."""
    picture = Image.fromarray(image).convert("RGB")
    scale = short / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
    return torch.from_numpy((pixels - MEAN) / DEVIATION).permute(2, 0, 1)


def middle(image: Tensor) -> Tensor:
    """The central crop."""
    top, left = ((size - SIDE) // 2 for size in image.shape[1:])
    return image[:, top : top + SIDE, left : left + SIDE]


def crops(seed: int = 0, each: int = 8) -> Crops:
    """Cut crops from every photograph at two scales, half of them mirrored; odd ones train, even ones validate.

    Args:
        seed: Of places and mirroring.
        each: Crops a photograph and split.
    """
    rng = torch.Generator().manual_seed(seed)
    images, labels = [], []
    for label, image in enumerate(photographs().values()):
        scales = [prepared(image, short) for short in (SHORT, SHORT + 48)]
        for number in range(2 * each):
            one = scales[number % 4 // 2]
            top, left = (int(torch.randint(size - SIDE + 1, (), generator=rng)) for size in one.shape[1:])
            crop = one[:, top : top + SIDE, left : left + SIDE]
            images.append(crop.flip(2) if torch.rand((), generator=rng) < 0.5 else crop)
            labels.append(label)
    x, y = torch.stack(images), torch.tensor(labels)
    return Crops(*(DataLoader(TensorDataset(x[part::2], y[part::2]), 16) for part in (0, 1)))


def network() -> EfficientNetLite:
    """EfficientNet-Lite0 with the logits of the photographs' classes only; features and those logits are untouched."""
    net = pretrained_lite0()
    kept = [number for number, _ in EXPECTED.values()]
    head = nn.Linear(net.head.in_features, len(kept))
    with torch.no_grad():
        head.weight.copy_(net.head.weight[kept])
        head.bias.copy_(net.head.bias[kept])
    net.head = head
    return net.eval()
