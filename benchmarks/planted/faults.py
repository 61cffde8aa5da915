"""What is planted: tags that go with the class, shifts of a split, outliers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from benchmarks.planted.data import digits, photographs

Painter = Callable[[Tensor, torch.Generator], Tensor]


def _box(x: Tensor) -> tuple[slice, slice]:
    start, size = max(1, x.shape[-1] // 14), max(2, round(x.shape[-1] / 7))
    return slice(start, start + size), slice(start, start + size)


def corner(x: Tensor, rng: torch.Generator) -> Tensor:
    """A bright square in the upper left corner."""
    x = x.clone()
    x[..., _box(x)[0], _box(x)[1]] = 1.0
    return x


def weak(x: Tensor, rng: torch.Generator) -> Tensor:
    """The same square, faint."""
    x = x.clone()
    x[..., _box(x)[0], _box(x)[1]] += 0.25
    return x


def moving(x: Tensor, rng: torch.Generator) -> Tensor:
    """A bright square somewhere along the border."""
    x = x.clone()
    height, size = x.shape[-1], _box(x)[0].stop - _box(x)[0].start
    last = height - size
    for one in x:
        along, side = int(torch.randint(0, last + 1, (), generator=rng)), int(torch.randint(0, 4, (), generator=rng))
        top, left = [(0, along), (last, along), (along, 0), (along, last)][side]
        one[..., top : top + size, left : left + size] = 1.0
    return x


def shade(x: Tensor, rng: torch.Generator) -> Tensor:
    """A lighter background."""
    return x + 0.25 * (1 - x)


def stripe(x: Tensor, rng: torch.Generator) -> Tensor:
    """A bright line at the lower edge."""
    x = x.clone()
    x[..., -2:, :] = 0.9
    return x


def tint(x: Tensor, rng: torch.Generator) -> Tensor:
    """More red, less blue."""
    weights = torch.tensor([1.25, 1.0, 0.75])[:, None, None]
    return x * weights + 0.1 * (weights - 0.75)


def soften(x: Tensor, rng: torch.Generator) -> Tensor:
    """Blur."""
    return blur(x, 1.0)


def texture(x: Tensor, rng: torch.Generator) -> Tensor:
    """A fine checkerboard over the whole image."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    return x + 0.06 * (((rows + columns) % 2) * 2 - 1)


def noise(x: Tensor, rng: torch.Generator) -> Tensor:
    """Sensor noise, three times what every image has."""
    return x + 0.09 * torch.randn(x.shape, generator=rng)


def contrast(x: Tensor, rng: torch.Generator) -> Tensor:
    """A fainter object on the same ground."""
    low = x.flatten(2).quantile(0.1, dim=2)[..., None, None]
    return low + 0.6 * (x - low)


def dark_spot(x: Tensor, rng: torch.Generator) -> Tensor:
    """A dark disc near the lower right corner, with a bright rim."""
    x = x.clone()
    n = x.shape[-1]
    rows, columns = torch.arange(n)[:, None] - 0.85 * n, torch.arange(n) - 0.85 * n
    radius = (rows**2 + columns**2).sqrt()
    x[..., radius < n / 10] = 0.0
    x[..., (radius >= n / 10) & (radius < n / 10 + 1)] = 0.8
    return x


PAINTERS: dict[str, Painter] = {
    "corner": corner, "weak": weak, "moving": moving, "shade": shade,
    "stripe": stripe, "tint": tint, "soften": soften, "texture": texture, "dark_spot": dark_spot,
    "noise": noise, "contrast": contrast,
}  # fmt: skip


def assign(labels: Tensor, rule: str, strength: float, classes: int, rng: torch.Generator) -> Tensor:
    """Say which samples carry the tag: ``strength`` is Cramér's V with the rule's classes, 0 = at random."""
    chance = torch.rand(len(labels), generator=rng)
    if rule == "one":
        return (labels == 3 % classes) & (chance < strength)
    chosen = labels >= classes // 2 if rule == "half" else torch.isin(labels, torch.tensor([1, 4, 7, 9]))
    return chosen == (chance < (1 + strength) / 2)


def paint(images: Tensor, on: Tensor, painter: str, rng: torch.Generator) -> Tensor:
    """Paint the tag on the chosen samples."""
    painted = images.clone()
    if bool(on.any()):
        painted[on] = PAINTERS[painter](images[on], rng)
    return painted


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, edges repeated."""
    reach = max(1, round(3 * sigma))
    line = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    n, c = x.shape[:2]
    flat = pad(x.reshape(n * c, 1, *x.shape[2:]), (reach,) * 4, mode="replicate")
    return conv2d(flat, kernel[None, None]).reshape(x.shape)


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "blur 0.4": lambda x: blur(x, 0.4),
    "contrast 0.9": lambda x: 0.9 * x,
    "brightness 0.05": lambda x: x + 0.05,
    "noise 0.05": lambda x: x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "blur 0.6": lambda x: blur(x, 0.6),
    "blur 0.8": lambda x: blur(x, 0.8),
    "blur 1.2": lambda x: blur(x, 1.2),
    "contrast 0.8": lambda x: 0.8 * x,
    "contrast 0.6": lambda x: 0.6 * x,
    "contrast 0.4": lambda x: 0.4 * x,
    "brightness 0.1": lambda x: x + 0.1,
    "brightness 0.3": lambda x: x + 0.3,
    "noise 0.08": lambda x: x + 0.08 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "noise 0.15": lambda x: x + 0.15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}


def move(images: Tensor, most: int, rng: torch.Generator | None = None) -> Tensor:
    """Shift each image by up to ``most`` pixels, its own way."""
    n, _, height, width = images.shape
    padded = pad(images, (most,) * 4, mode="replicate")
    rows, columns = (
        torch.randint(0, 2 * most + 1, (n, 1), generator=rng) + torch.arange(size) for size in (height, width)
    )
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def corrupt(images: Tensor, rng: torch.Generator) -> Tensor:
    """Damage: by turns a bright bar through the middle, half the image missing, heavy noise, inverted."""
    images = images.clone()
    height = images.shape[-2]
    for number, one in enumerate(images):
        kind = number % 4
        if kind == 0:
            one[:, height // 3 : 2 * height // 3] = 1.0
        elif kind == 1:
            one[..., : height // 2] = 0.0
        elif kind == 2:
            one += 0.5 * torch.randn(one.shape, generator=rng)
        else:
            one.copy_(1 - one)
    return images


def foreign(images: Tensor, rng: torch.Generator) -> Tensor:
    """Something else: patches of photographs and, by turns, digits of another data set, upright or on their side."""
    patches = photographs()[0].mean(1, keepdim=True)
    others = digits()[0].transpose(2, 3)
    size, channels = images.shape[-2:], images.shape[1]
    chosen = []
    for number in range(len(images)):
        pool = patches if number % 2 == 0 else others
        one = pool[int(torch.randint(len(pool), (), generator=rng))]
        chosen.append(interpolate(one[None], size=size, mode="bilinear").expand(1, channels, *size))
    return torch.cat(chosen)


def plant_outliers(
    images: Tensor, labels: Tensor, classes: int, dose: float, seed: int
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Replace shares of a split: ``dose`` mislabelled, half as many corrupted, half as many foreign."""
    rng = torch.Generator().manual_seed(seed)
    kinds = np.full(len(labels), "", dtype="U12")
    order = torch.randperm(len(labels), generator=rng)
    images, labels = images.clone(), labels.clone()
    many = round(dose * len(labels))
    wrong, bad, alien = order[:many], order[many : many + many // 2], order[many + many // 2 : 2 * many]
    labels[wrong] = (labels[wrong] + torch.randint(1, classes, (len(wrong),), generator=rng)) % classes
    images[bad], images[alien] = corrupt(images[bad], rng), foreign(images[alien], rng)
    for rows, kind in ((wrong, "mislabelled"), (bad, "corrupted"), (alien, "foreign")):
        kinds[rows.numpy()] = kind
    return images, labels, kinds


def plant_duplicates(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], kinds: np.ndarray, count: int, seed: int
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Put training samples (of the first 1,000) into validation: half exact copies, half slightly changed."""
    rng = torch.Generator().manual_seed(seed + 1)
    images, labels, kinds = val[0].clone(), val[1].clone(), kinds.copy()
    free = torch.from_numpy(np.flatnonzero(kinds == ""))
    into = free[torch.randperm(len(free), generator=rng)[:count]]
    source = torch.randperm(min(1000, len(train[0])), generator=rng)[:count]
    copies = train[0][source].clone()
    half = count // 2
    copies[half:] = 0.97 * copies[half:] + 0.01 + 0.01 * torch.randn(copies[half:].shape, generator=rng)
    images[into], labels[into] = copies, train[1][source]
    kinds[into[:half].numpy()], kinds[into[half:].numpy()] = "duplicate", "near"
    return images, labels, kinds
